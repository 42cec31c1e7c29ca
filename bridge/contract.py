"""What a driver is to the bridge, and the words that drivers, limiter and bridge share.

A driver is to hardware what an environment is to simulation. What it declares can be read while
nothing is connected. Everything here is in SI units (rad, m, N.m, N, s), joints are in the driver's
order, and who maps them does so by name; conversion happens inside the driver and nowhere else.

Numbers of the joints are tuples: nobody can change one that another is sending, and for a dozen
numbers Python is faster than NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import inf, isfinite, isnan
from typing import Any, NamedTuple, Protocol

Vector = tuple[float, ...]  # one number per joint


class DriverError(Exception):
    """The device or the way to it failed, or was asked for what it cannot; says what to do."""


class Mode(StrEnum):
    """What the numbers of a setpoint mean to the joints."""

    POSITION = "position"
    VELOCITY = "velocity"
    EFFORT = "effort"
    PD = "pd"  # effort + kp * (position - measured) + kd * (velocity - measured), in the device


class Failsafe(StrEnum):
    """What a device can do when nobody may command it."""

    HOLD = "hold"
    DAMPING = "damping"
    TORQUE_OFF = "torque off"
    POWER_CUT = "power cut"


@dataclass(frozen=True, slots=True)
class Joint:
    """One joint and what may be asked of it; inf: no limit.

    Attributes:
        low, high: position; -inf and inf for a joint that turns without end.
        margin: so far inside of them commands end already.
        velocity, acceleration, jerk, effort: largest magnitudes.
        lead: how far a commanded position may be ahead of the measured one.
        kp, kd: largest gains.
        unit: "rad" or "m".
    """

    name: str
    low: float = -inf
    high: float = inf
    velocity: float = inf
    effort: float = inf
    acceleration: float = inf
    jerk: float = inf
    margin: float = 0.0
    lead: float = inf
    kp: float = inf
    kd: float = inf
    unit: str = "rad"

    def __post_init__(self) -> None:
        if isnan(self.low) or isnan(self.high) or not self.low < self.high:
            raise ValueError(f"joint {self.name!r}: low {self.low} is not below high {self.high}")
        for name in ("velocity", "acceleration", "jerk", "lead"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"joint {self.name!r}: {name} is {getattr(self, name)}, not above 0"
                )
        for name in ("effort", "kp", "kd", "margin"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"joint {self.name!r}: {name} is {getattr(self, name)}, below 0")
        if not isfinite(self.margin) or not 2 * self.margin < self.high - self.low:
            raise ValueError(f"joint {self.name!r}: a margin of {self.margin} leaves no room")
        if self.unit not in ("rad", "m"):
            raise ValueError(f"joint {self.name!r}: unit is {self.unit!r}; it is rad or m")


@dataclass(frozen=True, slots=True)
class Description:
    """What a driver declares; can be read while nothing is connected.

    Attributes:
        rate_hz: at which it is to be read and written.
        max_rate_hz: more the device does not take.
        sensors: name -> unit, of what is measured beside the joints.
        command_timeout_s: after so long without a command the bridge itself acts.
        watchdog_s: after so long the device does; None: it has no watchdog of its own.
        failsafes: what it can do without commands, the gentlest first.
        down_s: the longest that `deactivate` takes; a process that takes longer is ended.
        calibration: which fields a calibration file has to have; empty: it needs none.
        time_factor: seconds of the device per second of the host; a simulated one may be faster.
        simulated: nothing real can be hurt, so it need not be armed by hand.
    """

    name: str
    joints: tuple[Joint, ...]
    modes: tuple[Mode, ...]
    rate_hz: float
    max_rate_hz: float
    command_timeout_s: float
    failsafes: tuple[Failsafe, ...]
    watchdog_s: float | None = None
    down_s: float = 10.0
    sensors: dict[str, str] = field(default_factory=dict)
    calibration: tuple[str, ...] = ()
    time_factor: float = 1.0
    simulated: bool = False

    def __post_init__(self) -> None:
        names = [joint.name for joint in self.joints]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{self.name}: joints need names of their own, got {names}")
        if not self.modes or not self.failsafes:
            raise ValueError(f"{self.name}: a driver has at least one mode and one failsafe")
        if not 0 < self.rate_hz <= self.max_rate_hz:
            raise ValueError(
                f"{self.name}: rate_hz is {self.rate_hz}; above 0, at most {self.max_rate_hz}"
            )
        for name in ("command_timeout_s", "watchdog_s", "down_s", "time_factor"):
            value = getattr(self, name)
            if value is not None and not 0 < value < inf:
                raise ValueError(f"{self.name}: {name} is {value}; it is above 0 and finite")

    def index(self, name: str) -> int:
        """Where a joint is in every array.

        Raises:
            DriverError: there is no such joint.
        """
        names = [joint.name for joint in self.joints]
        if name not in names:
            raise DriverError(f"{self.name} has no joint {name!r}; it has {', '.join(names)}")
        return names.index(name)


class Setpoint(NamedTuple):
    """What the joints are to do; a mode ignores the numbers that it does not name."""

    mode: Mode
    position: Vector = ()
    velocity: Vector = ()
    effort: Vector = ()
    kp: Vector = ()
    kd: Vector = ()


class Measurement(NamedTuple):
    """What the device says of itself.

    Attributes:
        seq: of the device's own messages; a gap is a loss.
        received_ns: when it came, host time.
        device_ns: the device's own time; -1: it has none.
        fresh: False: there was nothing new, and this is what came before.
        faults: what the device complains of, in words; empty: nothing.
    """

    seq: int
    received_ns: int
    device_ns: int
    position: Vector
    velocity: Vector
    effort: Vector
    sensors: dict[str, Vector]
    fresh: bool = True
    faults: tuple[str, ...] = ()


class Driver(Protocol):
    """The calls of a driver; DESIGN 8 says what each must and must not do.

    All calls but `estop` come from one thread. Every failure is a DriverError.

    A class may say with `ADDRESS` which of its options tell one device from another; by it an
    e-stop is found again after the run (latch.py). Without it all of them do.

    Attributes:
        description: can be read before `connect`.
        counters: what went wrong on the way to the device and back, by kind; zeroed by `configure`.
    """

    description: Description
    counters: dict[str, int]

    def connect(self) -> dict[str, str]:
        """Opens the way and identifies the device: serial, model, firmware. Moves nothing."""

    def configure(self, calibration: dict[str, Any]) -> dict[str, Any]:
        """Writes what stays, clears counters; returns what is in effect. Enables no torque."""

    def check_watchdog(self) -> str:
        """Provokes the device's own watchdog, configured and without torque; what was seen.

        Empty where the device has none or cannot stand it. Raises DriverError if it did not act.
        """

    def activate(self, mode: Mode) -> Measurement:
        """Arms the device's watchdog and holds where it is, without a step."""

    def read(self, deadline_ns: int) -> Measurement:
        """The newest state by then; never a stale copy as a new one."""

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        """Sends what has passed the limiter."""

    def deactivate(self) -> None:
        """Down to damping or holding, over time, and verified; drops nothing unless told to."""

    def estop(self, reason: str) -> None:
        """The strongest failsafe at once: from any state, thread or signal, as often as called.

        It waits for nothing that another call may hold, and until `reset` no `write` gets through.
        """

    def reset(self) -> None:
        """Clears the device's fault, if it is healthy; raises DriverError if not."""

    def close(self) -> None:
        """Ends everything, also half-way; raises nothing."""


class Placeable(Protocol):
    """A simulated device, which can be put somewhere without moving there."""

    def place(self, position: Vector) -> None:
        """At rest at that position, whatever the state; raises DriverError."""
