"""The arm's scripted expert, which plans in the space of the joints, and its offline data."""

from collections.abc import Iterator
from functools import cache
from itertools import product
from math import acos, atan2, cos, hypot, inf, sin
from typing import Any

import numpy as np
import numpy.typing as npt

from safetypilot.envs.arm_body import LINKS, MARGIN, RANGES, STEP_LIMIT, clearance
from safetypilot.envs.data import Array, Policy, Progress, Transition, rollout, stack

Angles = npt.NDArray[np.float64]  # of shoulder and elbow, (2,) or (..., 2), in rad
Floats = npt.NDArray[np.float64]

ROOM = 0.008  # m that the expert keeps from what would be a violation
NEAR = 0.03  # m from the zone, at most, where rollouts that are to meet it begin
BLOCK = 20  # steps of such a rollout
TASK_STEPS = 60  # of a noisy demonstration
SHARES = (0.5, 0.25, 0.25)  # of the rows: demonstrations, straight for the target, at random

_SAME = 1e-5  # m; what rounding makes of a target
_CELL = 0.06  # rad between two points of the grid
_AXES = tuple(np.arange(low, high + 1e-9, _CELL) for low, high in RANGES)
_NEIGHBOURS = [step for step in product((-1, 0, 1), repeat=2) if step != (0, 0)]


class ArmExpert:
    """Straight to the target in joint angles where that is free, else the shortest way round.

    An observation, (8,), to an action, (2,). The way is found on a grid, anew for each target.
    """

    def __init__(self) -> None:
        self._target = np.full(2, inf)
        self._goals: list[Angles] = []
        self._ways: Floats = np.zeros(0)

    def __call__(self, observation: npt.ArrayLike) -> npt.NDArray[np.float32]:
        values = np.asarray(observation, np.float64)
        angles, target = values[2:4], values[:2] + values[6:]
        if _largest(target - self._target) > _SAME:
            self._target, self._goals = target, solutions((target[0], target[1]))
            self._ways = _ways_to(self._goals)
        free = [goal for goal in self._goals if _is_free(angles, goal)]
        if free:
            step = min((goal - angles for goal in free), key=_largest)
        else:
            step = self._round(angles)
        share = STEP_LIMIT / max(_largest(step), STEP_LIMIT)
        return np.asarray(share * step, np.float32)

    def _round(self, angles: Angles) -> Angles:
        """The step to the neighbour on the grid that is nearest to the target."""
        row, column = _cell(angles)
        best, found = inf, np.zeros(2)
        for down, across in product((-2, -1, 0, 1, 2), repeat=2):
            i, j = row + down, column + across
            if not (0 <= i < len(_AXES[0]) and 0 <= j < len(_AXES[1])):
                continue
            way = np.array((_AXES[0][i], _AXES[1][j])) - angles
            length = self._ways[i, j] + float(np.hypot(*way))
            if length < best:
                best, found = length, way
        return found if best < inf else _outwards(angles)


def solutions(target: tuple[float, float]) -> list[Angles]:
    """The joint angles, none to two, with which the tip is at a point."""
    first, second = LINKS
    x, y = target
    inner = (x * x + y * y - first * first - second * second) / (2 * first * second)
    if not -1.0 <= inner <= 1.0:
        return []
    found = []
    for elbow in (acos(inner), -acos(inner)):
        turned = atan2(second * sin(elbow), first + second * cos(elbow))
        angles = np.array((atan2(y, x) - turned, elbow))
        if all(low <= a <= high for a, (low, high) in zip(angles, RANGES, strict=True)):
            found.append(angles)
    return found


def arm_data(
    env_id: str, size: int, generator: np.random.Generator, progress: Progress
) -> dict[str, Array]:
    """Exactly `size` rows; a rollout ends at a violation or at the target.

    Half are the expert's with noise; a quarter goes straight for the target from near the zone, a
    quarter moves at random there, because that is where the risk has to be learned.
    """
    from safetypilot.envs.arm import Arm

    env = Arm()
    policies: dict[str, Policy] = {"expert": ArmExpert(), "straight": _straight, "random": _still}
    env.reset(seed=int(generator.integers(2**31)))
    rows: list[Transition] = []
    for share, kind in zip(np.cumsum(SHARES), policies, strict=True):
        end = round(share * size)
        while len(rows) < end:
            demonstrated = kind == "expert"
            start = {} if demonstrated else {"position": _near(generator)}
            observation, _ = env.reset(options=start)
            policy = policies[kind]
            noisy = _Noisy(policy, generator, spread=generator.uniform(0.0, 1.0))
            steps = min(TASK_STEPS if demonstrated else BLOCK, end - len(rows))
            rows += rollout(env, observation, noisy, steps, stop_at_end=True)
            progress(len(rows), size)
    return stack(rows)


