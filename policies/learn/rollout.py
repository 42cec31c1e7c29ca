"""Storage for on-policy algorithms: what N environments did in the last T steps, by name.

Letters: T steps, N environments, M valid steps of all, B batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.replay import Array


class Rollout:
    """Pre-allocated arrays (T, N, ...), filled step by step, read once, and filled again.

    Attributes:
        fields: arrays by name; rows from `size` on are of no meaning.
        size: steps held.
    """

    def __init__(self, steps: int, envs: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Allocate float32.

        Args:
            steps: T.
            envs: N.
            shapes: of one value of each field, such as `{"observation": (4,), "reward": ()}`.
        """
        self.steps, self.envs, self.size = steps, envs, 0
        self.fields: dict[str, Array] = {
            name: np.zeros((steps, envs, *shape), np.float32) for name, shape in shapes.items()
        }

    @property
    def full(self) -> bool:
        return self.size == self.steps

    def add(self, **values: Array) -> None:
        """Store one step of every environment, (N, ...) per field.

        Raises:
            LearnError: it is full, or a field is missing or unknown.
        """
        if self.full:
            raise LearnError(f"the rollout holds {self.steps} steps already; read it and clear it")
        if set(values) != set(self.fields):
            raise LearnError(f"a step has {sorted(values)}, wanted {sorted(self.fields)}")
        for name, value in values.items():
            self.fields[name][self.size] = value
        self.size += 1

    def clear(self) -> None:
        """Begin anew; the memory stays."""
        self.size = 0

    def held(self, name: str) -> Array:
        """A field of the steps held, (T, N, ...)."""
        return self.fields[name][: self.size]

    def rows(self, valid: Array | None = None, **more: Array) -> dict[str, Array]:
        """Every field of all steps as rows, (M, ...).

        Args:
            valid: (T, N), which steps count; None for all.
            more: arrays (T, N, ...) beside the fields, such as advantages.
        """
        chosen = np.ones((self.size, self.envs), np.bool_) if valid is None else valid > 0
        together = {name: self.held(name) for name in self.fields} | more
        return {name: array[chosen] for name, array in together.items()}


def batches(
    rows: Mapping[str, Array], size: int, rng: np.random.Generator
) -> Iterator[dict[str, Array]]:
    """One pass over rows (M, ...) in random order, (B, ...) at a time; the last may be smaller."""
    order = rng.permutation(len(next(iter(rows.values()))))
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        yield {name: array[chosen] for name, array in rows.items()}


def advantages(
    reward: Array,
    value: Array,
    next_value: Array,
    terminated: Array,
    truncated: Array,
    *,
    gamma: float,
    lambda_: float,
) -> Any:
    """Generalised advantage estimates (Schulman et al. 2016, arXiv 1506.02438), all (T, N).

    Where the task ended nothing follows; where the clock ran out something would have, and it is
    worth `next_value`. Either way what comes next in the array is of another episode. For the
    constraint give costs for rewards, and their values.

    Args:
        reward: of each step.
        value: of the observation before it.
        next_value: of the observation that it led to, the last of its episode where that ended.
        terminated: nothing follows.
        truncated: something would have followed.
        gamma: discount.
        lambda_: 0 trusts the values alone, 1 the rewards alone.

    Returns:
        Advantages; with `value` added they are what the value function should learn.
    """
    follows = 1.0 - np.asarray(terminated, np.float64)
    goes_on = follows * (1.0 - np.asarray(truncated, np.float64))
    surprise = reward + gamma * follows * next_value - value
    found = np.zeros_like(surprise)
    later = np.zeros(surprise.shape[1:])
    for step in reversed(range(len(surprise))):
        later = surprise[step] + gamma * lambda_ * goes_on[step] * later
        found[step] = later
    return found.astype(np.float32)
