"""Adam, target networks that follow, and networks held still while others learn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn

from safetypilot.policies.learn.errors import LearnError

_MOMENTS = ("means", "squares")


class Adam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980), without weight decay, as one fused call.

    The same arithmetic as torch's own, to the last bit, without what lies around it: with a few
    hundred thousand weights and a few milliseconds per update, that shows.

    Attributes:
        parameters: what it moves, in place.
        rate: step size; may be changed between steps.
    """

    def __init__(self, parameters: Iterable[Tensor], rate: float) -> None:
        """Start with no memory of any gradient."""
        self.parameters = list(parameters)
        self.rate = rate
        self.means = [torch.zeros_like(value) for value in self.parameters]
        self.squares = [torch.zeros_like(value) for value in self.parameters]
        self.count = torch.zeros((), device=self.parameters[0].device)  # steps so far

    def zero_grad(self) -> None:
        """Forget the gradients: the next backward pass then stores its own without a copy."""
        for value in self.parameters:
            value.grad = None

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        gradients = [value.grad for value in self.parameters]
        there = [value is not None for value in gradients]
        columns = [self.parameters, gradients, self.means, self.squares]
        if not all(there):
            columns = [list(compress(column, there)) for column in columns]
        self.count += 1.0
        if columns[0]:
            torch._fused_adam_(
                *(*columns, [], [self.count] * len(columns[0])),
                lr=self.rate,
                beta1=0.9,
                beta2=0.999,
                weight_decay=0.0,
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            )

    def state_dict(self) -> dict[str, Any]:
        """The rate and both moments, copied, so that later steps do not change them."""
        moments = {name: [value.clone() for value in getattr(self, name)] for name in _MOMENTS}
        return {"rate": self.rate, "count": self.count.clone(), **moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on bit for bit from `state`.

        Raises:
            LearnError: it is of other parameters; nothing was changed.
        """
        wanted = [tuple(value.shape) for value in self.parameters]
        for name in _MOMENTS:
            found = [tuple(value.shape) for value in state.get(name, ())]
            if found != wanted:
                raise LearnError(
                    f"the saved optimiser is of {len(found)} tensors of shapes {found}, not of "
                    f"{len(wanted)} of shapes {wanted}; resume with the sizes it was saved with"
                )
        self.rate = float(state["rate"])
        self.count.copy_(state["count"])
        for name in _MOMENTS:
            for mine, saved in zip(getattr(self, name), state[name], strict=True):
                mine.copy_(saved)


def polyak(target: nn.Module, source: nn.Module, rate: float) -> None:
    """Move a target network by `rate` towards its source."""
    with torch.no_grad():
        torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), rate)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Within, losses through these modules have gradients for their inputs, not their weights.

    A third of a critic's passes goes into gradients of its weights, and an actor has no use for
    them.
    """
    held = [value for module in modules for value in module.parameters() if value.requires_grad]
    for value in held:
        value.requires_grad_(False)
    try:
        yield
    finally:
        for value in held:
            value.requires_grad_(True)
