"""Two rooms and the door between them (MuJoCo), observed from above by a camera.

The Image Maze of Recovery RL (arXiv 2010.15920): its physics rebuilt from the published dimensions,
its pictures drawn by envs/raster.py instead of a renderer.
"""

from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt

from safetypilot.envs.geometry import IMAGE_MAZE
from safetypilot.envs.puck import Layout, Puck
from safetypilot.envs.raster import Scene, View

SIDE = 64  # pixels
FORCE_LIMIT = 0.3

# Published, a 64 by 64 picture of +-0.331 m (camera 0.8 m up, 45 degrees) is cut to its rows and
# columns 20 to 63 and enlarged to 64 by 64 again; that is this square, the two rooms.
LEFT, RIGHT = -0.1243, 0.3314

LAYOUT = Layout(
    name="the image maze",
    asset="image_maze.xml",
    geometry=IMAGE_MAZE,
    force_limit=FORCE_LIMIT,
    start_x={"m": IMAGE_MAZE.start[:2], "e": (0.15, 0.22)},
    start_y=IMAGE_MAZE.start[2:],
)


def scene() -> Scene:
    """What the camera sees: the walls, the goal where a puck's centre succeeds, and the puck."""
    return Scene(
        View(left=LEFT, top=RIGHT, pixel=(RIGHT - LEFT) / SIDE, height=SIDE, width=SIDE),
        IMAGE_MAZE.walls,
        IMAGE_MAZE.bounds,
        (*IMAGE_MAZE.goal, IMAGE_MAZE.goal_radius),
        IMAGE_MAZE.agent_radius,
    )


class ImageMaze(Puck):
    """Push a puck from the western room through the door to the goal, touching no wall.

    Observation: (64, 64, 3) uint8, row 0 in the north; with `observe="state"` (x, y) in m instead.
    Action: (force_x, force_y), one unit is 0.05 N, box +-0.3; a full action moves the puck by
    0.0276 m. Reward, `info["cost"]`, `info["success"]` and termination are the maze's;
    `info["position"]` is (x, y) in m.

    `reset(options=...)` takes `mode` ("m", the default: the western room; "e": the eastern one) or
    `position` (x, y).
    """

    layout: ClassVar[Layout] = LAYOUT

    def __init__(self, observe: str = "pixels", render_mode: str | None = None) -> None:
        if observe not in ("pixels", "state"):
            raise ValueError(f"observe is {observe!r}; the image maze knows 'pixels' and 'state'")
        super().__init__(render_mode)
        if observe == "pixels":
            self._camera: Scene | None = scene()
            self.observation_space = gymnasium.spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
        else:
            self._camera = None
            low, high = np.array(IMAGE_MAZE.bounds, dtype=np.float32).reshape(2, 2).T
            self.observation_space = gymnasium.spaces.Box(low, high, dtype=np.float32)

    def _observe(self) -> npt.NDArray[Any]:
        return super()._observe() if self._camera is None else self._camera.draw(*self._data.qpos)

    def _info(self) -> dict[str, Any]:
        return {**super()._info(), "position": self._data.qpos.astype(np.float32)}
