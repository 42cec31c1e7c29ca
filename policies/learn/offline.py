"""Offline data as transitions: what is asked of them, and which rows teach what."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.replay import Array, Transition

_REQUIRED = ("observation", "action", "cost", "next_observation")
_OPTIONAL = ("reward", "terminated", "truncated")


def rows(data: Mapping[str, Array], observation_size: int, action_size: int) -> Transition:
    """Transitions of N rows from arrays by name.

    Args:
        data: observation, next_observation (N, O), action (N, A), cost (N,) in [0, 1]; if known
            also reward, terminated and truncated, (N,). Without `terminated`, a cost is what
            terminates.
        observation_size: O of the plant.
        action_size: A of the plant.

    Raises:
        LearnError: an array is missing, of another shape, or not finite; or there are no rows.
    """
    missing = set(_REQUIRED) - set(data)
    if missing:
        raise LearnError(f"offline data lacks {', '.join(sorted(missing))}")
    count = len(data["cost"])
    if not count:
        raise LearnError("offline data has no rows")
    vectors = dict.fromkeys(("observation", "next_observation"), (count, observation_size))
    shapes = {**vectors, "action": (count, action_size)}
    names = [name for name in (*_REQUIRED, *_OPTIONAL) if name in data]
    found = {name: _checked(name, data[name], shapes.get(name, (count,))) for name in names}
    cost = found["cost"]
    if cost.min() < 0 or cost.max() > 1:
        raise LearnError(
            f"offline data: costs from {cost.min():g} to {cost.max():g}; wanted 1 where a step "
            "violated, else 0"
        )
    return Transition(
        observation=found["observation"],
        proposed=found["action"],
        executed=found["action"],
        reward=found.get("reward", np.zeros_like(cost)),
        cost=cost,
        next_observation=found["next_observation"],
        terminated=found.get("terminated", cost > 0).astype(np.bool_),
        truncated=found.get("truncated", np.zeros_like(cost)).astype(np.bool_),
    )


def _checked(name: str, values: Array, shape: tuple[int, ...]) -> Array:
    """As finite float32 of this shape; pixels stay bytes."""
    array = np.asarray(values)
    if array.shape != shape:
        raise LearnError(
            f"offline data: {name} has shape {array.shape}, wanted {shape}; is it of this "
            "environment?"
        )
    if array.dtype == np.uint8:
        return array
    array = array.astype(np.float32, copy=False)
    bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if bad.any():
        raise LearnError(
            f"offline data: {name} is not finite in {int(bad.sum())} of {len(bad)} rows, first in "
            f"row {int(bad.argmax())}; leave them out"
        )
    return array


def choose(transitions: Transition, which: Array) -> Transition:
    """The rows where `which` (N,) is true."""
    return Transition(*(column[which] for column in transitions))


def starts_in_violation(transitions: Transition) -> Array:
    """Rows (N,) that go on from where the row before them violated."""
    after = np.zeros(len(transitions.cost), np.bool_)
    same = transitions.next_observation[:-1] == transitions.observation[1:]
    after[1:] = (transitions.cost[:-1] > 0) & np.all(same, axis=1)
    return after
