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

MAZE_BLOCK = 20  # steps between resets
MAZE_FORCE = 0.1


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
        progress: Called now and then with (done, total).

    Returns:
        Arrays of N rows: `observation`, `action`, `next_observation` (N, 2) float32, `cost`,
        `reward` (N,) float32, `terminated` (violation or success), `truncated` (N,) bool. The row
        after one with `terminated` or `truncated` need not continue it. Actions are as executed.
    """
    task = registry.resolve(name)
    generator = np.random.default_rng(seed)
    report = progress or (lambda done, total: None)
    if task == registry.IDS["maze"]:
        rows = _maze(size, generator, continue_after_violation, report)
    else:
        raise ValueError(f"no offline data recipe for {name!r}")
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
