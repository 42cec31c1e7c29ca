"""Reach's scripted experts and offline data.

The published demonstrations go to the goal by way of a sub-goal, with noise of one full step; how
many there were of which kind is not published. Ours aim at the published share of violations, 649
of 6000: about half of the rollouts begin at the start, the others near the obstacle, because there
the risk has to be learned.
"""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from safetypilot.envs.data import Array, Policy, Progress, Transition, rollout, sequences, stack
from safetypilot.envs.raster import Scene

BLOCK = 20  # steps, the horizon
STEP = 0.5  # cm per axis
VIA = (7.95, 7.7)  # cm: past the obstacle's northern side, 0.6 cm from it
NEAR = ((6.7, 6.2), (8.7, 7.8))  # cm, corners of where rollouts near the obstacle begin
SUBGOAL = ((7.2, 6.4), (8.7, 7.6))  # cm, corners of where sub-goals lie: about the obstacle
NEAR_SHARE = 0.45
RANDOM_SHARE = 0.5  # of the sequences


def reach_expert(observation: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """North of the obstacle, then to the goal, in full steps; from (x, y, z) in cm."""
    position = np.asarray(observation, dtype=np.float64)
    waypoint = (*VIA, -13.0) if _before(position) else (9.0, 7.0, -13.0)
    return _towards(position, np.array(waypoint))


def image_reach_expert(observation: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """The same in the plane, from pixels, flat or not, or from (x, y)."""
    seen = np.asarray(observation)
    position = seen.astype(np.float64) if seen.size == 2 else _scene().locate(seen)
    return _towards(position, np.array(VIA if _before(position) else (9.0, 7.0)))


def reach_data(
    env_id: str, size: int, generator: np.random.Generator, progress: Progress
) -> dict[str, Array]:
    """Noisy demonstrations, exactly `size` rows; a rollout ends at a violation or at the goal."""
    from safetypilot.envs.reach import Reach

    return _data(Reach(), size, generator, progress)


def image_reach_data(
    env_id: str, size: int, generator: np.random.Generator, progress: Progress
) -> dict[str, Array]:
    """As `reach_data`, in pixels."""
    from safetypilot.envs.reach import ImageReach

    return _data(ImageReach(), size, generator, progress)


def image_reach_sequences(
    env_id: str, size: int, generator: np.random.Generator, progress: Progress
) -> dict[str, Array]:
    """Sequences of 21 frames, half of demonstrations and half of random motion from anywhere.

    They go on after a violation, stuck; the random half is there to see the tool move.
    """
    from safetypilot.envs.reach import ImageReach

    env = ImageReach()
    blocks: list[list[Transition]] = []
    for done in range(BLOCK, size + 1, BLOCK):
        if generator.random() < RANDOM_SHARE:
            start = generator.uniform(*np.array(env.workspace).reshape(2, 2).T)
            observation, _ = env.reset(options={"position": start})
            policy: Policy = _random_motion(generator)
        else:
            observation, policy = _begin(env, generator)
        blocks.append(rollout(env, observation, policy, BLOCK, stop_at_violation=False))
        progress(done, size)
    return sequences(blocks)


@cache
def _scene() -> Scene:
    from safetypilot.envs.reach import scene

    return scene()


def _before(position: npt.NDArray[np.float64]) -> bool:
    """Whether the obstacle is still between here and the goal."""
    return bool(position[0] < VIA[0] - 0.05)


def _towards(
    position: npt.NDArray[np.float64], waypoint: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """A straight step towards a waypoint, as long as the box allows."""
    way = waypoint - position
    share = min(1.0, STEP / max(float(np.abs(way).max()), 1e-9))
    return (share * way).astype(np.float32)


def _data(
    env: Any, size: int, generator: np.random.Generator, progress: Progress
) -> dict[str, Array]:
    rows: list[Transition] = []
    while len(rows) < size:
        observation, policy = _begin(env, generator)
        steps = min(BLOCK, size - len(rows))
        rows += rollout(env, observation, policy, steps, stop_at_end=True)
        progress(len(rows), size)
    return stack(rows)


def _begin(env: Any, generator: np.random.Generator) -> tuple[Array, Policy]:
    """A start and a noisy demonstrator: the first observation, and its policy."""
    start = np.array(env.starts[generator.integers(len(env.starts))])
    if generator.random() < NEAR_SHARE:
        start[:2] = generator.uniform(*NEAR)
    observation, info = env.reset(options={"position": start})
    while info["cost"] or info["success"]:
        start[:2] = generator.uniform(*NEAR)
        observation, info = env.reset(options={"position": start})
    subgoal = np.array(env.goal)
    subgoal[:2] = generator.uniform(*SUBGOAL)
    return observation, _Demonstrator(env, subgoal, generator)


def _random_motion(generator: np.random.Generator) -> Policy:
    return lambda observation: generator.uniform(-STEP, STEP, 2).astype(np.float32)


class _Demonstrator:
    """Goes to a sub-goal, then to the goal, each step with noise of up to a full step per axis."""

    def __init__(
        self, env: Any, subgoal: npt.NDArray[np.float64], generator: np.random.Generator
    ) -> None:
        self._env = env
        self._waypoints = [subgoal, np.array(env.goal)]
        self._generator = generator

    def __call__(self, observation: Array) -> Array:
        position = self._env.position
        if len(self._waypoints) > 1 and np.linalg.norm(position - self._waypoints[0]) < STEP:
            del self._waypoints[0]
        noise = self._generator.uniform(-STEP, STEP, len(position))
        action = _towards(position, self._waypoints[0]) + noise
        return np.clip(action, -STEP, STEP).astype(np.float32)
