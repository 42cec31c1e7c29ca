"""A puck pushed through a walled plane (MuJoCo): what the Maze and the Image Maze share."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
import numpy.typing as npt

from safetypilot.envs.actions import clipped
from safetypilot.envs.geometry import Geometry
from safetypilot.envs.raster import plan_scene

SUBSTEPS = 500  # of 0.002 s: one step is one simulated second
SUCCESS_DISTANCE = 0.03  # RMS per coordinate, as the reward


@dataclass(frozen=True)
class Layout:
    """One world of this kind.

    Attributes:
        name: What errors call it.
        asset: File in envs/assets.
        geometry: Its plan view, in m.
        force_limit: Box of the action.
        start_x: Reset mode -> range of x in m; the first is the default.
        start_y: Range of y for all of them.
    """

    name: str
    asset: str
    geometry: Geometry
    force_limit: float
    start_x: Mapping[str | None, tuple[float, float]]
    start_y: tuple[float, float]

    def sample_start(
        self, generator: np.random.Generator, mode: str | None
    ) -> npt.NDArray[np.float64]:
        """Draw a start position (2,) in m; it may touch a wall in mode None."""
        if mode not in self.start_x:
            known = [repr(known) for known in self.start_x]
            listed = ", ".join(known[:-1]) + f" and {known[-1]}"
            raise ValueError(f"reset mode is {mode!r}; {self.name} knows {listed}")
        x = generator.uniform(*self.start_x[mode])
        y = generator.uniform(*self.start_y)
        return np.array([x, y])


class Puck(gymnasium.Env):  # type: ignore[misc]  # gymnasium is not followed by mypy
    """Physics, reward, cost and drawing; a subclass names its layout and what is observed."""

    layout: ClassVar[Layout]
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 1}
    dt = 1.0  # s simulated per step
    physics_steps = SUBSTEPS

    def __init__(self, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(
                f"render_mode is {render_mode!r}; {self.layout.name} knows 'rgb_array' or None"
            )
        self.render_mode = render_mode
        limit = self.layout.force_limit
        self.action_space = gymnasium.spaces.Box(-limit, limit, (2,), np.float32)
        assets = resources.files("safetypilot.envs").joinpath("assets")
        xml = assets.joinpath(self.layout.asset).read_text("utf-8")
        self._model = mujoco.MjModel.from_xml_string(xml)
        self._data = mujoco.MjData(self._model)
        self._robot = self._model.geom("robot").id
        self._walls = np.array(
            ["wall" in self._model.geom(i).name for i in range(self._model.ngeom)]
        )
        self._scene = plan_scene(self.layout.geometry) if render_mode else None
        self._done = 0  # physics steps of this control step
        self._stuck = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Place the puck at rest; see the class for `options`."""
        super().reset(seed=seed)
        options = options or {}
        if "position" in options:
            self._place(np.asarray(options["position"], dtype=np.float64))
        else:
            mode = options.get("mode", next(iter(self.layout.start_x)))
            self._place(self.layout.sample_start(self.np_random, mode))
            while self._touches_wall():
                self._place(self.layout.sample_start(self.np_random, mode))
        return self._observe(), self._info()

    def step(
        self, action: npt.ArrayLike
    ) -> tuple[npt.NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Push for one simulated second, from rest to rest. `action` (2,) is clipped to its box."""
        self._push(action, SUBSTEPS - self._done)
        self._done = 0
        if not self._stuck:
            self._data.qvel[:] = 0.0
            # Contacts are those of the last substep's start; bring them to the present state.
            mujoco.mj_forward(self._model, self._data)
        info = self._info()
        terminated = bool(info["cost"]) or info["success"]
        return self._observe(), -self._goal_distance(), terminated, False, info

    def advance(self, action: npt.ArrayLike, steps: int) -> npt.NDArray[Any]:
        """Push for some physics steps; `step` does the rest of the second, and ends at rest."""
        self._push(action, steps)
        self._done += steps
        return self._observe()

    def _push(self, action: npt.ArrayLike, steps: int) -> None:
        force = clipped(action, self.layout.force_limit)
        # A puck that already touches a wall is stuck, as published. An episode never gets here,
        # because touching ended it; offline data does.
        if not self._done:
            self._stuck = self._touches_wall()
        if not self._stuck:
            self._data.ctrl[:] = force
            mujoco.mj_step(self._model, self._data, nstep=steps)

    def render(self) -> npt.NDArray[np.uint8] | None:
        """The world from above, (480, 480, 3), or None without a render mode; needs no OpenGL."""
        return None if self._scene is None else self._scene.draw(*self._data.qpos)

    def _place(self, position: npt.NDArray[np.float64]) -> None:
        self._done = 0
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
        offset = self._data.qpos - self.layout.geometry.goal
        return float(np.sqrt(np.mean(offset * offset)))

    def _observe(self) -> npt.NDArray[Any]:
        position: npt.NDArray[np.float32] = self._data.qpos.astype(np.float32)
        return position

    def _info(self) -> dict[str, Any]:
        success = self._goal_distance() < SUCCESS_DISTANCE
        return {"cost": float(self._touches_wall()), "success": success}
