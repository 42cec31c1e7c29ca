"""What a planner's model answers to one step, so that two of a kind can be compared.

Letters: O observation, L latent and A action dimension, E nets of an ensemble.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from safetypilot.policies.critic import Critic, Dynamics

Array = NDArray[np.float32]


def risk(critic: Critic, start: Array, action: Array) -> Array:
    """Risk of an action (A,) where a plan starts, (O,) or (L,); (1,)."""
    return critic.run(observation=start[None], action=action[None])["risk"]


def following(dynamics: Dynamics, start: Array, action: Array) -> Array:
    """What is observed next, by the mean of the nets: (O,) or (L,)."""
    nets = dynamics.members or 1
    rows, actions = (np.tile(row, (nets, 1, 1)) for row in (start, action))
    found = dynamics.run(observation=rows, action=actions, noise=np.zeros_like(rows))
    mean: Array = found["next_observation"].mean(axis=(0, 1))
    return mean


def answer(part: str, engine: Any, start: Array, action: Array) -> Array:
    """The answer of a planner's part: "critic", "dynamics" or "policy".

    Args:
        part: which it is.
        engine: the model, or what stands in for it.
        start: where the plan starts, (O,) or (L,).
        action: the first of the plan, (A,).
    """
    if part == "critic":
        return risk(engine, start, action)
    if part == "dynamics":
        return following(engine, start, action)
    action_of: Array = engine.run(observation=start[None])["action"][0]
    return action_of
