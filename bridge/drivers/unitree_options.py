"""What the Unitree driver is told, and what it declares."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from math import isfinite

from safetypilot.bridge.contract import Description, DriverError, Failsafe, Mode
from safetypilot.bridge.drivers.child import END_AFTER_S
from safetypilot.bridge.protocols.unitree import GO
from safetypilot.bridge.protocols.unitree_robots import ROBOTS

REST_S = 8.0  # for coming to rest, damped
_SPARE_S = 1.0  # of `deactivate`, for the rest of it
_SIMULATED_WATCHDOG_S = 0.05
_MAX_RATE_HZ = 1000.0  # the vendor's note: 1 to 10 ms between commands


@dataclass(frozen=True, slots=True)
class UnitreeOptions:
    """Which robot, where.

    Attributes:
        robot: go2 or g1.
        domain: of DDS; robots are on 0, simulators on 1.
        interface: the network interface it is wired to; "lo": a simulator on this host.
        rate_hz: of its states, and of commands, by its own clock.
        watchdog_s: silence after which it damps by itself, 0: never; by default 0.05 on loopback,
            where our simulated quadruped is, and never elsewhere.
        command_timeout_s: what the bridge is to use for its own.
        ramp_s: of `deactivate`, from what was commanded to damping.
        rest: what `deactivate` leaves: "damping" or "off".
        connect_s: for so long, it may not answer.
        device: on loopback, options of a simulated quadruped that `connect` is to start; "": it
            starts with its defaults; none: somebody has started one.
        time_factor: seconds of a simulated robot per second of the host.
    """

    robot: str = "go2"
    domain: int = 1
    interface: str = "lo"
    rate_hz: float = 500.0
    watchdog_s: float | None = None
    command_timeout_s: float = 0.1
    ramp_s: float = 1.0
    rest: str = "damping"
    connect_s: float = 5.0
    time_factor: float = 1.0
    device: str | None = None

    def __post_init__(self) -> None:
        if self.robot not in ROBOTS:
            raise DriverError(f"unitree: robot is {self.robot!r}; it is one of {', '.join(ROBOTS)}")
        if self.rest not in ("damping", "off"):
            raise DriverError(f"unitree: rest is {self.rest!r}; it is damping or off")
        if type(self.domain) is not int:
            raise DriverError(f"unitree: domain is {self.domain!r}; it is a whole number")
        if self.device is not None and not self.simulated:
            raise DriverError("unitree: a simulated device is only started on interface lo")
        for name in ("rate_hz", "watchdog_s", "ramp_s", "connect_s", "time_factor"):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value >= 0):
                raise DriverError(f"unitree: {name} is {value!r}; it is a number, 0 or more")

    @property
    def simulated(self) -> bool:
        return self.interface == "lo"


def describe(options: UnitreeOptions) -> Description:
    """What such a robot is; known without it."""
    robot = ROBOTS[options.robot]
    watchdog_s = options.watchdog_s
    if watchdog_s is None and options.simulated:
        watchdog_s = _SIMULATED_WATCHDOG_S
    sensors = {
        "orientation": "1",  # quaternion w, x, y, z
        "gyroscope": "rad/s",
        "accelerometer": "m/s^2",
        "rpy": "rad",
        "remote": "1",  # sticks from -1 to 1: left x, y, right x, y
        "buttons": "1",  # 0 or 1, in the order of protocols/unitree.py: BUTTONS
    }
    if robot.family is GO:
        sensors["foot_force"] = "1"  # as it comes, of FR, FL, RR, RL
    return Description(
        name=f"unitree {robot.name}",
        joints=robot.joints,
        modes=(Mode.PD, Mode.EFFORT),
        rate_hz=options.rate_hz * options.time_factor,
        max_rate_hz=max(_MAX_RATE_HZ, options.rate_hz) * options.time_factor,
        command_timeout_s=options.command_timeout_s,
        failsafes=(Failsafe.DAMPING, Failsafe.TORQUE_OFF),
        watchdog_s=watchdog_s or None,
        down_s=options.ramp_s + REST_S + _SPARE_S,
        sensors=sensors,
        time_factor=options.time_factor,
        simulated=options.simulated,
    )


def device_arguments(options: UnitreeOptions) -> list[str]:
    """The command line of a simulated robot that is as the options say."""
    told = {
        "--domain": options.domain,
        "--end-after": END_AFTER_S,
        "--time-factor": options.time_factor,
        "--rate": options.rate_hz,
    }
    if options.watchdog_s:
        told["--timeout"] = options.watchdog_s
    words = [word for name, value in told.items() for word in (name, str(value))]
    return [*words, *shlex.split(options.device or "")]
