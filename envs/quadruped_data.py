"""Offline data of the quadruped: pushed, leaning, and caught in time or not.

Each rollout begins in some stance, is flown by a scripted controller with more or less noise, and
may be taken over by another at a moment that was drawn: so falls, near falls and rescues are all in
it, to any side and from any height.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from safetypilot.envs import quadruped_expert as experts
from safetypilot.envs import quadruped_legs as legs
from safetypilot.envs import quadruped_names as names
from safetypilot.envs.data import Array, Policy, Progress, Transition, rollout, stack
from safetypilot.envs.quadruped import Quadruped

ROLLOUT = 60  # steps at most: 1.2 s
NOISE = (0.0, 0.03, 0.1, 0.3)  # rad
PUSHES = (60.0, 320.0)  # N
PUSH_AT, PUSH_FOR = (0.0, 0.4), (0.1, 0.3)  # s
HOLD = 5  # steps for which wild targets stay

# One rollout: options of the reset, and who flies.
Scene = Callable[[np.random.Generator], tuple[dict[str, Any], Policy]]


def quadruped_data(
    env_id: str, size: int, generator: np.random.Generator, progress: Progress
) -> dict[str, Array]:
    """Exactly `size` rows of rollouts that stop at a fall; see envs/offline.py."""
    env = Quadruped()
    env.reset(seed=int(generator.integers(2**31)))
    rows: list[Transition] = []
    for scene in itertools.cycle(SCENES):
        options, policy = scene(generator)
        observation, _ = env.reset(options=options)
        rows += rollout(env, observation, policy, ROLLOUT)
        progress(min(len(rows), size), size)
        if len(rows) >= size:
            break
    env.close()
    last = rows[size - 1]
    rows[size - 1] = last._replace(truncated=not last.terminated)
    return stack(rows[:size])


def leaning(generator: np.random.Generator) -> tuple[dict[str, Any], Policy]:
    """Leans until it falls, from upright, about to one of its four sides."""
    side = 0.5 * np.pi * int(generator.integers(4)) + generator.normal(0.0, 0.2)
    return _stance(generator, (0.26, 0.32)), partial(experts.lean, side=float(side))


def caught(generator: np.random.Generator) -> tuple[dict[str, Any], Policy]:
    """Leans, then lies down or tries to stand."""
    other = experts.lie_down if generator.random() < 0.5 else experts.stand
    lean = partial(experts.lean, side=float(generator.uniform(-np.pi, np.pi)))
    policy = _taken_over(lean, other, int(generator.integers(3, 30)))
    return _stance(generator, (0.2, 0.32)), _noisy(generator, policy)


def pushed(generator: np.random.Generator) -> tuple[dict[str, Any], Policy]:
    """Stands and is pushed; now and then it lies down after that."""
    angle, force = generator.uniform(-np.pi, np.pi), generator.uniform(*PUSHES)
    push = {
        "at_s": generator.uniform(*PUSH_AT),
        "body": "trunk",
        "force": (force * np.cos(angle), force * np.sin(angle), 0.0),
        "duration_s": generator.uniform(*PUSH_FOR),
    }
    policy: Policy = experts.stand
    if generator.random() < 0.4:
        policy = _taken_over(policy, experts.lie_down, int(generator.integers(5, 35)))
    return _stance(generator, (0.2, 0.32)) | {"push": [push]}, _noisy(generator, policy)


def wild(generator: np.random.Generator) -> tuple[dict[str, Any], Policy]:
    """Targets at random that stay for a while; from lying or from any stance."""
    state: dict[str, Any] = {"left": 0}

    def policy(observation: Array) -> Array:
        if not state["left"]:
            state["left"] = HOLD
            state["action"] = generator.uniform(experts.LOW, experts.HIGH).astype(np.float32)
        state["left"] -= 1
        return np.array(state["action"])

    other = experts.stand if generator.random() < 0.5 else experts.lie_down
    mixed = _taken_over(policy, other, int(generator.integers(2, 40)))
    return _stance(generator, (names.LYING_HEIGHT, 0.32)), mixed


SCENES: tuple[Scene, ...] = (leaning, caught, pushed, wild)


def _stance(generator: np.random.Generator, heights: tuple[float, float]) -> dict[str, Any]:
    """Options that begin in some pose over the feet, with some command."""
    yaw, roll, pitch, x, y = generator.normal(0.0, (0.1, 0.05, 0.05, 0.01, 0.01)).tolist()
    pose = legs.Pose(float(generator.uniform(*heights)), yaw, roll, pitch, x, y)
    height, turn = generator.uniform(*names.HEIGHTS), generator.uniform(*names.YAWS)
    return {"position": legs.angles(pose), "commands": [(0, float(height), float(turn))]}


def _taken_over(first: Policy, then: Policy, step: int) -> Policy:
    steps = itertools.count()
    return lambda observation: (first if next(steps) < step else then)(observation)


def _noisy(generator: np.random.Generator, policy: Policy) -> Policy:
    deviation = float(generator.choice(NOISE))

    def noisy(observation: Array) -> Array:
        action = policy(observation)
        noise = generator.normal(0.0, deviation, action.shape) if deviation else 0.0
        return np.clip(action + noise, experts.LOW, experts.HIGH).astype(np.float32)

    return noisy
