"""A quadruped lies, stands up, and holds the height and yaw that it is told to (MuJoCo).

The simulated robot of the bridge's quadruped device, in one process: same model, same motors' law
in every step of physics, and the robot's own body (envs/quadruped_body.py) for what is observed,
asked and judged. What is learned here flies there.
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
import numpy.typing as npt

from safetypilot.envs import quadruped_legs as legs
from safetypilot.envs import quadruped_names as names
from safetypilot.envs.quadruped_body import Command, QuadrupedBody

Array = npt.NDArray[np.float64]
Step = tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]

PUSH_SECONDS = 0.2


class Quadruped(gymnasium.Env):  # type: ignore[misc]  # gymnasium is not followed by mypy
    """Hold the commanded height and yaw without falling.

    Observation (32,), float32: where gravity points in the trunk's frame (unit vector), gyroscope
    (rad/s), joint angles (rad) and speeds (rad/s), commanded height (m) and yaw of the trunk over
    its feet (rad). Action (12,): target angles in rad, from a middle pose, that the motors pull to
    as stiff springs; quadruped_names.py has the box. Reward: minus the errors of height and yaw and
    the tilt. `info["cost"]` is 1.0 if the trunk tilts by more than 0.8 rad, which terminates.
    `info["success"]` is True if at the end of the 8 s height and yaw have been held within 2 cm
    and 0.05 rad for the last second.

    `reset(options=...)` knows `position` (12,): angles to begin with, level, feet on the ground;
    `commands`: list of (step, height, yaw), the first for step 0; and `push`: list of {"at_s",
    "body", "force" (3,) in N, world frame, "duration_s"}, or a force in N with which the trunk is
    pushed once for 0.2 s, from any side, between the 3rd and the 6th second.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 50}
    dt = 1.0 / names.RATE_HZ

    def __init__(self, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is {render_mode!r}; quadruped knows 'rgb_array' or None")
        self.render_mode = render_mode
        self.action_space = gymnasium.spaces.Box(
            np.array(names.ACTION_LOW, np.float32), np.array(names.ACTION_HIGH, np.float32)
        )
        size = len(names.OBSERVATION_NAMES)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self._model = load_model()
        self._data = mujoco.MjData(self._model)
        self.physics_steps = round(self.dt / self._model.opt.timestep)
        joints = [self._model.joint(name) for name in names.JOINTS]
        self._q = np.array([joint.qposadr[0] for joint in joints])
        self._dq = np.array([joint.dofadr[0] for joint in joints])
        self._motors, self._limits = _motors(self._model, [joint.id for joint in joints])
        self._body = QuadrupedBody()
        self._pushes: list[tuple[float, float, int, Array]] = []
        self._done = self._ticks = 0  # physics steps of this control step, and of the episode
        self._before = np.zeros(size, np.float32)
        self._start: tuple[float, ...] = (0.0,) * 12
        self._renderer: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Lie down, or see the class for `options`."""
        super().reset(seed=seed)
        options = options or {}
        position: Any = self._body.start(self.np_random)
        if "commands" in options:
            self._body.command([Command(*row) for row in options["commands"]])
        self._place(np.asarray(options.get("position", position), np.float64))
        push = options.get("push", ())
        rows = push if isinstance(push, Sequence) else [self._drawn_push(float(push))]
        self._pushes = [self._push(row) for row in rows]
        self._done = self._ticks = 0
        self._before = self._observe()
        return self._before.copy(), {"cost": 0.0, "success": False}

    def step(self, action: npt.ArrayLike) -> Step:
        """One control period with targets `action` (12,), clipped to their box."""
        command = self._clipped(action)
        self._pull(command, self.physics_steps - self._done)
        self._done = 0
        before, after = self._before, self._observe()
        verdict = self._body.judge(before, command, after)
        self._before = after
        info = {"cost": verdict.cost, "success": verdict.success}
        terminated = verdict.cost > 0 or verdict.success
        return after.copy(), verdict.reward, terminated, False, info

    def advance(self, action: npt.ArrayLike, steps: int) -> npt.NDArray[np.float32]:
        """Some physics steps of a control period; `step` does the rest of it."""
        self._pull(self._clipped(action), steps)
        self._done += steps
        return self._observe()

    def render(self) -> npt.NDArray[np.uint8] | None:
        """The robot from its side, (480, 640, 3), or None without a render mode.

        Needs OpenGL: without a display, set MUJOCO_GL=egl before MuJoCo is first imported.
        """
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = mujoco.Renderer(self._model, 480, 640)
        camera = mujoco.MjvCamera()
        camera.lookat[:] = *self._data.qpos[:2], 0.2
        camera.distance, camera.azimuth, camera.elevation = 1.3, 130.0, -20.0
        mujoco.mj_kinematics(self._model, self._data)
        self._renderer.update_scene(self._data, camera)
        pixels: npt.NDArray[np.uint8] = self._renderer.render()
        return pixels

    def close(self) -> None:
        """Free the renderer, if there is one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _clipped(self, action: npt.ArrayLike) -> Array:
        array = np.asarray(action, dtype=np.float64)
        if array.shape != (12,) or not np.isfinite(array).all():
            raise ValueError(f"the action is {action!r}; twelve finite numbers are needed")
        return np.clip(array, self.action_space.low, self.action_space.high)

    def _pull(self, action: Array, steps: int) -> None:
        """Some steps of physics in which the motors pull to their targets."""
        data, model = self._data, self._model
        drive = self._body.drive(action, ())
        target, kp, kd = (np.array(row) for row in (drive.position, drive.kp, drive.kd))
        for _ in range(steps):
            effort = kp * (target - data.qpos[self._q]) - kd * data.qvel[self._dq]
            data.ctrl[self._motors] = np.clip(effort, -self._limits, self._limits)
            if self._pushes:
                self._disturb()
            mujoco.mj_step(model, data)
            self._ticks += 1

    def _disturb(self) -> None:
        time_s = self._ticks * self._model.opt.timestep
        self._data.xfrc_applied[:] = 0.0
        for at_s, until_s, body, force in self._pushes:
            if at_s <= time_s < until_s:
                self._data.xfrc_applied[body, :3] += force

    def _drawn_push(self, force: float) -> dict[str, Any]:
        at_s, side = self.np_random.uniform(3.0, 6.0), self.np_random.uniform(-np.pi, np.pi)
        sideways = (force * np.cos(side), force * np.sin(side), 0.0)
        return {"at_s": at_s, "body": "trunk", "force": sideways, "duration_s": PUSH_SECONDS}

    def _push(self, row: Mapping[str, Any]) -> tuple[float, float, int, Array]:
        force = np.asarray(row["force"], np.float64)
        if force.shape != (3,) or not np.isfinite(force).all():
            raise ValueError(f"the push {row!r} has no force of three finite numbers")
        at_s = float(row["at_s"])
        return at_s, at_s + float(row["duration_s"]), self._model.body(row["body"]).id, force

    def _place(self, position: Array) -> None:
        """Level, at rest, the lowest foot or the trunk on the ground."""
        if position.shape != (12,) or not np.isfinite(position).all():
            raise ValueError(f"the position is {position!r}; twelve finite angles are needed")
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[self._q] = position
        self._data.qpos[:7] = 0.0, 0.0, standing_height(position.tolist()), 1.0, 0.0, 0.0, 0.0
        mujoco.mj_forward(self._model, self._data)

    def _observe(self) -> npt.NDArray[np.float32]:
        data = self._data
        position, velocity = tuple(data.qpos[self._q].tolist()), tuple(data.qvel[self._dq].tolist())
        effort = tuple(data.ctrl[self._motors].tolist())
        orientation = tuple(data.qpos[3:7].tolist())
        gyroscope = tuple(data.qvel[3:6].tolist())  # a free joint turns in its own frame
        sensors = {"orientation": orientation, "gyroscope": gyroscope}
        return self._body.observe(position, velocity, effort, sensors)


def load_model() -> Any:
    """The compiled MuJoCo model."""
    assets = resources.files("safetypilot.envs").joinpath("assets")
    return mujoco.MjModel.from_xml_string(assets.joinpath("quadruped.xml").read_text("utf-8"))


def standing_height(q: Sequence[float]) -> float:
    """Of a level trunk's middle, m, with these angles: on its lowest foot, or lying."""
    reach = names.FOOT_RADIUS - min(z for _, _, z in legs.feet(q))
    return max(reach, names.LYING_HEIGHT)


def _motors(model: Any, joints: list[int]) -> tuple[npt.NDArray[np.int64], Array]:
    """For each joint its motor, and how hard that pulls at most, N m."""
    driven = model.actuator_trnid[:, 0].tolist()
    motors = np.array([driven.index(joint) for joint in joints])
    return motors, model.actuator_ctrlrange[motors, 1].copy()
