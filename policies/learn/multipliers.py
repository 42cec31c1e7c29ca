"""Lagrange multipliers: how much a violation weighs, found while learning.

Letter: S seeds. A multiplier rises while the constraint is violated (`excess` above 0) and falls
while there is room.
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor


class DualGradient:
    """Gradient ascent on the logarithm, so that the multiplier stays positive.

    Minimises `-log(value) * excess` with Adam, as LR, SQRL and RCPO do in Recovery RL's comparison
    (arXiv 2010.15920): the step depends on the sign of a persistent excess, not on its size.
    """

    def __init__(self, start: float, rate: float, seeds: int = 1) -> None:
        """Begin at `start` with Adam's learning rate `rate`; 0 stays where it is, for either."""
        first = math.log(start) if start > 0 else -math.inf
        self.log_value = torch.full((seeds,), first, requires_grad=True)
        self._optimiser = torch.optim.Adam([self.log_value], rate)

    @property
    def value(self) -> Tensor:
        """(S,), without gradient."""
        return self.log_value.detach().exp()

    def step(self, excess: Tensor) -> None:
        """Move by the excess of the constraint, (S,)."""
        self.log_value.grad = -excess.detach()
        self._optimiser.step()

    def state(self) -> dict[str, Any]:
        return {
            "log_value": self.log_value.detach().clone(),
            "optimiser": deepcopy(self._optimiser.state_dict()),  # torch would share its counter
        }

    def restore(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self.log_value.copy_(state["log_value"])
        self._optimiser.load_state_dict(state["optimiser"])


class Pid:
    """A controller in place of gradient ascent (Stooke et al. 2020, arXiv 2007.03964, Alg. 2).

    The integral alone is the classical multiplier, which oscillates; the proportional and the
    derivative part damp it. The derivative only acts on a rising excess.
    """

    def __init__(
        self,
        proportional: float,
        integral: float,
        derivative: float,
        seeds: int = 1,
        highest: float = float("inf"),
    ) -> None:
        """Begin at 0; the value stays in [0, highest]."""
        self._gains = (proportional, integral, derivative)
        self._highest = highest
        self._integral = torch.zeros(seeds)
        self._last = torch.zeros(seeds)
        self.value = torch.zeros(seeds)

    def step(self, excess: Tensor) -> None:
        """Move by the excess of the constraint, (S,)."""
        proportional, integral, derivative = self._gains
        self._integral = (self._integral + excess).clamp(min=0.0)
        rise = (excess - self._last).clamp(min=0.0)
        self._last = excess.clone()
        value = proportional * excess + integral * self._integral + derivative * rise
        self.value.copy_(value.clamp(0.0, self._highest))  # in place: a recorded update reads it

    def state(self) -> dict[str, Any]:
        return {"integral": self._integral, "last": self._last, "value": self.value.clone()}

    def restore(self, state: dict[str, Any]) -> None:
        where = self.value.device
        self._integral = state["integral"].to(where, copy=True)
        self._last = state["last"].to(where, copy=True)
        self.value.copy_(state["value"])
