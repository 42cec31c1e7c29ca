"""The physics of the simulated quadruped: twelve motors, an IMU, four feet and a flat floor."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from math import acos, asin, atan2, inf
from typing import Any, NamedTuple

import mujoco
import numpy as np
import numpy.typing as npt

from safetypilot.bridge.contract import Vector
from safetypilot.bridge.devices.common import Push
from safetypilot.bridge.protocols.unitree import NO_POSITION, NO_VELOCITY, Told

Floats = npt.NDArray[np.float64]
TIMESTEP_S = 0.002
# Of the trunk, m and rad: above which height and below which tilt it stands; below which height it
# is down; above which tilt it has fallen, or when it came down so fast, m/s: limp, it reaches 1.55.
_UP, _TILT, _DOWN, _FALLEN, _SUDDEN = 0.2, 0.5, 0.12, 1.0, 1.3
_JUDGED_EVERY = 5  # steps
_STOOD_S = 0.25  # so long it has to stand


class Look(NamedTuple):
    """What the robot's sensors say; joints in the order of its motors."""

    position: Vector
    velocity: Vector
    effort: Vector
    orientation: Vector
    gyroscope: Vector
    accelerometer: Vector
    rpy: Vector
    feet: Vector


class World:
    """One quadruped.

    Attributes:
        posture: "lying", "standing" or "fell".
    """

    def __init__(self, joints: Sequence[str], start: str, pushes: Sequence[Push] = ()) -> None:
        """Begin in a posture of the model.

        Args:
            joints: by name, in the order of the motors, which is not that of the model's tree.
        """
        self._model = model = _load()
        self._data = data = mujoco.MjData(model)
        self._pushes = [(push, model.body(push.body).id) for push in pushes]
        self._positions = np.array([model.joint(name).qposadr[0] for name in joints])
        self._velocities = np.array([model.joint(name).dofadr[0] for name in joints])
        drives = {int(model.actuator_trnid[each, 0]): each for each in range(model.nu)}
        self._motors = np.array([drives[model.joint(name).id] for name in joints])
        self._trunk = model.body("trunk").id
        self._imu = [_place(model, name) for name in ("orientation", "gyroscope", "accelerometer")]
        self._feet = [_place(model, leg).start for leg in ("FR", "FL", "RR", "RL")]
        mujoco.mj_resetDataKeyframe(model, data, model.key(start).id)
        mujoco.mj_forward(model, data)
        self._steps, self._time_s = 0, 0.0
        self._stood_s = self._sinking = 0.0
        self.posture = "lying"
        self.damp(0.0)

    # What the motors do; effort = offset - kp position - kd velocity.

    def damp(self, kd: float) -> None:
        """Resist motion."""
        zeros = np.zeros(len(self._motors))
        self._offset, self._kp, self._kd = zeros, zeros, np.full(len(self._motors), kd)

    def hold(self, kp: float, kd: float) -> None:
        """Stay where they are."""
        ones = np.ones(len(self._motors))
        self._offset, self._kp, self._kd = (
            kp * self._data.qpos[self._positions], kp * ones, kd * ones
        )  # fmt: skip

    def obey(self, told: Told) -> None:
        """What a command says, at every step until the next one."""
        position, velocity, effort, kp, kd = map(np.array, told[2:])
        self._kp = np.where(position == np.float32(NO_POSITION), 0.0, kp)
        self._kd = np.where(velocity == np.float32(NO_VELOCITY), 0.0, kd)
        self._offset = effort + self._kp * position + self._kd * velocity

    def step(self) -> str:
        """One step of physics; the name of the posture that was reached in it, or ""."""
        data = self._data
        effort = self._offset - self._kp * data.qpos[self._positions]
        effort -= self._kd * data.qvel[self._velocities]
        data.ctrl[self._motors] = effort  # the model cuts it to what its motors can
        if self._pushes:
            self._push()
        mujoco.mj_step(self._model, data)
        self._time_s += TIMESTEP_S
        self._steps += 1
        return "" if self._steps % _JUDGED_EVERY else self._judge()

    def _push(self) -> None:
        force = self._data.xfrc_applied
        force[:] = 0.0
        for push, body in self._pushes:
            if push.lasts(self._time_s):
                force[body, :3] += push.force

    def place(self, position: Vector) -> None:
        """At rest there, level, with its lowest part on the ground."""
        data = self._data
        mujoco.mj_resetDataKeyframe(self._model, data, self._model.key("lying").id)
        data.qpos[self._positions] = position
        mujoco.mj_kinematics(self._model, data)
        data.qpos[2] -= self._lowest()
        mujoco.mj_forward(self._model, data)
        self._stood_s = self._sinking = 0.0
        self.posture = "lying"

    def _lowest(self) -> float:
        """Height of what is lowest, m."""
        lowest = inf
        for geom in np.flatnonzero(self._model.geom_contype):
            _, _, reach = np.abs(self._data.geom_xmat[geom].reshape(3, 3))
            size = self._model.geom_size[geom]
            extent = float(reach @ size)
            if self._model.geom_type[geom] != mujoco.mjtGeom.mjGEOM_BOX:  # a sphere or capsule
                extent = float(size[0] + reach[2] * size[1])
            lowest = min(lowest, float(self._data.geom_xpos[geom, 2]) - extent)
        return lowest

    def _judge(self) -> str:
        """Whether it stands, lies or has fallen."""
        data = self._data
        tilt = acos(max(-1.0, min(1.0, data.xmat[self._trunk, 8])))
        up = data.xpos[self._trunk, 2] >= _UP and tilt < _TILT
        self._stood_s = self._stood_s + _JUDGED_EVERY * TIMESTEP_S if up else 0.0
        self._sinking = 0.0 if up else max(self._sinking, -float(data.qvel[2]))
        if self.posture != "standing":
            return self._become("standing") if self._stood_s > _STOOD_S else ""
        if tilt > _FALLEN:
            return self._become("fell")
        if data.xpos[self._trunk, 2] < _DOWN or self._trunk_touches():
            return self._become("fell" if self._sinking > _SUDDEN else "lying")
        return ""

    def _become(self, posture: str) -> str:
        self.posture = posture
        return posture

    def _trunk_touches(self) -> bool:
        contact = self._data.contact
        bodies = self._model.geom_bodyid[contact.geom]
        return bool((bodies == self._trunk).any())

    # What it says.

    def look(self) -> Look:
        """What the sensors say now."""
        data = self._data
        orientation, gyroscope, accelerometer = (
            tuple(data.sensordata[part].tolist()) for part in self._imu
        )
        return Look(
            tuple(data.qpos[self._positions].tolist()),
            tuple(data.qvel[self._velocities].tolist()),
            tuple(data.actuator_force[self._motors].tolist()),
            orientation,
            gyroscope,
            accelerometer,
            _roll_pitch_yaw(*orientation),
            tuple(data.sensordata[self._feet].tolist()),
        )

    @property
    def base(self) -> tuple[Vector, Vector]:
        """Where the trunk is, m, and how fast, m/s, in the world; the ground truth."""
        data = self._data
        return tuple(data.qpos[:3].tolist()), tuple(data.qvel[:3].tolist())


def bodies() -> list[str]:
    """Names of what can be pushed."""
    model = _load()
    return [model.body(each).name for each in range(model.nbody)]


def _load() -> Any:
    path = files("safetypilot.envs").joinpath("assets", "quadruped.xml")
    return mujoco.MjModel.from_xml_string(path.read_text("utf-8"))


def _place(model: Any, sensor: str) -> slice:
    start, size = model.sensor(sensor).adr[0], model.sensor(sensor).dim[0]
    return slice(start, start + size)


def _roll_pitch_yaw(w: float, x: float, y: float, z: float) -> Vector:
    return (
        atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)),
        asin(max(-1.0, min(1.0, 2 * (w * y - z * x)))),
        atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)),
    )
