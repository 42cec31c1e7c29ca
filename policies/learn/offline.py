"""Offline data as transitions: what is asked of them, and which rows teach what."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.replay import Array, Transition

_REQUIRED = frozenset(("observation", "action", "cost", "next_observation"))


def rows(data: Mapping[str, Array]) -> Transition:
    """Transitions of N rows from arrays by name.

    Args:
        data: observation, next_observation (N, O), action (N, A), cost (N,); if known also reward,
            terminated and truncated, (N,). Without `terminated`, a cost is what terminates.

    Raises:
        LearnError: an array is missing, or there are no rows.
    """
    missing = _REQUIRED - set(data)
    if missing:
        raise LearnError(f"offline data lacks {', '.join(sorted(missing))}")
    cost = np.asarray(data["cost"], np.float32)
    if not len(cost):
        raise LearnError("offline data has no rows")
    action = np.asarray(data["action"], np.float32)
    return Transition(
        observation=_values(data["observation"]),
        proposed=action,
        executed=action,
        reward=np.asarray(data.get("reward", np.zeros_like(cost)), np.float32),
        cost=cost,
        next_observation=_values(data["next_observation"]),
        terminated=np.asarray(data.get("terminated", cost > 0), np.bool_),
        truncated=np.asarray(data.get("truncated", np.zeros(len(cost))), np.bool_),
    )


def _values(observations: Array) -> Array:
    """As float32, but pixels as bytes."""
    array = np.asarray(observations)
    return array if array.dtype == np.uint8 else array.astype(np.float32, copy=False)


def choose(transitions: Transition, which: Array) -> Transition:
    """The rows where `which` (N,) is true."""
    return Transition(*(column[which] for column in transitions))


def starts_in_violation(transitions: Transition) -> Array:
    """Rows (N,) that go on from where the row before them violated."""
    after = np.zeros(len(transitions.cost), np.bool_)
    same = transitions.next_observation[:-1] == transitions.observation[1:]
    after[1:] = (transitions.cost[:-1] > 0) & np.all(same, axis=1)
    return after
