"""The image maze's scripted expert and its published offline data."""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from safetypilot.envs.data import Array, Progress, Transition, rollout, sequences, stack
from safetypilot.envs.raster import Scene

BLOCK = 20  # steps between resets
FORCE = 0.3
RANDOM_SHARE = 0.7
EAST_SHARE = 0.4  # of the blocks, start in the goal's room
GAIN = 5.0


@cache
def _scene() -> Scene:
    from safetypilot.envs.image_maze import scene

    return scene()


def image_maze_expert(observation: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Steer to the door's middle, then to the goal; from pixels, flat or not, or from (x, y)."""
    seen = np.asarray(observation)
    position = seen.astype(np.float64) if seen.size == 2 else _scene().locate(seen)
    waypoint = (0.15, 0.125) if position[0] <= 0.149 else (0.25, 0.25)
    return np.clip(GAIN * (waypoint - position), -FORCE, FORCE).astype(np.float32)


def image_maze_data(
    env_id: str,
    size: int,
    generator: np.random.Generator,
    progress: Progress,
    *,
    continue_after_violation: bool = True,
) -> dict[str, Array]:
    """Seven tenths uniformly random actions, the rest the expert, in blocks of 20 steps.

    Exactly `size` rows. Published, a block goes on after a violation, which repeats "stuck in the
    wall" samples; `continue_after_violation=False` starts a new block instead.
    """
    env = _environment()
    rows: list[Transition] = []
    while len(rows) < size:
        steps = min(BLOCK, size - len(rows))
        random = len(rows) < RANDOM_SHARE * size
        rows += _block(env, generator, steps, random, not continue_after_violation)
        progress(len(rows), size)
    return stack(rows)


def image_maze_sequences(
    env_id: str, size: int, generator: np.random.Generator, progress: Progress
) -> dict[str, Array]:
    """The same blocks as whole sequences of 21 frames; the same seed gives the same blocks."""
    env = _environment()
    blocks: list[list[Transition]] = []
    for done in range(0, size - BLOCK + 1, BLOCK):
        random = done < RANDOM_SHARE * size
        blocks.append(_block(env, generator, BLOCK, random, stop_at_violation=False))
        progress(done + BLOCK, size)
    return sequences(blocks)


def _environment() -> Any:
    from safetypilot.envs.image_maze import ImageMaze

    return ImageMaze()


def _block(
    env: Any, generator: np.random.Generator, steps: int, random: bool, stop_at_violation: bool
) -> list[Transition]:
    mode = "e" if generator.random() < EAST_SHARE else "m"
    position = env.layout.sample_start(generator, mode)
    observation, _ = env.reset(options={"position": position})

    def random_policy(observation: Array) -> Array:
        return generator.uniform(-FORCE, FORCE, 2).astype(np.float32)

    policy = random_policy if random else image_maze_expert
    return rollout(env, observation, policy, steps, stop_at_violation=stop_at_violation)
