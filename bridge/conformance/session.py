"""A driver that is active, and the cycles of reading and writing that keep it so."""

from __future__ import annotations

from math import isfinite
from time import monotonic_ns, sleep
from typing import Any

from safetypilot.bridge.conformance.verdict import Failed
from safetypilot.bridge.contract import (
    Driver,
    DriverError,
    Measurement,
    Mode,
    Setpoint,
    Vector,
)

AMPLE_NS = 10**9  # for writes whose deadline is not what is looked at
_AT_REST, _SETTLING_NS = 0.05, 3 * 10**9  # rad/s or m/s
_PREFERRED = (Mode.POSITION, Mode.PD, Mode.VELOCITY, Mode.EFFORT)


class Session:
    """A driver between `activate` and `deactivate`.

    Attributes:
        hold: the setpoint that keeps it where it was at the start.
        last: the newest measurement.
        wrote_ns: when the last write began, CLOCK_MONOTONIC.
    """

    def __init__(self, driver: Driver, mode: Mode, start: Measurement) -> None:
        self.driver, self.mode, self.start, self.last = driver, mode, start, start
        self.hold = held(driver, mode, start.position)
        self.period_ns = round(1e9 / driver.description.rate_hz)
        self.wrote_ns = monotonic_ns()
        self._next_ns = self.wrote_ns + self.period_ns

    def cycle(self, count: int = 1, setpoint: Setpoint | None = None) -> Measurement:
        """Reads and writes at the declared rate; gives the newest measurement.

        Raises:
            Failed: the device complains of what it did not complain of before.
        """
        driver, hold = self.driver, setpoint or self.hold
        for _ in range(count):
            self.last = driver.read(self._next_ns)
            if self.last.faults != self.start.faults:
                raise Failed(f"active and commanded, the device says {self.last.faults!r}")
            self.wrote_ns = monotonic_ns()
            driver.write(hold, self.wrote_ns + AMPLE_NS)
            self._wait()
        return self.last

    def _wait(self) -> None:
        left_ns = self._next_ns - monotonic_ns()
        if left_ns > 0:
            sleep(left_ns / 1e9)
            self._next_ns += self.period_ns
        else:
            self._next_ns = monotonic_ns() + self.period_ns

    def cycles(self, seconds: float) -> int:
        """How many cycles take so long."""
        return max(1, round(seconds * 1e9 / self.period_ns))

    def moved(self) -> float:
        """The farthest that a joint is from where it was at the start, rad or m."""
        return farthest(self.last.position, self.start.position)


def make_ready(driver: Driver, calibration: dict[str, Any]) -> None:
    """Configures a connected driver; if its device is still stopped from before, it is reset.

    Raises:
        DriverError: that did not help.
    """
    try:
        driver.configure(calibration)
        if not driver.read(monotonic_ns() + 10**8).faults:
            return
    except DriverError:
        pass  # the same may work after a reset
    driver.reset()
    driver.configure(calibration)


def settle(driver: Driver) -> None:
    """Waits until the robot is at rest; not for ever, since some never are."""
    end_ns = monotonic_ns() + _SETTLING_NS
    while monotonic_ns() < end_ns:
        if max(map(abs, driver.read(monotonic_ns() + 10**7).velocity)) < _AT_REST:
            return


def preferred(driver: Driver) -> Mode:
    """The mode that holds best of those that a driver has."""
    return next(mode for mode in _PREFERRED if mode in driver.description.modes)


def held(driver: Driver, mode: Mode, position: Vector) -> Setpoint:
    """What keeps the joints there, as far as the mode can; gentle gains."""
    joints = driver.description.joints
    zeros = (0.0,) * len(joints)
    inside = tuple(
        min(max(its, joint.low), joint.high) for joint, its in zip(joints, position, strict=True)
    )
    kp = tuple(min(40.0, joint.kp) for joint in joints)
    kd = tuple(min(1.0, joint.kd) for joint in joints)
    return Setpoint(mode, inside, zeros, zeros, kp, kd)


def staying(driver: Driver) -> Setpoint:
    """What would do least if it were taken: to stay where the driver says that the joints are."""
    try:
        position = driver.read(monotonic_ns()).position
    except DriverError:  # of a driver that is not connected, for one
        position = (0.0,) * len(driver.description.joints)
    return held(driver, preferred(driver), position)


def farthest(here: Vector, there: Vector) -> float:
    """The largest difference of two positions; inf where a number of them is missing."""
    if len(here) != len(there) or not isfinite(sum(here)) or not isfinite(sum(there)):
        return float("inf")
    return max(abs(a - b) for a, b in zip(here, there, strict=True))
