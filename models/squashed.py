"""A Gaussian squashed by tanh, as one node of the graph (SAC's appendix C, arXiv 1812.05905)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everybody knows

from safetypilot.models.stacked import refuse_second_derivative

LOG_STD_RANGE = (-20.0, 2.0)
_LOG_2PI = math.log(2.0 * math.pi)
_LOG_2 = math.log(2.0)
_hardtanh_gradient = torch.ops.aten.hardtanh_backward.default


def squash(output: Tensor, noise: Tensor, middle: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """The action middle + half tanh(mean + std noise), differentiable, and its log-density.

    Args:
        output: of the network, (..., 2 A): means, then logarithms of deviations, which are held in
            `LOG_STD_RANGE`.
        noise: standard normal, (..., A).
        middle: of the action box, (..., 1, A).
        half: of its width, (..., 1, A).

    Returns:
        Actions (..., A), and the logarithm of their density (...) as if the box were [-1, 1], so
        that an entropy means the same whatever the units.
    """
    action, density = _Squash.apply(output, noise, middle, half)
    return action, density


class _Squash(torch.autograd.Function):  # type: ignore[misc]
    """With x = mean + std noise: u = tanh(x), log p = sum(log N(noise) - log_std - log(1 - u^2)).

    Autograd's own derivative took 50 small operations, together as long as half the network before
    them; by hand it is du/dx = 1 - u^2 and dlog p/dx = 2 u.
    """

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, noise: Tensor, middle: Tensor, half: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The arguments of `squash`."""
        actions = noise.shape[-1]
        raw = output[..., actions:]
        log_std = raw.clamp(*LOG_STD_RANGE)
        deviation = log_std.exp().mul_(noise)  # of x from the mean
        x = output[..., :actions] + deviation
        unit = torch.tanh(x)
        # log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2 x)) loses no digits where tanh saturates
        terms = torch.add(F.softplus(-2.0 * x).add_(x), log_std, alpha=-0.5)
        density = terms.addcmul_(noise, noise, value=-0.25).sum(dim=-1).mul_(2.0)
        density -= actions * (0.5 * _LOG_2PI + 2.0 * _LOG_2)
        ctx.save_for_backward(raw, deviation, unit, half)
        return torch.addcmul(middle, half, unit), density

    @staticmethod
    def backward(
        ctx: Any, of_action: Tensor, of_density: Tensor
    ) -> tuple[Tensor | None, None, None, None]:
        """The gradient of the network's output; the rest is given."""
        refuse_second_derivative()
        raw, deviation, unit, half = ctx.saved_tensors
        of_unit, of_density = of_action * half, of_density[..., None]
        # of_unit (1 - u^2) + of_density 2 u
        of_x = torch.addcmul(of_unit, of_unit * unit - 2.0 * of_density, unit, value=-1.0)
        of_log_std = torch.addcmul(-of_density, of_x, deviation)
        of_raw = _hardtanh_gradient(of_log_std, raw, *LOG_STD_RANGE)
        return torch.cat((of_x, of_raw), dim=-1), None, None, None
