"""Lift the middle one of three tall boxes off a shelf without toppling any (MuJoCo).

Object Extraction of Recovery RL (arXiv 2010.15920), with and without the dynamic obstacle, rebuilt
from its published dimensions; assets/extraction.xml says what differs and why.
"""

from importlib import resources
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
import numpy.typing as npt

from safetypilot.envs import extraction_names as names

Array = npt.NDArray[np.float64]

CONTROL_SECONDS = 2.5  # one step: the published 500 substeps of 5 ms
CHECKS = 5  # looks for contact between the arms during one step
MAXIMUM_TILT = np.deg2rad(15.0)  # of roll and of pitch
LIFT = 0.03  # m above rest: success
SPACING = 0.1  # m between the boxes' centres; published 0.05, see the asset

ARM_JOINTS = ("x", "y", "z", "yaw", "finger_1", "finger_2")
TARGET_LOW = np.array([-0.4, -0.4, -0.05, 0.0, 0.0])  # x, y, z in m, yaw in rad, finger in m
TARGET_HIGH = np.array([0.4, 0.4, 0.15, 0.0, names.FINGER_LIMIT])

GRIPPER_BASE_Y = 0.2  # m, where joint y is zero
DYNAMIC_GRIPPER_BASE_Y = 0.43
ROW_Y = (-0.2, -0.05)  # m, where the row of boxes may stand
DYNAMIC_ROW_Y = (-0.15, -0.07)
MIDDLE_X_DEVIATION = 0.05  # m

DISTRACTOR_START_X = 0.03  # m of joint x; published: its first step happens within the reset
DISTRACTOR_END_X = 0.45  # after 14 more steps it stays where it is
DISTRACTOR_STEP = 0.03
DISTRACTOR_FINGER = 0.0615  # m, closed


