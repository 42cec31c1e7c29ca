"""Navigation 1 and 2: a point in the plane that must reach the origin around obstacles (NumPy).

From Recovery RL (arXiv 2010.15920). Navigation 1 is a corridor with a back wall, Navigation 2 a
block on the straight line from start to goal.
"""

from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt

from safetypilot.envs import geometry
from safetypilot.envs.actions import clipped
from safetypilot.envs.raster import plan_scene

VARIANTS = {1: geometry.NAVIGATION1, 2: geometry.NAVIGATION2}

ACTION_LIMIT = 1.0
NOISE = 0.05  # standard deviation per step and coordinate
START_MEAN = (-50.0, 0.0)  # standard deviation 1


class Navigation(gymnasium.Env):  # type: ignore[misc]  # gymnasium is not followed by mypy
    """Walk to the goal without entering an obstacle: next = position + action + noise.

    Observation: (x, y), float32, unbounded, without unit. Action: (step_x, step_y), box +-1.
    Reward: minus the distance to the goal *before* the step. `info["cost"]` is 1.0 if the position
    after the step lies in an obstacle, `info["success"]` is True if it lies within `goal_radius`;
    either terminates.

    Two things differ from the published code. Success is judged on the position after the step;
    published, it was the one before, so an episode ended one step late. And the radius is an
    option: 4, the default, is the published code's, 1 is the paper's. As in the code, there is no
    drag, although the paper mentions one.

    `reset(options={"position": (x, y)})` starts there instead of at a draw from N((-50, 0), I).
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self, variant: int, goal_radius: float = 4.0, render_mode: str | None = None
    ) -> None:
        if variant not in VARIANTS:
            raise ValueError(f"variant is {variant!r}; there are Navigation 1 and 2")
        if not goal_radius > 0.0:
            raise ValueError(f"goal_radius is {goal_radius!r}; it must be positive")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(
                f"render_mode is {render_mode!r}; Navigation knows 'rgb_array' or None"
            )
        self.render_mode = render_mode
        self._scene = plan_scene(VARIANTS[variant]) if render_mode else None
        self.goal_radius = goal_radius
        self._goal = np.array(VARIANTS[variant].goal)
        self._obstacles = np.array(VARIANTS[variant].walls)  # (obstacles, 4)
        self._position = np.array(START_MEAN)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-ACTION_LIMIT, ACTION_LIMIT, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Start near (-50, 0), or at `options["position"]`."""
        super().reset(seed=seed)
        if options and "position" in options:
            self._position = np.array(options["position"], dtype=np.float64)
        else:
            self._position = START_MEAN + self.np_random.standard_normal(2)
        return self._observe(), self._info()

    def step(
        self, action: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Move by `action` (2,), clipped to its box, plus noise; stuck inside an obstacle."""
        move = clipped(action, ACTION_LIMIT)
        reward = -self._goal_distance()
        noise = NOISE * self.np_random.standard_normal(2)
        if not in_obstacle(self._position, self._obstacles):
            self._position = self._position + move + noise
        info = self._info()
        terminated = bool(info["cost"]) or info["success"]
        return self._observe(), reward, terminated, False, info

    def render(self) -> npt.NDArray[np.uint8] | None:
        """The plane from above, (rows, 480, 3), or None without a render mode; needs no OpenGL."""
        return None if self._scene is None else self._scene.draw(*self._position)

    def _goal_distance(self) -> float:
        return float(np.linalg.norm(self._position - self._goal))

    def _observe(self) -> npt.NDArray[np.float32]:
        return self._position.astype(np.float32)

    def _info(self) -> dict[str, Any]:
        return {
            "cost": float(in_obstacle(self._position, self._obstacles)),
            "success": self._goal_distance() < self.goal_radius,
        }


def in_obstacle(position: npt.NDArray[np.float64], obstacles: npt.NDArray[np.float64]) -> bool:
    """Whether (x, y) lies in one of the closed rectangles (obstacles, 4) of x0, x1, y0, y1."""
    x, y = position
    x0, x1, y0, y1 = obstacles.T
    return bool(((x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)).any())
