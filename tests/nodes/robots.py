"""A robot in memory: two slides that go where they are told, and do what a test asks of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from safetypilot.bridge.contract import (
    Description,
    DriverError,
    Failsafe,
    Joint,
    Measurement,
    Mode,
    Setpoint,
    Vector,
)


@dataclass(frozen=True)
class Options:
    """`watchdog`: whether it acts when it is tried."""

    watchdog: bool = True
    simulated: bool = True
    time_factor: float = 50.0
    calibration: bool = False


class Robot:
    """The driver and the device in one; the last one that was made is `made[-1]`."""

    Options = Options
    made: ClassVar[list[Robot]] = []

    def __init__(self, options: Options) -> None:
        slides = [Joint(name, -0.3, 0.3, velocity=0.2, unit="m") for name in ("slide_y", "slide_x")]
        self.description = Description(
            "robot", tuple(slides), (Mode.POSITION,), 50, 100, 0.2, (Failsafe.HOLD,), 0.1,
            calibration=("zero",) if options.calibration else (), simulated=options.simulated,
            time_factor=options.time_factor,
        )  # fmt: skip
        self.counters: dict[str, int] = {}
        self._options = options
        self.position: Vector = (0.1, -0.2)  # y, x
        self.calls: list[str] = []
        self.sent: list[Setpoint] = []
        self.seq = 0
        self.silent = self.stopped = False
        self.broken: set[str] = set()
        self.error: Exception | None = None  # what a broken call raises; else a DriverError
        self.faults: tuple[str, ...] = ()
        self.takes: Callable[[], None] = lambda: None  # what is slow, its time
        Robot.made.append(self)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name != "write":
            self.takes()
        if name in self.broken:
            raise self.error or DriverError(f"{name} is broken")

    def connect(self) -> dict[str, str]:
        self._call("connect")
        return {"model": "robot", "serial": "7", "firmware": "1"}

    def configure(self, calibration: dict[str, Any]) -> dict[str, Any]:
        self._call("configure")
        return calibration

    def check_watchdog(self) -> str:
        self._call("check_watchdog")
        if not self._options.watchdog:
            raise DriverError("the watchdog slept")
        return "it bit after 0.1 s"

    def activate(self, mode: Mode) -> Measurement:
        self._call("activate")
        return self._state(True)

    def read(self, deadline_ns: int) -> Measurement:
        if "read" in self.broken:
            raise self.error or DriverError("the cable is cut")
        return self._state(not self.silent)

    def _state(self, fresh: bool) -> Measurement:
        self.seq += fresh
        still = (0.0, 0.0)
        return Measurement(self.seq, 0, -1, self.position, still, still, {}, fresh, self.faults)

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        if self.stopped:
            raise DriverError("stopped")
        self._call("write")
        self.sent.append(setpoint)
        self.position = setpoint.position

    def deactivate(self) -> None:
        self._call("deactivate")

    def estop(self, reason: str) -> None:
        self.calls.append(f"estop: {reason}")
        self.stopped = True

    def reset(self) -> None:
        self._call("reset")
        self.stopped = False

    def close(self) -> None:
        self.calls.append("close")

    def place(self, position: Vector) -> None:
        self._call("place")
        self.position = position
