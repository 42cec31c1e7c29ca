"""What the plant and the models of one graph agree on: names, units, sizes and limits."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from math import isfinite, prod
from typing import Any

from safetypilot.nodes.kernel.errors import KernelError

_SHAPED = re.compile(r"\[([1-9]\d*(?:,[1-9]\d*)*)\]$")  # as in models/contract.py


@dataclass(frozen=True, slots=True)
class Interface:
    """Names, units and limits of a plant, in the order that arrays carry them.

    An observation name may end in a shape: `image[64,64,3]` stands for 12288 values, row-major.
    `failsafe` is the action the plant applies by itself when it has no trusted command.

    Raises:
        KernelError: lengths disagree, a limit is not finite or failsafe is outside the limits.
    """

    observation_names: tuple[str, ...]
    observation_units: tuple[str, ...]
    action_names: tuple[str, ...]
    action_units: tuple[str, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    failsafe: tuple[float, ...]

    def __post_init__(self) -> None:
        size = len(self.action_names)
        for name in ("action_units", "action_low", "action_high", "failsafe"):
            got = len(getattr(self, name))
            if got != size:
                raise KernelError(f"interface: {name} has {got} entries, action_names has {size}")
        if len(self.observation_units) != len(self.observation_names):
            raise KernelError("interface: observation_units and observation_names differ in length")
        limits = zip(
            self.action_names, self.action_low, self.failsafe, self.action_high, strict=True
        )
        for name, low, failsafe, high in limits:
            if not (isfinite(low) and isfinite(high) and low <= failsafe <= high):
                raise KernelError(
                    f"interface: action {name!r} needs finite low <= failsafe <= high, "
                    f"got {low}, {failsafe}, {high}"
                )

    @property
    def observation_size(self) -> int:
        """Values in an observation, all its names together."""
        return sum(_size(name) for name in self.observation_names)

    def observation_index(self, name: str) -> int:
        """Where in an observation the value of that name is.

        Raises:
            KernelError: there is none, or it stands for more than one value.
        """
        if name not in self.observation_names:
            known = ", ".join(self.observation_names)
            raise KernelError(f"there is no observation {name!r}; there are {known}")
        if _SHAPED.search(name):
            raise KernelError(f"observation {name!r} stands for more than one value")
        before = self.observation_names[: self.observation_names.index(name)]
        return sum(_size(earlier) for earlier in before)

    @property
    def action_size(self) -> int:
        return len(self.action_names)

    @property
    def dims(self) -> dict[str, int]:
        """Sizes by the symbol that message definitions use for them."""
        return {"O": self.observation_size, "A": self.action_size}

    def to_dict(self) -> dict[str, Any]:
        return {key: list(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Interface:
        return cls(**{key: tuple(data[key]) for key in cls.__dataclass_fields__})


def _size(name: str) -> int:
    """How many values an observation name stands for."""
    shaped = _SHAPED.search(name)
    return prod(int(side) for side in shaped[1].split(",")) if shaped else 1