def arm_demonstrations(
    env_id: str, size: int, generator: np.random.Generator, progress: Progress
) -> dict[str, Array]:
    """Exactly `size` rows of the expert's, some noisier than others."""
    from safetypilot.envs.arm import Arm

    env, expert = Arm(), ArmExpert()
    env.reset(seed=int(generator.integers(2**31)))
    rows: list[Transition] = []
    while len(rows) < size:
        observation, _ = env.reset()
        noisy = _Noisy(expert, generator, spread=generator.uniform(0.0, 0.5))
        rows += rollout(
            env, observation, noisy, min(TASK_STEPS, size - len(rows)), stop_at_end=True
        )
        progress(len(rows), size)
    return stack(rows)


class _Noisy:
    """Adds a drift that lasts for a rollout, and noise, both in parts of the largest step."""

    def __init__(self, policy: Policy, generator: np.random.Generator, spread: float) -> None:
        self._policy, self._generator, self._spread = policy, generator, spread
        self._drift = generator.uniform(-1.0, 1.0, 2) * (1.0 if policy is _still else 0.3 * spread)

    def __call__(self, observation: Array) -> Array:
        noise = self._drift + self._spread * self._generator.standard_normal(2)
        action = self._policy(observation) + STEP_LIMIT * noise
        return np.clip(action, -STEP_LIMIT, STEP_LIMIT).astype(np.float32)


def _still(observation: Array) -> Array:
    return np.zeros(2, np.float32)


def _straight(observation: Array) -> Array:
    """Towards the target as if there were no zone."""
    angles = observation[2:4].astype(np.float64)
    x, y = (observation[:2] + observation[6:]).tolist()
    step = min((goal - angles for goal in solutions((x, y))), key=_largest)
    return np.asarray(step * STEP_LIMIT / max(_largest(step), STEP_LIMIT))


def _near(generator: np.random.Generator) -> Angles:
    """Angles with the tool near the zone, but not too near."""
    low, high = np.array(RANGES).T
    while True:
        angles: Angles = generator.uniform(low, high)
        if MARGIN < clearance((angles[0], angles[1])) < NEAR:
            return angles


def _largest(step: Angles) -> float:
    return float(np.abs(step).max())


def _cell(angles: Angles) -> tuple[int, int]:
    """The nearest point of the grid."""
    row, column = (
        int(np.clip(round((a - axis[0]) / _CELL), 0, len(axis) - 1))
        for a, axis in zip(angles, _AXES, strict=True)
    )
    return row, column


def _is_free(start: Angles, end: Angles) -> bool:
    """Whether the straight way in joint angles keeps its distance from the zone."""
    parts = np.linspace(0.0, 1.0, 2 + int(_largest(end - start) / (0.5 * _CELL)))[1:, None]
    way = start + parts * (end - start)
    return all(clearance((a, b)) > MARGIN + 0.5 * ROOM for a, b in way.tolist())


def _outwards(angles: Angles) -> Angles:
    """The step that leads away from the zone quickest, from where no way is known."""
    shoulder, elbow = angles
    slope = [
        clearance((shoulder + d, elbow + e)) - clearance((shoulder - d, elbow - e))
        for d, e in ((1e-3, 0.0), (0.0, 1e-3))
    ]
    return STEP_LIMIT * np.array(slope) / max(hypot(*slope), 1e-12)


@cache
def _free_cells() -> npt.NDArray[np.bool_]:
    """Where on the grid the tool is far enough from the zone."""
    return np.array(
        [[clearance((a, b)) > MARGIN + ROOM for b in _AXES[1].tolist()] for a in _AXES[0].tolist()]
    )


def _ways_to(goals: list[Angles]) -> Floats:
    """From every point of the grid, how far it is to the nearest goal, in rad; inf: no way."""
    free = _free_cells()
    ways = np.full((free.shape[0] + 2, free.shape[1] + 2), inf)  # with a rim
    inner = ways[1:-1, 1:-1]
    for goal in goals:
        inner[_cell(goal)] = 0.0
    before = np.zeros_like(inner)
    while not np.array_equal(before, inner):
        before = inner.copy()
        for shifted, length in _shifts(ways):
            np.minimum(inner, shifted + length, out=inner, where=free)
    return inner.copy()


def _shifts(ways: Floats) -> Iterator[tuple[Floats, float]]:
    """The grid seen from each of the eight neighbours, and how far that is."""
    rows, columns = ways.shape
    for down, across in _NEIGHBOURS:
        seen: Any = ways[1 + down : rows - 1 + down, 1 + across : columns - 1 + across]
        yield seen, _CELL * hypot(down, across)
