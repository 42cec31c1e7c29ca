"""The maze on a robot: a puck whose servo carries it the way that a push would have.

In the simulator a control step is one second from rest to rest, in which a constant force carries
the puck a distance that is proportional to it. A servo that goes the same way from rest to rest
makes the same task, whatever the robot weighs.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import hypot
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from safetypilot.envs.body import Array, Drive, Numbers, Verdict
from safetypilot.envs.geometry import MAZE

REACH = 0.2466  # m that a step carries the puck per unit of action; a test asks the simulator


class MazeBody:
    """See envs/body.py. Observation (x, y) in m, action as in envs/maze.py."""

    joints = ("slide_x", "slide_y")
    mode = "position"
    sensors: ClassVar[Mapping[str, int]] = {}
    rate_hz = 1.0

    def start(self, generator: np.random.Generator) -> Numbers | None:
        """Anywhere west of both walls, where it touches none."""
        x0, x1, y0, y1 = MAZE.start
        while True:
            place = (float(generator.uniform(x0, x1)), float(generator.uniform(y0, y1)))
            if not touches_wall(*place):
                return place

    def observe(
        self,
        position: Numbers,
        velocity: Numbers,
        effort: Numbers,
        sensors: Mapping[str, Numbers],
    ) -> Array:
        """Where the puck is, (2,)."""
        return np.array(position, np.float32)

    def drive(self, action: npt.NDArray[Any], position: Numbers) -> Drive:
        """To where a push would carry it."""
        x, y = action.tolist()
        return Drive(position=(position[0] + REACH * x, position[1] + REACH * y))

    def judge(self, before: Array, action: npt.NDArray[Any], after: Array) -> Verdict:
        """As in the simulator, with the walls' geometry in place of its contacts."""
        x, y = after.tolist()
        distance = hypot(x - MAZE.goal[0], y - MAZE.goal[1])
        cost = float(touches_wall(x, y))
        return Verdict(-distance / 2**0.5, cost, distance < MAZE.goal_radius)


def touches_wall(x: float, y: float) -> bool:
    """Whether a puck there meets a wall, an inner or an outer one."""
    radius, (x0, x1, y0, y1) = MAZE.agent_radius, MAZE.bounds
    if not (x0 + radius < x < x1 - radius and y0 + radius < y < y1 - radius):
        return True
    return any(
        hypot(x - min(max(x, left), right), y - min(max(y, low), high)) < radius
        for left, right, low, high in MAZE.walls
    )
