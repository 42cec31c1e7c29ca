"""The arm's task on any arm: what is observed, what an action asks for, what a step costs.

Two links turn in the horizontal plane about (0, 0); with both angles 0 they point along x. The
numbers are those of envs/assets/arm.xml, repeated for code that loads no MuJoCo;
tests/envs/test_arm.py keeps the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import cos, hypot, sin
from typing import Any

import numpy as np
import numpy.typing as npt

from safetypilot.envs.body import Array, Drive, Numbers, Verdict
from safetypilot.envs.geometry import ARM, ARM_TARGETS

LINKS = (0.15, 0.13)  # m, from shoulder to elbow, from elbow to tip
RANGES = ((-1.95, 1.95), (-2.35, 2.35))  # rad; the ends of the joints are 0.05 farther
MARGIN = 0.01  # m: a tool nearer to the zone than this is a violation already
RATE_HZ = 25.0
STEP_LIMIT = 0.08  # rad per control step and joint
TIME_COST = 0.05  # m, of each step; without it policies learn to wait a little beside the target
VIOLATION_COST = 1.0  # m; without it they learn that a violation ends what costs time

_PARTS = (0.5, 1.0)  # of a step at which it is judged: what a fast tip cuts off in between counts


class ArmBody:
    """Reach a target on the other side of a keep-out zone that the tool may not enter.

    Observation: tip (x, y) in m, angles of shoulder and elbow in rad, their speeds in rad/s, the
    way from the tip to the target (x, y) in m. Action: steps of both angles in rad, added to the
    measured ones. Reward: minus the length of that way after the step, and of 0.05 m for the time;
    a violation, which ends the episode, costs another metre.

    Every episode goes on from where the arm is, and its target lies on the other side of the x axis
    from the tip.
    """

    joints = ("shoulder", "elbow")
    mode = "position"
    sensors: Mapping[str, int] = {}
    rate_hz = RATE_HZ

    def __init__(self) -> None:
        self._drawn = (sum(ARM_TARGETS[:2]) / 2, sum(ARM_TARGETS[2:]) / 2)
        self._target: tuple[float, float] | None = None

    def start(self, generator: np.random.Generator) -> None:
        """Draws the next target; on which side it lies follows from what is observed next."""
        x0, x1, y0, y1 = ARM_TARGETS
        self._drawn = (float(generator.uniform(x0, x1)), float(generator.uniform(y0, y1)))
        self._target = None

    def aim(self, target: tuple[float, float]) -> None:
        """Sets the target, (x, y) in m, of this episode."""
        self._target = target

    def observe(
        self,
        position: Numbers,
        velocity: Numbers,
        effort: Numbers,
        sensors: Mapping[str, Numbers],
    ) -> Array:
        """Tip, angles, speeds and the way to the target, (8,)."""
        x, y = tip(position)
        if self._target is None:
            across, away = self._drawn
            self._target = (across, -away if y >= 0.0 else away)
        way = self._target[0] - x, self._target[1] - y
        return np.array((x, y, *position, *velocity, *way), np.float32)

    def drive(self, action: npt.NDArray[Any], position: Numbers) -> Drive:
        """The angles that a step leads to, none beyond the end of its joint."""
        rows = zip(position, action.tolist(), RANGES, strict=True)
        return Drive(position=tuple([min(max(p + s, low), high) for p, s, (low, high) in rows]))

    def judge(self, before: Array, action: npt.NDArray[Any], after: Array) -> Verdict:
        """Costs where the tool comes too near to the zone; success is a tip at the target.

        A tool that is in the zone may leave it: a step that only leads out costs nothing.
        """
        start, (*end, _, _, x, y) = before[2:4].tolist(), after[2:].tolist()
        room, cost = clearance(tuple(start)), 0.0
        for part in _PARTS:
            between = tuple([a + part * (b - a) for a, b in zip(start, end, strict=True)])
            if clearance(between) < MARGIN and clearance(between) <= room:
                cost = 1.0
        distance = hypot(x, y)
        reward = -distance - TIME_COST - cost * VIOLATION_COST
        return Verdict(reward, cost, cost == 0.0 and distance < ARM.goal_radius)


def tip(position: Numbers) -> tuple[float, float]:
    """Where the tip is, (x, y) in m, with the joints at these angles."""
    return points(position)[1]


def points(position: Numbers) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where elbow and tip are, (x, y) in m."""
    shoulder, elbow = position
    x, y = LINKS[0] * cos(shoulder), LINKS[0] * sin(shoulder)
    both = shoulder + elbow
    return (x, y), (x + LINKS[1] * cos(both), y + LINKS[1] * sin(both))


def clearance(position: Numbers) -> float:
    """From the tool's surface to the keep-out zone, m; below 0 it is inside."""
    (zone_x, zone_y, radius), (x, y) = ARM.discs[0], tip(position)
    return hypot(x - zone_x, y - zone_y) - radius - ARM.agent_radius
