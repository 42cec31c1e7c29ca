"""Navigation's scripted experts and published offline data."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from safetypilot.envs.data import Array, Policy, Progress, Transition, rollout, stack

ROLLOUT = 10  # steps at most
CLEARANCE = 10.0  # |y| at which Navigation 2's expert passes its block, whose edge is at 7.5

# One rollout: where it starts, and what its actions are drawn from.
Plan: TypeAlias = list[tuple[Array, Policy]]


def navigation1_expert(observation: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Straight to the goal at full speed, through the middle of the corridor."""
    position = np.asarray(observation, dtype=np.float64)
    return np.clip(-position, -1.0, 1.0).astype(np.float32)


def navigation2_expert(observation: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Around the block on the side where it is: away from its middle, past it, to the goal."""
    x, y = np.asarray(observation, dtype=np.float64)
    side = CLEARANCE if y >= 0 else -CLEARANCE
    if x >= -18.0:
        target = (0.0, 0.0)
    elif abs(y) < 9.0:
        target = (max(x, -32.0), side)
    else:
        target = (-17.0, side)
    offset = np.subtract(target, (x, y))
    step: npt.NDArray[np.float32] = (offset / max(1.0, np.abs(offset).max())).astype(np.float32)
    return step


def navigation1_data(
    env_id: str, size: int, generator: np.random.Generator, progress: Progress
) -> dict[str, Array]:
    """Random walks that start in the outer thirds of the corridor, so that many leave it.

    `size` sets the number of rollouts; as they stop at a violation, about 0.73 of it come out.
    """

    def start() -> Array:
        side = generator.choice([-1.0, 1.0])
        return np.array([generator.uniform(-80.0, 50.0), side * generator.uniform(2.0, 5.0)])

    walk = _random_walk(generator)
    plan = [(start(), walk) for _ in range(size // 10)]
    return _carry_out(1, plan, generator, progress)


def navigation2_data(
    env_id: str, size: int, generator: np.random.Generator, progress: Progress
) -> dict[str, Array]:
    """Random walks around the block, and pushes into it from each of its four sides.

    `size` sets the number of rollouts; as they stop at a violation, about 0.99 of it come out.
    """
    from safetypilot.envs.navigation import VARIANTS, in_obstacle

    obstacles = np.array(VARIANTS[2].walls)
    walk = _random_walk(generator)
    plan: Plan = []
    while len(plan) < size // 30:
        position = generator.uniform((-40.0, -25.0), (10.0, 25.0))
        if not in_obstacle(position, obstacles):
            plan.append((position, walk))
    for (x0, x1, y0, y1), axis, direction in (
        ((-35.0, -30.0, -12.0, 12.0), 0, 1.0),
        ((-20.0, -15.0, -12.0, 12.0), 0, -1.0),
        ((-30.0, -20.0, 10.0, 15.0), 1, -1.0),
        ((-30.0, -20.0, -15.0, -10.0), 1, 1.0),
    ):
        push = _push(generator, axis, direction)
        plan += [(generator.uniform((x0, y0), (x1, y1)), push) for _ in range(size // 40)]
    return _carry_out(2, plan, generator, progress)


def _random_walk(generator: np.random.Generator) -> Policy:
    return lambda observation: np.clip(generator.standard_normal(2), -1.0, 1.0).astype(np.float32)


def _push(generator: np.random.Generator, axis: int, direction: float) -> Policy:
    def push(observation: Array) -> Array:
        action = np.clip(generator.standard_normal(2), -1.0, 1.0)
        action[axis] = direction * generator.uniform(0.5, 1.0)
        return action.astype(np.float32)

    return push


def _carry_out(
    variant: int, plan: Plan, generator: np.random.Generator, progress: Progress
) -> dict[str, Array]:
    """Rollouts of at most ten steps that stop at a violation, but not at the goal, as published."""
    from safetypilot.envs.navigation import Navigation

    rows: list[Transition] = []
    env = Navigation(variant)
    env.reset(seed=int(generator.integers(2**31)))
    for done, (position, policy) in enumerate(plan, start=1):
        observation, _ = env.reset(options={"position": position})
        rows += rollout(env, observation, policy, ROLLOUT)
        if done % 100 == 0 or done == len(plan):
            progress(done, len(plan))
    return stack(rows)
