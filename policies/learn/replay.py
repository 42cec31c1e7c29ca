"""Transitions in pre-allocated arrays, by name; nothing here is called `done`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from safetypilot.policies.learn.errors import LearnError

Array = NDArray[Any]


class Transition(NamedTuple):
    """One step; or many, with a leading dimension on everything.

    `proposed` is what the task policy wanted, `executed` what the plant got. `terminated` means
    that nothing follows (violation or success), `truncated` that only the clock ran out.
    """

    observation: Array  # (O,)
    proposed: Array  # (A,)
    executed: Array  # (A,)
    reward: Any
    cost: Any
    next_observation: Array  # (O,)
    terminated: Any
    truncated: Any


class Replay:
    """The newest `capacity` transitions.

    Attributes:
        size: transitions held.
        violations: transitions held that cost something.
    """

    def __init__(self, capacity: int, observation_size: int, action_size: int) -> None:
        """Allocate for float32 observations (O,) and actions (A,)."""
        self.capacity = capacity
        self.size = 0
        self._next = 0
        widths = {"observation": observation_size, "next_observation": observation_size}
        widths |= {"proposed": action_size, "executed": action_size}
        self._arrays: dict[str, Array] = {}
        for name in Transition._fields:
            shape = (capacity, widths[name]) if name in widths else (capacity,)
            kind = np.bool_ if name in ("terminated", "truncated") else np.float32
            self._arrays[name] = np.zeros(shape, kind)
        self._costly: list[int] = []  # rows with a cost

    @property
    def violations(self) -> int:
        return len(self._costly)

    def add(self, transition: Transition) -> None:
        """Store one step, over the oldest if full."""
        index = self._next
        if self.size == self.capacity and self._arrays["cost"][index] > 0:
            self._costly.remove(index)
        for name, value in zip(Transition._fields, transition, strict=True):
            self._arrays[name][index] = value
        if transition.cost > 0:
            self._costly.append(index)
        self._next = (index + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)

    def extend(self, rows: Transition) -> None:
        """Store many steps, (N, ...)."""
        for row in zip(*rows, strict=True):
            self.add(Transition(*row))

    def rows(self) -> Transition:
        """Everything held, as views, oldest first only until it is full."""
        return Transition(**{name: array[: self.size] for name, array in self._arrays.items()})

    def sample(
        self, rng: np.random.Generator, count: int, positive_fraction: float = 0.0
    ) -> Transition:
        """Draw rows with replacement.

        Args:
            rng: the source of chance.
            count: rows wanted.
            positive_fraction: part of them that cost something, as long as any do; 0 draws
                uniformly from all.
        """
        if not self.size:
            raise LearnError("the replay buffer is empty; add transitions before updating")
        indices = rng.integers(self.size, size=count)
        if positive_fraction > 0 and 0 < self.violations < self.size:
            costly = np.asarray(self._costly)
            positives = int(count * positive_fraction)
            indices[:positives] = costly[rng.integers(len(costly), size=positives)]
            cost = self._arrays["cost"]
            rest = indices[positives:]
            while (again := cost[rest] > 0).any():  # negatives by rejection: they are the many
                rest[again] = rng.integers(self.size, size=int(again.sum()))
        return Transition(**{name: array[indices] for name, array in self._arrays.items()})

    def state(self) -> dict[str, Array]:
        """What `restore` needs: the rows in use and where the next goes."""
        arrays = {name: array[: self.size].copy() for name, array in self._arrays.items()}
        return {**arrays, "next": np.array(self._next)}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Continue exactly where `state` was taken."""
        size = len(state["cost"])
        if size > self.capacity:
            raise LearnError(f"{size} transitions do not fit a replay buffer of {self.capacity}")
        for name, array in self._arrays.items():
            if state[name].shape[1:] != array.shape[1:]:
                raise LearnError(f"saved {name} has shape {state[name].shape}, not {array.shape}")
            array[:size] = state[name]
        self.size, self._next = size, int(state["next"])
        self._costly = self._costly_in_order()

    def _costly_in_order(self) -> list[int]:
        """Rows with a cost, oldest first, as `add` keeps them."""
        order = (np.arange(self.size) + (self._next if self.size == self.capacity else 0)) % max(
            self.size, 1
        )
        return [int(i) for i in order[self._arrays["cost"][order] > 0]]
