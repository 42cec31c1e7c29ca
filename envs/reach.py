"""A surgical arm's tool moved past an obstacle to a goal, by its position or by an overhead camera.

A simulated stand-in for the reach task that Recovery RL (arXiv 2010.15920) ran on a da Vinci
Research Kit, with the geometry of its predecessor. Published: positions in cm, steps of +-0.5 cm
per axis, workspace, start, goal, obstacle and horizon; for the images 48 by 64 pixels, two start
positions. Ours: that the tool stops where it meets the obstacle, also on the way (published, only
where a step ends counts), where the two start positions are and what the camera sees.
"""

from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt

from safetypilot.envs import geometry
from safetypilot.envs.raster import Scene, View, plan_scene

STEP_LIMIT = 0.5  # cm per axis
Z_RANGE = (-17.0, -9.0)  # cm, of the workspace; the obstacle is as high
Z_LEVEL = -13.0  # cm, of start and goal

HEIGHT, WIDTH = 48, 64  # pixels
TOOL_RADIUS = 0.25  # cm, as drawn; the tool that collides is a point

Position = npt.NDArray[np.float64]  # (2,) or (3,), in cm


class Reach(gymnasium.Env):  # type: ignore[misc]  # gymnasium is not followed by mypy
    """Bring the tool within `goal_radius` of the goal without touching the obstacle.

    Observation: (x, y, z) in cm, float32. Action: (step_x, step_y, step_z) in cm, box +-0.5; the
    tool does not leave the workspace. Reward: minus the distance to the goal after the step, in
    cm. `info["cost"]` is 1.0 if the step met the obstacle, `info["success"]` is True if the tool
    is within `goal_radius` (1 cm) of the goal; either terminates. A tool that met the obstacle is
    stuck there.

    `reset(options={"position": (x, y, z)})` starts there instead of at (6, 7, -13).
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 1}
    plan: ClassVar[geometry.Geometry] = geometry.REACH
    starts: ClassVar[tuple[tuple[float, ...], ...]] = ((6.0, 7.0, Z_LEVEL),)
    goal: ClassVar[tuple[float, ...]] = (*geometry.REACH.goal, Z_LEVEL)
    workspace: ClassVar[tuple[float, ...]] = (*geometry.REACH.bounds, *Z_RANGE)
    obstacle: ClassVar[tuple[float, ...]] = (*geometry.REACH.walls[0], -np.inf, np.inf)

    def __init__(self, goal_radius: float = 1.0, render_mode: str | None = None) -> None:
        if not goal_radius > 0.0:
            raise ValueError(f"goal_radius is {goal_radius!r}; it must be positive, in cm")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is {render_mode!r}; reach knows 'rgb_array' or None")
        self.render_mode = render_mode
        self.goal_radius = goal_radius
        self._low, self._high = np.array(self.workspace).reshape(-1, 2).T
        self._obstacle = np.array(self.obstacle).reshape(-1, 2).T  # (2, axes): low, high
        self._position: Position = np.array(self.starts[0])
        self._stuck = False
        axes = len(self.goal)
        self.action_space = gymnasium.spaces.Box(-STEP_LIMIT, STEP_LIMIT, (axes,), np.float32)
        self.observation_space = self._observed()
        self._scene = plan_scene(self.plan) if render_mode else None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Start at one of the start positions, or at `options["position"]`."""
        super().reset(seed=seed)
        if options and "position" in options:
            start = np.asarray(options["position"], dtype=np.float64)
        else:
            start = np.array(self.starts[int(self.np_random.integers(len(self.starts)))])
        if start.shape != self._low.shape or not np.isfinite(start).all():
            raise ValueError(f"the position is {start!r}; {len(self._low)} numbers are needed")
        self._position = start.clip(self._low, self._high)
        self._stuck = _entry(self._position, np.zeros_like(start), self._obstacle) is not None
        return self._observe(), self._info()

    def step(
        self, action: npt.ArrayLike
    ) -> tuple[npt.NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Move by `action` (axes,), clipped to its box, along a straight line."""
        move = np.asarray(action, dtype=np.float64)
        if move.shape != self._position.shape or not np.isfinite(move).all():
            raise ValueError(
                f"the action is {action!r}; {len(self._position)} finite numbers are needed"
            )
        if not self._stuck:
            target = self._position + move.clip(-STEP_LIMIT, STEP_LIMIT)
            way = target.clip(self._low, self._high) - self._position
            entry = _entry(self._position, way, self._obstacle)
            self._stuck = entry is not None
            self._position = self._position + way * (1.0 if entry is None else entry)
        info = self._info()
        terminated = self._stuck or info["success"]
        return self._observe(), -self._goal_distance(), terminated, False, info

    @property
    def position(self) -> Position:
        """Where the tool is, in cm; scripted demonstrators read it."""
        return self._position.copy()

    def render(self) -> npt.NDArray[np.uint8] | None:
        """The workspace from above, (rows, 480, 3), or None without a render mode."""
        return None if self._scene is None else self._scene.draw(*self._position[:2])

    def _observed(self) -> Any:
        """The observation space."""
        return gymnasium.spaces.Box(
            self._low.astype(np.float32), self._high.astype(np.float32), dtype=np.float32
        )

    def _observe(self) -> npt.NDArray[Any]:
        return self._position.astype(np.float32)

    def _goal_distance(self) -> float:
        return float(np.linalg.norm(self._position - self.goal))

    def _info(self) -> dict[str, Any]:
        success = not self._stuck and self._goal_distance() < self.goal_radius
        return {"cost": float(self._stuck), "success": success}


class ImageReach(Reach):
    """Reach in a plane, seen from above: (48, 64, 3) uint8, row 0 at the largest y.

    Action: (step_x, step_y) in cm, box +-0.5; the tool stays in the part of the workspace that the
    camera sees. Episodes begin at one of two positions from both of which the straight line to
    the goal meets the obstacle. `info["position"]` is (x, y) in cm.
    """

    plan = geometry.IMAGE_REACH
    starts = ((6.0, 6.7), (6.0, 7.3))
    goal = geometry.IMAGE_REACH.goal
    workspace = geometry.IMAGE_REACH.bounds
    obstacle = geometry.IMAGE_REACH.walls[0]

    def __init__(self, goal_radius: float = 1.0, render_mode: str | None = None) -> None:
        super().__init__(goal_radius, render_mode)
        self._camera = scene(goal_radius)

    def _observed(self) -> Any:
        return gymnasium.spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8)

    def _observe(self) -> npt.NDArray[Any]:
        return self._camera.draw(*self._position)

    def _info(self) -> dict[str, Any]:
        return {**super()._info(), "position": self._position.astype(np.float32)}


def scene(goal_radius: float = 1.0) -> Scene:
    """What the overhead camera sees, with a margin so that all of the tool is always in view."""
    plan = geometry.IMAGE_REACH
    x0, x1, y0, y1 = plan.bounds
    pixel = (x1 - x0 + 2.4 * TOOL_RADIUS) / WIDTH
    view = View(
        left=(x0 + x1 - pixel * WIDTH) / 2,
        top=(y0 + y1 + pixel * HEIGHT) / 2,
        pixel=pixel,
        height=HEIGHT,
        width=WIDTH,
    )
    return Scene(view, plan.walls, None, (*plan.goal, goal_radius), TOOL_RADIUS)


def _entry(position: Position, way: Position, box: npt.NDArray[np.float64]) -> float | None:
    """The share of a way after which a point meets a closed box (2, axes), or None."""
    first, last = 0.0, 1.0
    for at, step, low, high in zip(position, way, *box, strict=True):
        if step == 0.0:
            if not low <= at <= high:
                return None
            continue
        near, far = sorted(((low - at) / step, (high - at) / step))
        first, last = max(first, near), min(last, far)
    return first if first <= last else None
