"""The robot in an MJCF file: its joints with their limits, what moves and what measures them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

from safetypilot.bridge.contract import DriverError, Joint, Mode, Vector
from safetypilot.bridge.devices import mujoco_actuators as actuators
from safetypilot.bridge.devices.mujoco_limits import joints_of
from safetypilot.bridge.devices.mujoco_options import MujocoOptions, for_each
from safetypilot.bridge.protocols.mujoco import VERSION

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

STIFFNESS = 15.0  # rad/s, of a servo by default; critically damped
LONGEST_TICK_S = 0.002  # states come as often, at least
_UNITS = {
    "TOUCH": "N", "ACCELEROMETER": "m/s^2", "VELOCIMETER": "m/s", "GYRO": "rad/s", "FORCE": "N",
    "TORQUE": "N m", "MAGNETOMETER": "T", "RANGEFINDER": "m", "FRAMEPOS": "m",
    "FRAMELINVEL": "m/s", "FRAMEANGVEL": "rad/s", "FRAMELINACC": "m/s^2", "FRAMEANGACC": "rad/s^2",
    "SUBTREECOM": "m", "SUBTREELINVEL": "m/s",
}  # fmt: skip
CONTACT = "contact"


@dataclass(frozen=True, slots=True)
class Sensor:
    """Where a sensor is among the model's numbers."""

    name: str
    unit: str
    start: int
    size: int


@dataclass(frozen=True)
class Robot:
    """A compiled model and what it means; arrays are in the order of the joints.

    Attributes:
        name: of the model.
        serial: a digest of the file.
        modes: in which it can be commanded.
        positions, speeds: where the joints are in qpos and qvel.
        servos: actuators of our own, one per joint: force = ctrl - kp position - kd velocity.
        own: the model's actuators, where they are used.
        scale: what one unit of a command is for them.
        kp, kd, damping: of the servos, and of a joint that nobody may command.
        start: qpos from where it starts.
        obstacles: whether a geom must not be touched.
        parts: whether a geom is of the robot.
    """

    model: Any
    name: str
    serial: str
    joints: tuple[Joint, ...]
    modes: tuple[Mode, ...]
    positions: Integers
    speeds: Integers
    servos: Integers
    own: Integers
    scale: Floats
    kp: Floats
    kd: Floats
    damping: Floats
    start: Floats
    sensors: tuple[Sensor, ...]
    obstacles: npt.NDArray[np.bool_]
    parts: npt.NDArray[np.bool_]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(joint.name for joint in self.joints)

    @property
    def bodies(self) -> tuple[str, ...]:
        return tuple(self.model.body(each).name for each in range(self.model.nbody))


def find_model(name: str) -> Path:
    """The file of that name, or the asset.

    Raises:
        DriverError: there is none.
    """
    path = Path(name)
    if path.is_file():
        return path.resolve()
    assets = resources.files("safetypilot.envs").joinpath("assets")
    known = sorted(each.name for each in assets.iterdir() if each.name.endswith(".xml"))
    if name in known:
        return Path(str(assets.joinpath(name)))
    raise DriverError(f"mujoco: there is no model {name!r}; a file, or one of {', '.join(known)}")


def load(options: MujocoOptions) -> Robot:
    """Compiles the model and finds in it what the options name.

    Raises:
        DriverError: it cannot be read, or has not what the options name.
    """
    path = find_model(options.model)
    try:
        spec = mujoco.MjSpec.from_file(str(path))
        plain = spec.compile()
    except (ValueError, OSError) as error:
        raise DriverError(f"mujoco: {path} is no model: {error}") from None
    names = options.joints or actuators.joints_of(plain)
    if not names or len(set(names)) < len(names):
        raise DriverError(f"mujoco: {path.name}: joints are {names}; at least one, each once")
    joints = [_joint_index(plain, name) for name in names]
    own = actuators.of_joints(plain, joints) if options.actuation == "model" else []
    start = _start(plain, options, names)
    inertia = _inertia(plain, start, joints)
    made = joints_of(plain, options, joints, inertia)
    model, servos = actuators.with_servos(spec, made)
    if not own:
        actuators.silence(model, joints)
    _load_payload(model, options)
    if options.timestep_s is not None:
        model.opt.timestep = options.timestep_s
    _check_rate(model, options)
    kd = for_each(options.kd, "kd", names, tuple(2.0 * STIFFNESS * m for m in inertia))
    kp = for_each(options.kp, "kp", names, tuple(STIFFNESS**2 * m for m in inertia))
    return Robot(
        model,
        str(spec.modelname),
        hashlib.sha256(path.read_bytes()).hexdigest()[:12],
        made,
        (actuators.mode_of_all(plain, own) if own else Mode(options.actuation),),
        np.array([model.jnt_qposadr[joint] for joint in joints]),
        np.array([model.jnt_dofadr[joint] for joint in joints]),
        servos,
        np.array(own, np.int64),
        np.array([actuators.scale(plain, act) for act in own]),
        np.array(kp),
        np.array(kd),
        np.array(for_each(options.damping, "damping", names, kd)),
        start,
        _sensors(model),
        *_geoms(model, options),
    )


