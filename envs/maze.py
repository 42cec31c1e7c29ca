"""A puck pushed through two doors of a small maze (MuJoCo), observed by its position.

The Maze of Recovery RL (arXiv 2010.15920), rebuilt from its published dimensions.
"""

from typing import ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt

from safetypilot.envs import geometry
from safetypilot.envs.puck import SUBSTEPS as SUBSTEPS
from safetypilot.envs.puck import SUCCESS_DISTANCE as SUCCESS_DISTANCE
from safetypilot.envs.puck import Layout, Puck

WALLS = geometry.MAZE.walls
GOAL = geometry.MAZE.goal
BOUNDS = geometry.MAZE.bounds
START = geometry.MAZE.start

FORCE_LIMIT = 0.1

LAYOUT = Layout(
    name="the maze",
    asset="maze.xml",
    geometry=geometry.MAZE,
    force_limit=FORCE_LIMIT,
    start_x={"h": START[:2], "m": (-0.04, 0.04), "e": (0.14, 0.22), None: (-0.27, 0.27)},
    start_y=START[2:],
)


class Maze(Puck):
    """Push a puck to the goal in the east without touching a wall.

    Observation: (x, y) in m, float32. Action: (force_x, force_y), one unit is 0.05 N (the motors'
    gear), box +-0.1; a full action moves the puck by 0.0247 m. Reward: minus the RMS distance per
    coordinate to the goal after the step. `info["cost"]` is 1.0 if the puck touches a wall at the
    end of the step, `info["success"]` is True if that distance is below 0.03 m; either terminates.
    As published, both can be true at once.

    `reset(options=...)` takes `mode` ("h", the default: west of both walls; "m": between them;
    "e": east of both; None: anywhere) or `position` (x, y), which may be inside a wall: then the
    next steps do not simulate and cost 1.0, as published.
    """

    layout: ClassVar[Layout] = LAYOUT

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        low, high = np.array(BOUNDS, dtype=np.float32).reshape(2, 2).T
        self.observation_space = gymnasium.spaces.Box(low, high, dtype=np.float32)


def sample_start(generator: np.random.Generator, mode: str | None) -> npt.NDArray[np.float64]:
    """Draw a start position (2,) in m for a reset mode; it may touch a wall in mode None."""
    return LAYOUT.sample_start(generator, mode)