class Extraction(gymnasium.Env):  # type: ignore[misc]  # gymnasium is not followed by mypy
    """Reach between the boxes, close the fingers on the middle one, lift it.

    Observation: joint positions, float32: the gripper's x, y, z (m), yaw (rad) and two fingers (m);
    with `dynamic` the same of the distractor; then x, y, z (m) and quaternion of each box. Action
    (4,): steps in x, y, z of the gripper's target, box +-0.02 m (`dynamic`: +-0.03), and the finger
    target, box +-0.1 m, where <= 0 is open and 0.04 touches a box; it moves there within one step.
    Reward: 0 once the middle box is 3 cm above its rest, -1 before.
    `info["cost"]` is 1.0 if |roll| or |pitch| of a box is above 15 degrees, if the simulation broke
    down, or (`dynamic`) if the arms touched during the step. `info["success"]` says that the box is
    up. Either terminates; as published, both can be true at once.

    `reset(options={"state": positions})` places everything as an observation says, at rest.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 4}
    dt = CONTROL_SECONDS

    def __init__(self, dynamic: bool = False, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(
                f"render_mode is {render_mode!r}; extraction knows 'rgb_array' or None"
            )
        self.dynamic = dynamic
        self.render_mode = render_mode
        low = names.DYNAMIC_ACTION_LOW if dynamic else names.ACTION_LOW
        high = names.DYNAMIC_ACTION_HIGH if dynamic else names.ACTION_HIGH
        self.action_space = gymnasium.spaces.Box(
            np.array(low, dtype=np.float32), np.array(high, dtype=np.float32)
        )
        limit = _observation_limit(dynamic)
        self.observation_space = gymnasium.spaces.Box(-limit, limit)
        self._model = load_model(dynamic)
        self._data = mujoco.MjData(self._model)
        self._substeps = round(CONTROL_SECONDS / self._model.opt.timestep)
        arms = ("gripper", "distractor") if dynamic else ("gripper",)
        self._positions = _observed_positions(self._model, arms)
        self._arm_of_geom = _geoms_by_arm(self._model)
        self._rest_height = self._settled_height()
        self._observation = np.zeros(limit.shape, dtype=np.float32)
        self._renderer: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Stand the boxes in a row, at rest; see the class for `options`."""
        super().reset(seed=seed)
        options = options or {}
        state = self._draw_start() if "state" not in options else options["state"]
        self._place(np.asarray(state, dtype=np.float64))
        return self._observe(), self._info(touched=self._arms_touch())

    def step(
        self, action: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Move the targets over 2.5 simulated seconds; `action` (4,) is clipped to its box."""
        old = self._data.act.copy()
        new = self._next_targets(old, self._clipped(action))
        self._data.ctrl[:] = (new - old) / CONTROL_SECONDS  # the servos' targets integrate it
        touched = False
        checks = CHECKS if self.dynamic else 1
        for _ in range(checks):
            mujoco.mj_step(self._model, self._data, nstep=self._substeps // checks)
            touched = touched or self._arms_touch()
        self._data.act[:] = new  # without the sum's rounding
        info = self._info(touched)
        reward = 0.0 if info["success"] else -1.0
        return self._observe(), reward, bool(info["cost"]) or info["success"], False, info

    def render(self) -> npt.NDArray[np.uint8] | None:
        """The shelf from the front and above, (480, 480, 3), or None without a render mode.

        Needs OpenGL: without a display, set MUJOCO_GL=egl before MuJoCo is first imported.
        """
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = mujoco.Renderer(self._model, 480, 480)
        mujoco.mj_kinematics(self._model, self._data)  # mj_step leaves poses one substep behind
        self._renderer.update_scene(self._data, camera="main")
        pixels: npt.NDArray[np.uint8] = self._renderer.render()
        return pixels

    def close(self) -> None:
        """Free the renderer, if there is one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _clipped(self, action: npt.ArrayLike) -> Array:
        array = np.asarray(action, dtype=np.float64)
        if array.shape != (4,) or not np.isfinite(array).all():
            raise ValueError(
                f"the action is {action!r}; four finite numbers are needed: {names.ACTION_NAMES}"
            )
        return np.clip(array, self.action_space.low, self.action_space.high)

    def _next_targets(self, old: Array, action: Array) -> Array:
        """Targets (5,) or (10,): x, y, z, yaw, finger of the gripper, then of the distractor."""
        new = old.copy()
        new[:3] += action[:3]
        new[4] = action[3]
        new[:5] = np.clip(new[:5], TARGET_LOW, TARGET_HIGH)
        if self.dynamic:
            new[5] = min(new[5] + DISTRACTOR_STEP, DISTRACTOR_END_X)
        return new

    def _draw_start(self) -> Array:
        """A start as an observation: arms at their zeros, boxes upright in a row."""
        y = self.np_random.uniform(*(DYNAMIC_ROW_Y if self.dynamic else ROW_Y))
        middle = MIDDLE_X_DEVIATION * self.np_random.standard_normal()
        arms = np.zeros(12 if self.dynamic else 6)
        if self.dynamic:
            arms[[6, 10, 11]] = DISTRACTOR_START_X, DISTRACTOR_FINGER, -DISTRACTOR_FINGER
        return np.concatenate([arms, box_row(middle, y, self._rest_height)])

    def _place(self, state: Array) -> None:
        if state.shape != self._positions.shape or not np.isfinite(state).all():
            raise ValueError(
                f"the state has shape {state.shape}; {self._positions.shape} finite positions are "
                "needed, in the order of an observation"
            )
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[self._positions] = state
        for arm in range(len(self._data.act) // 5):  # the servos' targets are where they are
            self._data.act[5 * arm : 5 * arm + 5] = state[6 * arm : 6 * arm + 5]
        mujoco.mj_forward(self._model, self._data)

    def _settled_height(self) -> float:
        """Height of a resting box's centre: gravity presses it a little into the table."""
        mujoco.mj_resetData(self._model, self._data)
        mujoco.mj_step(self._model, self._data, nstep=self._substeps)
        return float(self._data.joint("middle").qpos[2])

    def _arms_touch(self) -> bool:
        """Whether some contact pairs a geom of one arm with one of the other."""
        if not self.dynamic or self._data.ncon == 0:
            return False
        pairs = self._arm_of_geom[self._data.contact.geom]  # (contacts, 2)
        return bool((pairs.prod(axis=1) == 2).any())

    def _observe(self) -> npt.NDArray[np.float32]:
        positions = self._data.qpos[self._positions]
        if np.isfinite(positions).all():  # else the last good one: a NaN would spoil the data
            limit = self.observation_space.high
            self._observation = np.clip(positions, -limit, limit).astype(np.float32)
        return self._observation.copy()

    def _info(self, touched: bool) -> dict[str, Any]:
        boxes = self._data.qpos[self._positions[-21:]].reshape(3, 7)
        toppled = not (np.abs(roll_and_pitch(boxes[:, 3:])) <= MAXIMUM_TILT).all()  # NaN too
        success = bool(boxes[1, 2] >= self._rest_height + LIFT)
        return {"cost": float(toppled or touched), "success": success}


def load_model(dynamic: bool) -> Any:
    """The compiled MuJoCo model."""
    assets = resources.files("safetypilot.envs").joinpath("assets")
    shelf = assets.joinpath("extraction.xml").read_text("utf-8")
    if not dynamic:
        return mujoco.MjModel.from_xml_string(shelf)
    xml = assets.joinpath("extraction_dynamic.xml").read_text("utf-8")
    model = mujoco.MjModel.from_xml_string(xml, {"extraction.xml": shelf.encode()})
    model.body("gripper").pos[1] = DYNAMIC_GRIPPER_BASE_Y
    model.geom("border_right").size[2] = 0.01  # the distractor reaches over it
    return model


def box_row(middle: float, y: float, height: float) -> Array:
    """Positions and quaternions (21,) of three upright boxes in a row around x = `middle`, in m."""
    offsets = np.array([-SPACING, 0.0, SPACING])
    return np.array([[middle + offset, y, height, 1, 0, 0, 0] for offset in offsets]).ravel()


def roll_and_pitch(quaternions: npt.ArrayLike) -> Array:
    """Angles (2, N) in rad of quaternions (N, 4), scalar first, by the z-y-x convention."""
    w, x, y, z = np.asarray(quaternions, dtype=np.float64).T
    roll = np.arctan2(2.0 * (w * x + y * z), 1.0 - 2.0 * (x * x + y * y))
    pitch = np.arcsin(np.clip(2.0 * (w * y - z * x), -1.0, 1.0))
    return np.array([roll, pitch])


def _observation_limit(dynamic: bool) -> npt.NDArray[np.float32]:
    """One metre, one for quaternions, and the hinge's range for yaws."""
    units = names.DYNAMIC_OBSERVATION_UNITS if dynamic else names.OBSERVATION_UNITS
    return np.array([6.3 if unit == "rad" else 1.0 for unit in units], dtype=np.float32)


def _observed_positions(model: Any, arms: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Where in qpos each entry of an observation is; the model orders its bodies differently."""
    rows = [int(model.joint(f"{arm}_{part}").qposadr[0]) for arm in arms for part in ARM_JOINTS]
    for box in names.BOXES:
        first = int(model.joint(box).qposadr[0])
        rows += range(first, first + 7)
    return np.array(rows)


def _geoms_by_arm(model: Any) -> npt.NDArray[np.int64]:
    """For each geom 1 for the gripper's, 2 for the distractor's, 0 for any other, by name."""
    arms = {"gripper": 1, "distractor": 2}
    return np.array([arms.get(model.geom(i).name.split("_")[0], 0) for i in range(model.ngeom)])
