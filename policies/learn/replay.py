"""Transitions in pre-allocated arrays, by name; nothing here is called `done`.

Letters: S seeds that train side by side, B batch, N rows, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from safetypilot.policies.learn.errors import LearnError

Array = NDArray[Any]


class Transition(NamedTuple):
    """One step; or many, with leading dimensions on everything.

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
    """The newest `capacity` transitions of each seed.

    All fields of a transition lie side by side in one row, so that a batch is one gather.

    Attributes:
        sizes: transitions held, (S,).
    """

    def __init__(
        self,
        capacity: int,
        observation_size: int,
        action_size: int,
        seeds: int = 1,
        pixels: bool = False,
    ) -> None:
        """Allocate for float32 observations (O,) and actions (A,).

        Args:
            capacity: rows per seed.
            observation_size: O.
            action_size: A.
            seeds: S.
            pixels: observations are whole numbers in 0..255, kept in a byte each.
        """
        self.capacity = capacity
        self.seeds = seeds
        self.sizes = np.zeros(seeds, np.int64)
        self._next = np.zeros(seeds, np.int64)
        widths = dict.fromkeys(Transition._fields, 1)
        widths |= dict.fromkeys(("observation", "next_observation"), observation_size)
        widths |= dict.fromkeys(("proposed", "executed"), action_size)
        self._pixels: Array | None = None
        if pixels:
            self._pixels = np.zeros((seeds, capacity, 2, observation_size), np.uint8)
            del widths["observation"], widths["next_observation"]
        self._columns: dict[str, slice] = {}
        start = 0
        for name, width in widths.items():
            self._columns[name] = slice(start, start + width)
            start += width
        self._flat = {name for name, width in widths.items() if name not in _VECTORS}
        self._rows = np.zeros((seeds, capacity, start), np.float32)
        self._costly: list[list[int]] = [[] for _ in range(seeds)]  # rows with a cost

    @property
    def size(self) -> int:
        """Transitions of the seed that has fewest."""
        return int(self.sizes.min())

    @property
    def violations(self) -> int:
        """Transitions with a cost, of the seed that has fewest."""
        return min(len(rows) for rows in self._costly)

    def add(self, transition: Transition, seed: int = 0) -> None:
        """Store one step, over the oldest if full."""
        index = int(self._next[seed])
        if self.sizes[seed] == self.capacity and index in self._costly[seed]:
            self._costly[seed].remove(index)
        row = self._rows[seed, index]
        for name, columns in self._columns.items():
            row[columns] = getattr(transition, name)
        if self._pixels is not None:
            self._pixels[seed, index, 0] = transition.observation
            self._pixels[seed, index, 1] = transition.next_observation
        if transition.cost > 0:
            self._costly[seed].append(index)
        self._next[seed] = (index + 1) % self.capacity
        self.sizes[seed] = min(self.sizes[seed] + 1, self.capacity)

    def extend(self, rows: Transition, seed: int = 0) -> None:
        """Store many steps, (N, ...)."""
        for row in zip(*rows, strict=True):
            self.add(Transition(*row), seed)

    def rows(self, seed: int = 0) -> Transition:
        """Everything held of one seed, (N, ...), oldest first only until it is full."""
        size = int(self.sizes[seed])
        pixels = None if self._pixels is None else self._pixels[seed, :size]
        return self._named(self._rows[seed, :size], pixels)

    def sample(
        self, rng: np.random.Generator, count: int, positive_fraction: float = 0.0
    ) -> Transition:
        """Draw rows with replacement, (S, B, ...).

        Args:
            rng: the source of chance.
            count: B.
            positive_fraction: part of them that cost something, as long as any do; 0 draws
                uniformly from all.
        """
        if not self.size:
            raise LearnError("the replay buffer is empty; add transitions before updating")
        indices = rng.integers(self.sizes[:, None], size=(self.seeds, count))
        if positive_fraction > 0:
            for seed in range(self.seeds):
                self._stratify(rng, seed, indices[seed], int(count * positive_fraction))
        if self.seeds == 1:
            rows = self._rows[0].take(indices[0], axis=0)[None]
            pixels = (
                None if self._pixels is None else self._pixels[0].take(indices[0], axis=0)[None]
            )
        else:
            which = np.arange(self.seeds)[:, None]
            rows = self._rows[which, indices]
            pixels = None if self._pixels is None else self._pixels[which, indices]
        return self._named(rows, pixels)

    def _stratify(
        self, rng: np.random.Generator, seed: int, indices: Array, positives: int
    ) -> None:
        """Make the first `positives` indices (B,) rows with a cost, and the others without."""
        costly = np.asarray(self._costly[seed])
        if not 0 < len(costly) < self.sizes[seed]:
            return
        indices[:positives] = costly[rng.integers(len(costly), size=positives)]
        cost = self._rows[seed, :, self._columns["cost"].start]
        rest = indices[positives:]
        while (again := cost[rest] > 0).any():  # by rejection: those without are the many
            rest[again] = rng.integers(self.sizes[seed], size=int(again.sum()))

    def _named(self, rows: Array, pixels: Array | None) -> Transition:
        """Rows (..., W) as the views of their fields."""
        fields = {
            name: rows[..., columns.start] if name in self._flat else rows[..., columns]
            for name, columns in self._columns.items()
        }
        if pixels is not None:
            fields |= {"observation": pixels[..., 0, :], "next_observation": pixels[..., 1, :]}
        return Transition(**fields)

    def state(self) -> dict[str, Array]:
        """What `restore` needs: the rows in use and where the next goes."""
        used = [self._rows[seed, : self.sizes[seed]] for seed in range(self.seeds)]
        state: dict[str, Array] = {
            "rows": np.concatenate(used),
            "sizes": self.sizes.copy(),
            "next": self._next.copy(),
        }
        if self._pixels is not None:
            images = [self._pixels[seed, : self.sizes[seed]] for seed in range(self.seeds)]
            state["pixels"] = np.concatenate(images)
        return state

    def restore(self, state: Mapping[str, Array]) -> None:
        """Continue exactly where `state` was taken."""
        sizes, rows = state["sizes"], state["rows"]
        if len(sizes) != self.seeds:
            raise LearnError(f"the saved replay has {len(sizes)} seeds, this run {self.seeds}")
        if sizes.max(initial=0) > self.capacity:
            raise LearnError(
                f"{sizes.max()} transitions do not fit a replay buffer of {self.capacity}; "
                "raise capacity"
            )
        if rows.shape[1] != self._rows.shape[2] or ("pixels" in state) != (
            self._pixels is not None
        ):
            raise LearnError(
                f"saved rows have {rows.shape[1]} columns, not {self._rows.shape[2]}; "
                "the checkpoint is of another environment"
            )
        start = 0
        for seed, size in enumerate(sizes):
            self._rows[seed, :size] = rows[start : start + size]
            if self._pixels is not None:
                self._pixels[seed, :size] = state["pixels"][start : start + size]
            start += int(size)
        self.sizes, self._next = sizes.copy(), state["next"].copy()
        self._costly = [self._costly_in_order(seed) for seed in range(self.seeds)]

    def _costly_in_order(self, seed: int) -> list[int]:
        """Rows with a cost, oldest first, as `add` keeps them."""
        size = int(self.sizes[seed])
        shift = int(self._next[seed]) if size == self.capacity else 0
        order = (np.arange(size) + shift) % max(size, 1)
        cost = self._rows[seed, order, self._columns["cost"].start]
        return [int(i) for i in order[cost > 0]]


_VECTORS = ("observation", "next_observation", "proposed", "executed")
