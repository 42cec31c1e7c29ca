"""A puck pushed through two doors of a small maze (MuJoCo), observed by its position.

The Maze of Recovery RL (arXiv 2010.15920), rebuilt from its published dimensions.
"""

from importlib import resources
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
import numpy.typing as npt

from safetypilot.envs import geometry
from safetypilot.envs.actions import clipped

WALLS = geometry.MAZE.walls
GOAL = geometry.MAZE.goal
BOUNDS = geometry.MAZE.bounds
START = geometry.MAZE.start

FORCE_LIMIT = 0.1
SUBSTEPS = 500  # of 0.002 s: one step is one simulated second
SUCCESS_DISTANCE = 0.03  # RMS per coordinate, as the reward

# Where each reset mode draws x from; y is always drawn from the same range.
START_X = {"h": START[:2], "m": (-0.04, 0.04), "e": (0.14, 0.22), None: (-0.27, 0.27)}
START_Y = START[2:]


class Maze(gymnasium.Env):  # type: ignore[misc]  # gymnasium is not followed by mypy
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

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 1}
    dt = 1.0  # s simulated per step

    def __init__(self, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is {render_mode!r}; the maze knows 'rgb_array' or None")
        self.render_mode = render_mode
        low, high = np.array(BOUNDS, dtype=np.float32).reshape(2, 2).T
        self.observation_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Box(-FORCE_LIMIT, FORCE_LIMIT, (2,), np.float32)
        xml = resources.files("safetypilot.envs").joinpath("assets/maze.xml").read_text("utf-8")
        self._model = mujoco.MjModel.from_xml_string(xml)
        self._data = mujoco.MjData(self._model)
        self._robot = self._model.geom("robot").id
        self._walls = np.array(
            ["wall" in self._model.geom(i).name for i in range(self._model.ngeom)]
        )
        self._renderer: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Place the puck at rest; see the class for `options`."""
        super().reset(seed=seed)
        options = options or {}
        if "position" in options:
            self._place(np.asarray(options["position"], dtype=np.float64))
        else:
            mode = options.get("mode", "h")
            self._place(sample_start(self.np_random, mode))
            while self._touches_wall():
                self._place(sample_start(self.np_random, mode))
        return self._observe(), self._info()

    def step(
        self, action: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Push for one simulated second, from rest to rest. `action` (2,) is clipped to its box."""
        force = clipped(action, FORCE_LIMIT)
        # A puck that already touches a wall is stuck, as published. An episode never gets here,
        # because touching ended it; offline data does.
        if not self._touches_wall():
            self._data.ctrl[:] = force
            mujoco.mj_step(self._model, self._data, nstep=SUBSTEPS)
            self._data.qvel[:] = 0.0
            # Contacts are those of the last substep's start; bring them to the present state.
            mujoco.mj_forward(self._model, self._data)
        info = self._info()
        terminated = bool(info["cost"]) or info["success"]
        return self._observe(), -self._goal_distance(), terminated, False, info

    def render(self) -> npt.NDArray[np.uint8] | None:
        """The maze from above, (480, 480, 3), or None without a render mode.

        Needs OpenGL: without a display, set MUJOCO_GL=egl before MuJoCo is first imported.
        """
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = mujoco.Renderer(self._model, 480, 480)
        self._renderer.update_scene(self._data, camera="top")
        pixels: npt.NDArray[np.uint8] = self._renderer.render()
        return pixels

    def close(self) -> None:
        """Free the renderer, if there is one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _place(self, position: npt.NDArray[np.float64]) -> None:
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = position
        mujoco.mj_forward(self._model, self._data)

    def _touches_wall(self) -> bool:
        """Whether a contact pairs the robot with a wall: by partner, not by counting contacts."""
        pairs = self._data.contact.geom  # (contacts, 2)
        if len(pairs) == 0:
            return False
        first, second = pairs[:, 0], pairs[:, 1]
        hits = (first == self._robot) & self._walls[second]
        hits |= (second == self._robot) & self._walls[first]
        return bool(hits.any())

    def _goal_distance(self) -> float:
        offset = self._data.qpos - GOAL
        return float(np.sqrt(np.mean(offset * offset)))

    def _observe(self) -> npt.NDArray[np.float32]:
        position: npt.NDArray[np.float32] = self._data.qpos.astype(np.float32)
        return position

    def _info(self) -> dict[str, Any]:
        success = self._goal_distance() < SUCCESS_DISTANCE
        return {"cost": float(self._touches_wall()), "success": success}


def sample_start(generator: np.random.Generator, mode: str | None) -> npt.NDArray[np.float64]:
    """Draw a start position (2,) in m for a reset mode; it may touch a wall in mode None."""
    if mode not in START_X:
        raise ValueError(f"reset mode is {mode!r}; the maze knows 'h', 'm', 'e' and None")
    x = generator.uniform(*START_X[mode])
    y = generator.uniform(*START_Y)
    return np.array([x, y])
