"""The maze's scripted expert and its published offline data."""

import numpy as np
import numpy.typing as npt

from safetypilot.envs.data import Array, Progress, Transition, rollout, stack

BLOCK = 20  # steps between resets
FORCE = 0.1


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
    force = np.clip(1.05 * (waypoint - position), -FORCE, FORCE)
    return force.astype(np.float32)


def maze_data(
    env_id: str,
    size: int,
    generator: np.random.Generator,
    progress: Progress,
    *,
    continue_after_violation: bool = True,
) -> dict[str, Array]:
    """Half uniformly random actions, half the expert, in blocks of 20 steps; exactly `size` rows.

    Published, a block goes on after a violation, which repeats "stuck in the wall" samples;
    `continue_after_violation=False` starts a new block instead.
    """
    from safetypilot.envs.maze import Maze, sample_start

    def random_policy(observation: Array) -> Array:
        return generator.uniform(-FORCE, FORCE, 2).astype(np.float32)

    rows: list[Transition] = []
    env = Maze()
    for policy, end in ((random_policy, size // 2), (maze_expert, size)):
        while len(rows) < end:
            mode = str(generator.choice(["e", "m", "h"], p=[0.3, 0.3, 0.4]))
            position = sample_start(generator, mode)
            observation, _ = env.reset(options={"position": position})
            steps = min(BLOCK, end - len(rows))
            stop = not continue_after_violation
            rows += rollout(env, observation, policy, steps, stop_at_violation=stop)
            progress(len(rows), size)
    env.close()
    return stack(rows)
