"""A Gaussian squashed by tanh, as one node of the graph (SAC's appendix C, arXiv 1812.05905)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everybody knows

from safetypilot.models.stacked import refuse_second_derivative

_LOG_2PI = math.log(2.0 * math.pi)
_LOG_2 = math.log(2.0)


def squash(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """tanh(mean + std noise) and its log-density, with gradients by reparametrisation.

    Args:
        mean: before squashing, (..., A).
        log_std: logarithm of the deviation, (..., A).
        noise: standard normal, (..., A).

    Returns:
        Actions in [-1, 1], (..., A), and the logarithm of their joint density, (...).
    """
    action, density = _Squash.apply(mean, log_std, noise)
    return action, density


class _Squash(torch.autograd.Function):  # type: ignore[misc]
    """With x = mean + std noise: u = tanh(x), log p = sum(log N(noise) - log_std - log(1 - u^2)).

    Autograd's own derivative of this took 40 small operations, as long as a quarter of the network
    before it; by hand, du/dx = 1 - u^2 and dlog p/dx = 2 u.
    """

    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The arguments of `squash`."""
        deviation = log_std.exp().mul_(noise)  # of x from the mean
        x = mean + deviation
        action = torch.tanh(x)
        # log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2 x)) loses no digits where tanh saturates
        terms = torch.add(F.softplus(-2.0 * x).add_(x), log_std, alpha=-0.5)
        density = terms.addcmul_(noise, noise, value=-0.25).sum(dim=-1).mul_(2.0)
        constant = mean.shape[-1] * (0.5 * _LOG_2PI + 2.0 * _LOG_2)
        ctx.save_for_backward(action, deviation)
        return action, density.sub_(constant)

    @staticmethod
    def backward(ctx: Any, of_action: Tensor, of_density: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of mean and log_std; the noise is given."""
        refuse_second_derivative()
        action, deviation = ctx.saved_tensors
        of_density = of_density[..., None]
        # of_action (1 - u^2) + of_density 2 u
        of_x = torch.addcmul(of_action, of_action * action - 2.0 * of_density, action, value=-1.0)
        return of_x, torch.addcmul(-of_density, of_x, deviation), None
