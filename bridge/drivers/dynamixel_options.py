"""What the Dynamixel driver is told, what it declares from that, and its units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf, isinf, pi
from typing import Any

from safetypilot.bridge.contract import Description, DriverError, Failsafe, Joint, Mode
from safetypilot.bridge.drivers.vetting import joints, number
from safetypilot.bridge.protocols import dynamixel_table as table
from safetypilot.bridge.protocols.dynamixel_table import MODELS, RADIANS, Model

NAME = "dynamixel"
CALIBRATION = ("ids", "homing_offset", "drive_mode", "range_min", "range_max")
FAILSAFES = ("hold", "torque off")
SIMULATED = "simulated"
STATE = 132 + 4 - 124  # bytes: PWM, current, velocity and position
_ARM = {
    "shoulder": {"id": 1, "low": -2.0, "high": 2.0, "margin": 0.02, "lead": 0.5},
    "elbow": {"id": 2, "low": -2.4, "high": 2.4, "margin": 0.02, "lead": 0.5},
}
_STILL_S = 1.0  # in which a motor stands, or does not
_BITS_PER_BYTE = 10
_BUSY = 0.8  # of the time the bus may be
_USABLE = 0.97  # of the no-load speed: within the velocity_limit that motors are delivered with


@dataclass(frozen=True)
class DynamixelOptions:
    """A chain of X series motors, as `driver=dynamixel` takes it; by default the simulated arm's.

    Attributes:
        port: of the serial adapter; "simulated" starts a simulated arm.
        baud: that the motors are set to.
        joints: name -> its motor's `id`, `model` if it is another, and its limits (low, high,
            velocity, ...), in SI units. What is not given is what the motor can do.
        model: of the motors.
        serial: a name for this robot, which no register has; by default made of ids, models and
            homing offsets.
        rate_hz: at which the arm is to be read and written.
        command_timeout_s: for the bridge.
        watchdog_s: silence after which the motors stop by themselves.
        answer_s: after so long an answer counts as lost.
        ramp_s: in which torque comes when the arm is activated, and motion ends when it is
            deactivated.
        failsafe: what an e-stop does and what `deactivate` leaves: "hold", or "torque off" for a
            robot that cannot fall.
        effort: offer the mode EFFORT. In it nothing holds: e-stop and watchdog let the arm go limp.
        extended: several turns (mode 4) instead of one (mode 3).
        simulated: the port is that of a simulated chain, which needs no calibration.
        device: further words for the simulated arm that is started, as on its command line.
    """

    port: str = SIMULATED
    baud: int = 1_000_000
    joints: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: _ARM)
    model: str = "xm430-w350"
    serial: str = ""
    rate_hz: float = 50.0
    command_timeout_s: float = 0.1
    watchdog_s: float = 0.2
    answer_s: float = 0.02
    ramp_s: float = 0.3
    failsafe: str = "hold"
    effort: bool = False
    extended: bool = False
    simulated: bool = False
    device: str = ""

    def __post_init__(self) -> None:
        for name in ("rate_hz", "command_timeout_s", "watchdog_s", "answer_s", "ramp_s"):
            number(NAME, name, getattr(self, name))
        if self.baud not in table.BAUD_RATES:
            raise DriverError(f"{NAME}: baud is {self.baud}; it is one of {table.BAUD_RATES}")
        if self.failsafe not in FAILSAFES:
            raise DriverError(
                f"{NAME}: failsafe is {self.failsafe!r}; it is {' or '.join(FAILSAFES)}"
            )
        if not 2 <= self.watchdog_s / table.WATCHDOG_UNIT_S <= 128:
            raise DriverError(f"{NAME}: watchdog_s is {self.watchdog_s}; it is from 0.04 to 2.56")


@dataclass(frozen=True, slots=True)
class Servo:
    """The motor of a joint.

    Attributes:
        number: its id.
    """

    joint: Joint
    number: int
    model: Model

    def position(self, ticks: int) -> float:
        return (ticks - table.CENTRE) * RADIANS

    def goal_position(self, angle: float) -> int:
        return round(angle / RADIANS) + table.CENTRE


def servos(options: DynamixelOptions) -> tuple[Servo, ...]:
    """The motors, in the order of the joints.

    Raises:
        DriverError: a joint's motor is missing, unknown or another's too.
    """
    made: list[Servo] = []
    for joint in joints(NAME, options.joints, frozenset(("id", "model"))):
        given = options.joints[joint.name]
        motor, name = given.get("id"), given.get("model", options.model)
        if not isinstance(motor, int) or isinstance(motor, bool) or not 0 <= motor <= 252:
            raise DriverError(f"{NAME}: the id of joint {joint.name!r} is {motor!r}; 0 to 252")
        if name not in MODELS:
            raise DriverError(f"{NAME}: model {name!r} is not known; it is one of {list(MODELS)}")
        if any(servo.number == motor for servo in made):
            raise DriverError(f"{NAME}: two joints have the motor {motor}")
        made.append(Servo(_completed(joint, MODELS[name], options.extended), motor, MODELS[name]))
    return tuple(made)


def _completed(joint: Joint, model: Model, extended: bool) -> Joint:
    """With the motor's own limits where it has none."""
    turn = inf if extended else pi * (1 - 2 / table.TICKS)
    return replace(
        joint,
        low=-turn if isinf(joint.low) else joint.low,
        high=turn if isinf(joint.high) else joint.high,
        velocity=min(joint.velocity, _USABLE * model.no_load_speed),
        effort=min(joint.effort, model.stall_torque),
    )


def bus_time_s(size: int, motors: int, baud: int) -> float:
    """How long the wire needs for one sync read of so many bytes, and its answers."""
    return (14 + motors * (12 + size)) * _BITS_PER_BYTE / baud


def watchdog_ticks(options: DynamixelOptions) -> int:
    """What bus_watchdog is set to: one unit less, so that its grid never makes it later."""
    return round(options.watchdog_s / table.WATCHDOG_UNIT_S) - 1


def describe(options: DynamixelOptions, motors: tuple[Servo, ...]) -> Description:
    """What the driver declares."""
    modes = [Mode.POSITION, Mode.VELOCITY]
    if options.effort:
        if not all(servo.model.current for servo in motors):
            raise DriverError(f"{NAME}: effort is asked for, but not every motor controls current")
        modes.append(Mode.EFFORT)
    write_s = (14 + 5 * len(motors)) * _BITS_PER_BYTE / options.baud
    cycle_s = bus_time_s(STATE, len(motors), options.baud) + write_s
    simulated = options.simulated or options.port == SIMULATED
    own = (Failsafe.HOLD,)  # what the watchdog of the motors does
    try:
        return Description(
            NAME,
            tuple(servo.joint for servo in motors),
            tuple(modes),
            options.rate_hz,
            max_rate_hz=_BUSY / cycle_s,
            command_timeout_s=options.command_timeout_s,
            failsafes=own if options.failsafe == "hold" else (*own, Failsafe.TORQUE_OFF),
            watchdog_s=options.watchdog_s,
            down_s=options.ramp_s + _STILL_S * (1 + len(motors)),
            sensors={"voltage": "V", "temperature": "degC"},
            calibration=() if simulated else CALIBRATION,
            simulated=simulated,
        )
    except ValueError as error:
        raise DriverError(str(error)) from None
