"""A two-link arm with position servos that reaches past a keep-out zone (MuJoCo)."""

from importlib import resources
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
import numpy.typing as npt

from safetypilot.envs.actions import clipped
from safetypilot.envs.arm_body import (
    LINKS,
    MARGIN,
    RANGES,
    RATE_HZ,
    STEP_LIMIT,
    ArmBody,
    clearance,
    tip,
)
from safetypilot.envs.arm_view import ArmView
from safetypilot.envs.geometry import ARM_TARGETS

SPEED_LIMIT = 8.0  # rad/s, of the observation; no servo here gets that fast
LATEST = 5  # physics steps after which servos know their next goal; on a robot that takes time too
_ANYWHERE = 0.25  # of the episodes begin at any angles, the others with the tip among the targets
_START_ROOM = 0.01  # m, between the start and what would be a violation


class Arm(gymnasium.Env):  # type: ignore[misc]  # gymnasium is not followed by mypy
    """Bring the tip within 15 mm of the target; the tool at no time within 10 mm of the zone.

    Observation, action, reward, cost and success are those of `ArmBody`, from simulated servos:
    a step of 0.04 s turns the joints towards the angles that the action leads to, with the servos'
    lag, and up to 10 ms after it was asked for, at random. A violation terminates, and so does
    success; `info` has `cost` and `success`.

    `reset(options=...)` takes `position` (shoulder, elbow) in rad, at rest; `target` (x, y) in m;
    `go_on: True` stays where the last episode ended, in motion, unless that was a violation.
    Otherwise three episodes in four begin with the tip among the targets of either side and one
    anywhere; the target is drawn on the other side.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 25}
    dt = 1.0 / RATE_HZ

    def __init__(self, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is {render_mode!r}; the arm knows 'rgb_array' or None")
        self.render_mode = render_mode
        self._view = ArmView() if render_mode else None
        self._model = mujoco.MjModel.from_xml_string(
            resources.files("safetypilot.envs").joinpath("assets", "arm.xml").read_text("utf-8")
        )
        self._data = mujoco.MjData(self._model)
        self._substeps = round(self.dt / self._model.opt.timestep)
        self._body = ArmBody()
        reach, angles = sum(LINKS), np.array(RANGES)
        slack = 0.2  # rad that a joint may be beyond its range
        low = (-reach, -reach, *(angles[:, 0] - slack), *[-SPEED_LIMIT] * 2, *[-2 * reach] * 2)
        high = (reach, reach, *(angles[:, 1] + slack), *[SPEED_LIMIT] * 2, *[2 * reach] * 2)
        self.observation_space = gymnasium.spaces.Box(*np.array((low, high), np.float32))
        self.action_space = gymnasium.spaces.Box(-STEP_LIMIT, STEP_LIMIT, (2,), np.float32)
        self._observation = np.zeros(8, np.float32)
        self._begun = self._violated = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Begin an episode; see the class for `options`."""
        super().reset(seed=seed)
        options = options or {}
        if "position" in options:
            self._place(_pair("position", options["position"]))
        elif not (options.get("go_on") and self._begun) or self._violated:
            self._place(self._sample_start())
        self._begun, self._violated = True, False
        self._body.start(self.np_random)
        if "target" in options:
            self._body.aim(_pair("target", options["target"]))
        self._observation = self._observe()
        return self._observation, {"cost": 0.0, "success": False}

    def step(
        self, action: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Turn for 0.04 s towards the measured angles plus `action` (2,), clipped to its box."""
        step, before = clipped(action, STEP_LIMIT), self._observation
        goal = self._body.drive(step, self._angles()).position
        late = int(self.np_random.integers(LATEST + 1))
        mujoco.mj_step(self._model, self._data, nstep=late)
        self._data.ctrl[:] = goal
        mujoco.mj_step(self._model, self._data, nstep=self._substeps - late)
        self._observation = self._observe()
        reward, cost, success, _ = self._body.judge(before, step, self._observation)
        self._violated = cost > 0.0
        terminated = self._violated or success
        return self._observation, reward, terminated, False, {"cost": cost, "success": success}

    def render(self) -> npt.NDArray[np.uint8] | None:
        """The arm from above, (rows, 480, 3), or None without a render mode; needs no OpenGL."""
        if self._view is None:
            return None
        x, y = (self._observation[:2] + self._observation[6:]).tolist()
        return self._view.draw(self._angles(), (x, y))

    def _sample_start(self) -> tuple[float, float]:
        """Angles with room around the arm."""
        (low, high), (x0, x1, y0, y1) = zip(*RANGES, strict=True), ARM_TARGETS
        anywhere = self.np_random.random() < _ANYWHERE
        while True:
            shoulder, elbow = self.np_random.uniform(low, high)
            x, y = tip((shoulder, elbow))
            wanted = anywhere or (x0 <= x <= x1 and y0 <= abs(y) <= y1)
            if wanted and clearance((shoulder, elbow)) > MARGIN + _START_ROOM:
                return float(shoulder), float(elbow)

    def _place(self, position: tuple[float, float]) -> None:
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = self._data.ctrl[:] = position
        mujoco.mj_forward(self._model, self._data)

    def _angles(self) -> tuple[float, ...]:
        return tuple(self._data.qpos.tolist())

    def _observe(self) -> npt.NDArray[np.float32]:
        return self._body.observe(self._angles(), tuple(self._data.qvel.tolist()), (), {})


def _pair(name: str, given: Any) -> tuple[float, float]:
    array = np.asarray(given, np.float64)
    if array.shape != (2,) or not np.isfinite(array).all():
        raise ValueError(f"the {name} is {given!r}; two finite numbers are needed")
    return float(array[0]), float(array[1])
