"""What the MuJoCo driver and its device are told: which robot, how it is moved, how imperfect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import inf, isfinite

from safetypilot.bridge.contract import DriverError, Vector

PerJoint = float | Mapping[str, float]  # one number for all joints, or by name for some

ACTUATIONS = ("model", "position", "velocity", "effort", "pd")
RESTS = ("damping", "hold", "off")
_PER_JOINT = (
    "start", "kp", "kd", "damping", "velocity", "acceleration", "jerk", "effort", "margin", "lead",
    "kp_limit", "kd_limit",
)  # fmt: skip
_ABOVE_ZERO = ("rate_hz", "max_rate_hz", "time_factor", "command_timeout_s", "watchdog_s")
_NOT_BELOW_ZERO = (
    "ramp_s", "latency_s", "sensor_latency_s", "noise_position", "noise_velocity", "drop_rate",
    "payload_kg",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MujocoOptions:
    """A robot of MuJoCo's, as `driver=mujoco` takes it; SI units, of the device where it says so.

    What is given per joint is one number for all, or {joint: number} for some.

    Attributes:
        model: an MJCF file; a name without a folder is also looked for among the tasks' own.
        joints: by name, in the order wanted; none: all that the model's actuators turn or slide.
        actuation: "model": its own actuators; or what the device's servos do instead of them:
            "position", "velocity", "effort" or "pd".
        keyframe: of the model, from where it starts.
        start: joint positions that differ from that.
        kp, kd: of the servos; by default critically damped at 15 rad/s where it starts, in the air.
        damping: of a joint that nobody may command, N m s/rad or N s/m; by default the servo's kd.
        ramp_s: in which the commander's gains rise and fall, of the device.
        rest: what `deactivate` leaves: "damping", "hold" or "off".
        velocity, acceleration, jerk, effort, margin, lead, kp_limit, kd_limit: limits that the
            model does not have, or has otherwise. By default effort is what the actuators make,
            velocity what that reaches within the range, gains what such steps can integrate.
        rate_hz: of control, host time; states come as often, and at least every 2 ms.
        max_rate_hz: what rate_hz may be at most.
        time_factor: seconds of the device per second of the host.
        timestep_s: of physics; by default the model's.
        watchdog_s: silence, host time, after which the device damps by itself.
        command_timeout_s: what the bridge is to use for its own.
        obstacles: part of the names of geoms that the robot must not touch; there is a sensor
            "contact" then, 1 if it did since the state read before.
        latency_s, sensor_latency_s: of commands and states, host time.
        noise_position, noise_velocity: standard deviations of what is measured.
        drop_rate: share of commands and of states that get lost.
        payload_kg, payload_body: a point mass in a body's center of mass.
        seed: of noise and losses.
        disturb: file with pushes, see devices/common.py.
        events: file to which the device appends what happens.
        address: socket of a device that runs already; by default `connect` starts one.
    """

    model: str = "maze.xml"
    joints: tuple[str, ...] = ()
    actuation: str = "model"
    keyframe: str = ""
    start: PerJoint | None = None
    kp: PerJoint | None = None
    kd: PerJoint | None = None
    damping: PerJoint | None = None
    ramp_s: float = 0.2
    rest: str = "damping"
    velocity: PerJoint | None = None
    acceleration: PerJoint | None = None
    jerk: PerJoint | None = None
    effort: PerJoint | None = None
    margin: PerJoint | None = None
    lead: PerJoint | None = None
    kp_limit: PerJoint | None = None
    kd_limit: PerJoint | None = None
    rate_hz: float = 500.0
    max_rate_hz: float = 1000.0
    time_factor: float = 1.0
    timestep_s: float | None = None
    watchdog_s: float = 0.2
    command_timeout_s: float = 0.1
    obstacles: str = ""
    latency_s: float = 0.0
    sensor_latency_s: float = 0.0
    noise_position: float = 0.0
    noise_velocity: float = 0.0
    drop_rate: float = 0.0
    payload_kg: float = 0.0
    payload_body: str = ""
    seed: int = 0
    disturb: str = ""
    events: str = ""
    address: str = ""

    def __post_init__(self) -> None:
        joints: object = self.joints
        if not isinstance(joints, list | tuple):
            raise DriverError(f"mujoco: joints is {joints!r}; it is a list of names")
        object.__setattr__(self, "joints", tuple(map(str, joints)))
        if self.actuation not in ACTUATIONS:
            raise DriverError(
                f"mujoco: actuation is {self.actuation!r}; it is one of {', '.join(ACTUATIONS)}"
            )
        if self.rest not in RESTS:
            raise DriverError(f"mujoco: rest is {self.rest!r}; it is one of {', '.join(RESTS)}")
        self._check_texts()
        self._check_numbers()
        if bool(self.payload_kg) != bool(self.payload_body):
            raise DriverError("mujoco: a payload takes both payload_kg and payload_body")

    def _check_texts(self) -> None:
        for each in fields(self):
            if each.type == "str" and not isinstance(getattr(self, each.name), str):
                raise DriverError(
                    f"mujoco: {each.name} is {getattr(self, each.name)!r}; it is a text"
                )
        if not self.model:
            raise DriverError("mujoco: model is empty; it is an MJCF file")

    def _check_numbers(self) -> None:
        for name in _PER_JOINT:
            given = getattr(self, name)
            for number in given.values() if isinstance(given, Mapping) else (given,):
                if number is not None and not _is_number(number):
                    raise DriverError(f"mujoco: {name} is {given!r}; it is a number, or by joint")
        above = (*_ABOVE_ZERO, *(("timestep_s",) if self.timestep_s is not None else ()))
        for name in (*above, *_NOT_BELOW_ZERO):
            number = getattr(self, name)
            least = "above 0" if name in above else "0 or more"
            good = _is_number(number) and isfinite(number) and number >= 0
            if not good or (name in above and not number):
                raise DriverError(f"mujoco: {name} is {number!r}; it is a number, {least}")
        if self.drop_rate >= 1:
            raise DriverError(f"mujoco: drop_rate is {self.drop_rate}; it is a share, below 1")
        if type(self.seed) is not int or self.seed < 0:
            raise DriverError(f"mujoco: seed is {self.seed!r}; it is a whole number, 0 or more")
        if self.rate_hz > self.max_rate_hz:
            raise DriverError(
                f"mujoco: rate_hz is {self.rate_hz}; it is at most max_rate_hz, {self.max_rate_hz}"
            )


def for_each(given: PerJoint | None, name: str, joints: Sequence[str], default: Vector) -> Vector:
    """An option's number for every joint.

    Raises:
        DriverError: it names a joint that there is not.
    """
    if given is None:
        return default
    if not isinstance(given, Mapping):
        return (float(given),) * len(joints)
    unknown = sorted(set(given) - set(joints))
    if unknown:
        raise DriverError(
            f"mujoco: {name} names {', '.join(unknown)}; the joints are {', '.join(joints)}"
        )
    return tuple(
        float(given.get(joint, usual)) for joint, usual in zip(joints, default, strict=True)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -inf <= value <= inf
