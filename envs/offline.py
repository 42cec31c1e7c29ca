"""Offline data sets by the recipes published with Recovery RL (arXiv 2010.15920).

Every generator takes its own `numpy.random.Generator`, so a seed fixes the data set.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from safetypilot.envs import registry

Array: TypeAlias = npt.NDArray[Any]
Policy: TypeAlias = Callable[[Array], Array]
Progress: TypeAlias = Callable[[int, int], None]

MINIMUM_SIZE = 40  # below it, a recipe would have a part without a single rollout
MAZE_BLOCK = 20  # steps between resets
MAZE_FORCE = registry.TASKS[registry.IDS["maze"]].description.action_high[0]
NAVIGATION_ROLLOUT = 10  # steps at most


class Transition(NamedTuple):
    """One row of a data set; the array fields are (2,) in our worlds."""

    observation: Array
    action: Array
    cost: float
    reward: float
    next_observation: Array
    terminated: bool
    truncated: bool


def offline_data(
    name: str,
    size: int,
    seed: int,
    *,
    continue_after_violation: bool = True,
    progress: Progress | None = None,
) -> dict[str, Array]:
    """Generate the published offline data set of one of our tasks.

    Args:
        name: `maze`, `navigation1` or `navigation2`, or their full ids.
        size: Transitions wanted. The maze gives exactly as many; the Navigation tasks give fewer
            (about 0.73 and 0.99 of it), because it sets their number of rollouts and these stop
            at a violation.
        seed: Fixes the whole data set.
        continue_after_violation: Maze only. As published, a block of 20 steps goes on after a
            violation, which repeats "stuck in the wall" samples; False starts a new block instead.
        progress: Called now and then with (done, total), in transitions or rollouts.

    Returns:
        Arrays of N rows: `observation`, `action`, `next_observation` (N, 2) float32, `cost`,
        `reward` (N,) float32, `terminated` (violation or success), `truncated` (N,) bool. The row
        after one with `terminated` or `truncated` need not continue it. Actions are as executed.
    """
    task = registry.resolve(name)
    generator = np.random.default_rng(seed)
    report = progress or (lambda done, total: None)
    if size < MINIMUM_SIZE:
        raise ValueError(f"size is {size}; the recipes need at least {MINIMUM_SIZE}")
    if task == registry.IDS["maze"]:
        rows = _maze(size, generator, continue_after_violation, report)
    elif task == registry.IDS["navigation1"]:
        rows = _navigation(1, _navigation1_plan(size, generator), generator, report)
    elif task == registry.IDS["navigation2"]:
        rows = _navigation(2, _navigation2_plan(size, generator), generator, report)
    else:
        ours = ", ".join(registry.IDS)
        raise ValueError(f"there is no offline data recipe for {name!r}, only for {ours}")
    return _stack(rows)


def maze_expert(observation: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Steer from (x, y) through both doors to the goal: a proportional controller, gain 1.05.

    Not a safe one: it starts towards the second door from where it is once x > -0.151.
    """
    position = np.asarray(observation, dtype=np.float64)
    if position[0] <= -0.151:
        waypoint = (-0.15, -0.125)
    elif position[0] <= 0.149:
        waypoint = (0.15, 0.125)
    else:
        waypoint = (0.25, 0.0)
    force = np.clip(1.05 * (waypoint - position), -MAZE_FORCE, MAZE_FORCE)
    return force.astype(np.float32)


def _maze(
    size: int, generator: np.random.Generator, continue_after_violation: bool, report: Progress
) -> list[Transition]:
    """Half uniformly random actions, half the expert, in blocks of 20 steps."""
    from safetypilot.envs.maze import Maze, sample_start

    def random_policy(observation: Array) -> Array:
        return generator.uniform(-MAZE_FORCE, MAZE_FORCE, 2).astype(np.float32)

    rows: list[Transition] = []
    env = Maze()
    for policy, end in ((random_policy, size // 2), (maze_expert, size)):
        while len(rows) < end:
            mode = str(generator.choice(["e", "m", "h"], p=[0.3, 0.3, 0.4]))
            position = sample_start(generator, mode)
            steps = min(MAZE_BLOCK, end - len(rows))
            rows += _rollout(env, position, policy, steps, not continue_after_violation)
            report(len(rows), size)
    env.close()
    return rows


# One rollout of a Navigation recipe: where it starts, and what its actions are drawn from.
Plan: TypeAlias = list[tuple[Array, Policy]]


def _navigation1_plan(size: int, generator: np.random.Generator) -> Plan:
    """Random walks that start in the outer thirds of the corridor, so that many leave it."""

    def start() -> Array:
        side = generator.choice([-1.0, 1.0])
        return np.array([generator.uniform(-80.0, 50.0), side * generator.uniform(2.0, 5.0)])

    walk = _random_walk(generator)
    return [(start(), walk) for _ in range(size // 10)]


def _navigation2_plan(size: int, generator: np.random.Generator) -> Plan:
    """Random walks around the block, and pushes into it from each of its four sides."""
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
    return plan


def _random_walk(generator: np.random.Generator) -> Policy:
    return lambda observation: np.clip(generator.standard_normal(2), -1.0, 1.0).astype(np.float32)


def _push(generator: np.random.Generator, axis: int, direction: float) -> Policy:
    def push(observation: Array) -> Array:
        action = np.clip(generator.standard_normal(2), -1.0, 1.0)
        action[axis] = direction * generator.uniform(0.5, 1.0)
        return action.astype(np.float32)

    return push


def _navigation(
    variant: int, plan: Plan, generator: np.random.Generator, report: Progress
) -> list[Transition]:
    """Rollouts of at most ten steps that stop at a violation, but not at the goal, as published."""
    from safetypilot.envs.navigation import Navigation

    rows: list[Transition] = []
    env = Navigation(variant)
    env.reset(seed=int(generator.integers(2**31)))
    for done, (position, policy) in enumerate(plan, start=1):
        rows += _rollout(env, position, policy, NAVIGATION_ROLLOUT, stop_at_violation=True)
        if done % 100 == 0 or done == len(plan):
            report(done, len(plan))
    return rows


def _rollout(
    env: Any, position: Array, policy: Policy, steps: int, stop_at_violation: bool
) -> list[Transition]:
    """Run a policy from `position`; the last row is truncated unless a violation stopped it."""
    rows: list[Transition] = []
    observation, _ = env.reset(options={"position": position})
    for step in range(steps):
        action = policy(observation)
        following, reward, terminated, _, info = env.step(action)
        stop = stop_at_violation and info["cost"] > 0
        truncated = step == steps - 1 and not stop
        rows.append(
            Transition(observation, action, info["cost"], reward, following, terminated, truncated)
        )
        if stop:
            break
        observation = following
    return rows


def _stack(rows: list[Transition]) -> dict[str, Array]:
    flags = ("terminated", "truncated")
    return {
        field: np.array(column, dtype=bool if field in flags else np.float32)
        for field, column in zip(Transition._fields, zip(*rows, strict=True), strict=True)
    }