def identity(options: MujocoOptions, robot: Robot) -> dict[str, Any]:
    """What the device says of itself, JSON-able; a driver with the same options knows it too."""
    return {
        "model": robot.name,
        "serial": f"mujoco-{robot.serial}",
        "firmware": f"safetypilot-mujoco {VERSION}",
        "joints": list(robot.names),
        "mode": str(robot.modes[0]),
        "sensors": {sensor.name: sensor.size for sensor in robot.sensors},
        "obstacles": options.obstacles,
        "time_factor": options.time_factor,
        "timestep_s": float(robot.model.opt.timestep),
        "watchdog_s": options.watchdog_s,
        "ramp_s": options.ramp_s,
        "kp": robot.kp.tolist(),
        "kd": robot.kd.tolist(),
        "damping": robot.damping.tolist(),
    }


def _joint_index(model: Any, name: str) -> int:
    known = [model.joint(j).name for j in range(model.njnt) if actuators.unit(model, j)]
    if name not in known:
        raise DriverError(f"mujoco: the model has no joint {name!r}; it has {', '.join(known)}")
    return int(model.joint(name).id)


def _load_payload(model: Any, options: MujocoOptions) -> None:
    if not options.payload_kg:
        return
    bodies = [model.body(each).name for each in range(1, model.nbody)]
    if options.payload_body not in bodies:
        raise DriverError(
            f"mujoco: no body {options.payload_body!r} for the payload; "
            f"there are {', '.join(bodies)}"
        )
    model.body_mass[model.body(options.payload_body).id] += options.payload_kg
    mujoco.mj_setConst(model, mujoco.MjData(model))


def _check_rate(model: Any, options: MujocoOptions) -> None:
    step_s = model.opt.timestep / options.time_factor
    if options.rate_hz * step_s > 1.0 + 1e-9:
        raise DriverError(
            f"mujoco: physics of {model.opt.timestep:g} s steps at a time factor of "
            f"{options.time_factor:g} has {1 / step_s:g} states per second, and rate_hz is "
            f"{options.rate_hz:g}; lower it, or set timestep_s"
        )


def _start(model: Any, options: MujocoOptions, names: Sequence[str]) -> Floats:
    """qpos, (nq,)."""
    start = np.array(model.qpos0)
    if options.keyframe:
        keys = [model.key(each).name for each in range(model.nkey)]
        if options.keyframe not in keys:
            known = ", ".join(keys) or "none at all"
            raise DriverError(f"mujoco: no keyframe {options.keyframe!r}; there are {known}")
        start = np.array(model.key(options.keyframe).qpos)
    where = [int(model.jnt_qposadr[model.joint(name).id]) for name in names]
    start[where] = for_each(options.start, "start", names, tuple(start[where].tolist()))
    return start


def _inertia(model: Any, start: Floats, joints: Sequence[int]) -> Vector:
    """What each joint has to accelerate while the others are held, kg m^2 or kg."""
    data = mujoco.MjData(model)
    data.qpos[:] = start
    mujoco.mj_forward(model, data)
    found = []
    for joint in joints:
        unit, column = np.zeros(model.nv), np.zeros(model.nv)
        unit[model.jnt_dofadr[joint]] = 1.0
        mujoco.mj_mulM(model, data, column, unit)
        found.append(float(unit @ column))
    return tuple(found)


def _sensors(model: Any) -> tuple[Sensor, ...]:
    """All that have names."""
    found = []
    for index in range(model.nsensor):
        if name := model.sensor(index).name:
            kind = mujoco.mjtSensor(model.sensor_type[index]).name.removeprefix("mjSENS_")
            start, size = int(model.sensor_adr[index]), int(model.sensor_dim[index])
            unit = _UNITS.get(kind, "1")
            if kind in ("JOINTPOS", "JOINTVEL"):
                unit = actuators.unit(model, int(model.sensor_objid[index]))
                unit += "/s" if kind == "JOINTVEL" else ""
            found.append(Sensor(name, unit, start, size))
    return tuple(found)


def _geoms(
    model: Any, options: MujocoOptions
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which are obstacles, and which are the robot's: those that can move."""
    names = [model.geom(each).name for each in range(model.ngeom)]
    part = options.obstacles
    obstacles = np.array([bool(part) and part in name for name in names], bool)
    if part and not obstacles.any():
        raise DriverError(f"mujoco: no geom has {part!r} in its name; there are {', '.join(names)}")
    if part and any(sensor.name == CONTACT for sensor in _sensors(model)):
        raise DriverError(f"mujoco: the model has a sensor {CONTACT!r} already; clear obstacles")
    return obstacles, model.body_weldid[model.geom_bodyid] != 0
