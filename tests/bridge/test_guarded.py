"""A driver behind limiter and life cycle, for programs that are no graph."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from math import nan
from pathlib import Path
from typing import Any

import pytest

from safetypilot.bridge.calibration import Calibration
from safetypilot.bridge.contract import (
    Description,
    DriverError,
    Failsafe,
    Joint,
    Measurement,
    Mode,
    Setpoint,
)
from safetypilot.bridge.guarded import Guarded
from safetypilot.bridge.lifecycle import State, Transition

PATIENCE_S = 20.0
SIZE = 2


class Servo:
    """A perfect device: it is where it was sent last."""

    def __init__(self, mode: Mode = Mode.POSITION, **limits: float) -> None:
        joints = tuple(Joint(name, -1.0, 1.0, **limits) for name in ("a", "b"))
        self.description = Description(
            "servo", joints, (mode,), 200.0, 400.0, 0.15, (Failsafe.HOLD,), sensors={"load": "N"}
        )
        self.counters: dict[str, int] = {}
        self.calls: list[tuple[str, int]] = []
        self.written: list[Setpoint] = []
        self.position = (0.2, -0.2)
        self.faults: tuple[str, ...] = ()
        self.silent_since_ns = 0
        self.stopped, self._seq = "", 0

    def _call(self, name: str) -> None:
        self.calls.append((name, threading.get_ident()))

    def connect(self) -> dict[str, str]:
        self._call("connect")
        return {"model": "servo", "serial": "7", "firmware": "1"}

    def configure(self, calibration: dict[str, Any]) -> dict[str, Any]:
        self._call("configure")
        return calibration

    def check_watchdog(self) -> str:
        self._call("check_watchdog")
        return ""

    def activate(self, mode: Mode) -> Measurement:
        self._call("activate")
        return self.read(0)

    def read(self, deadline_ns: int) -> Measurement:
        self._seq += 1
        now_ns = self.silent_since_ns or time.monotonic_ns()
        still = (0.0,) * SIZE
        return Measurement(
            self._seq, now_ns, -1, self.position, still, still, {"load": (1.0,)},
            faults=self.faults,
        )  # fmt: skip

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        if self.stopped:
            raise DriverError(f"stopped: {self.stopped}")
        self.written.append(setpoint)
        if setpoint.mode in (Mode.POSITION, Mode.PD):
            self.position = (setpoint.position[0], setpoint.position[1])

    def deactivate(self) -> None:
        self._call("deactivate")

    def estop(self, reason: str) -> None:
        self.calls.append(("estop", threading.get_ident()))
        self.stopped = reason

    def reset(self) -> None:
        self.stopped = ""

    def close(self) -> None:
        self._call("close")

    def made(self) -> list[str]:
        return [name for name, _ in self.calls]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Callable[..., tuple[Guarded, Servo]]]:
    opened = []

    def make(servo: Servo, **options: Any) -> tuple[Guarded, Servo]:
        robot = Guarded(servo, servo.description.modes[0], tmp_path / "latch", **options)
        opened.append(robot)
        return robot, servo

    yield make
    for robot in opened:
        robot.close()


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def test_it_goes_through_the_whole_life_and_tells_of_it(guarded: Any) -> None:
    told: list[Transition] = []
    robot, servo = guarded(Servo(), told=told.append)
    assert servo.made() == []
    robot.start()
    robot.close()
    assert servo.made() == [
        "connect", "configure", "check_watchdog", "activate", "deactivate", "close",
    ]  # fmt: skip
    assert [t.after for t in told] == [
        State.CONNECTED, State.CONFIGURED, State.ACTIVE, State.CONFIGURED, State.DISCONNECTED,
    ]  # fmt: skip


def test_a_command_returns_what_was_really_sent(guarded: Any) -> None:
    robot, servo = guarded(Servo(velocity=1.0))
    robot.start()
    sent = robot.command((5.0, -0.2))
    assert sent in servo.written
    assert 0.2 < sent.position[0] <= 0.2 + 2 * 0.005 + 1e-9  # two periods' worth of 1 rad/s
    until(lambda: robot.command((5.0, -0.2)).position[0] == 1.0)  # and never beyond the limit
    assert robot.cuts["position"] > 0
    assert max(setpoint.position[0] for setpoint in servo.written) == 1.0


def test_what_is_not_finite_or_no_vector_is_refused_and_it_stands(guarded: Any) -> None:
    robot, _ = guarded(Servo())
    robot.start()
    robot.command((0.5, 0.5))
    for bad in ((nan, 0.0), (0.1,), ()):
        assert robot.command(bad).position == (0.5, 0.5)
    assert robot.cuts["not_finite"] and robot.cuts["wrong_length"]
    assert robot.command((0.4, 0.4)).position == (0.4, 0.4)


@pytest.mark.parametrize("mode", list(Mode))
def test_between_commands_the_device_is_fed_and_after_a_while_the_robot_stands(
    guarded: Any, mode: Mode
) -> None:
    robot, servo = guarded(Servo(mode, velocity=2.0, effort=9.0), gains=(8.0, 1.0), ramp_s=0.05)
    robot.start()
    started = time.monotonic_ns()
    count = len(servo.written)
    robot.command((0.5, 0.5))
    until(lambda: len(servo.written) > count + 100)  # far beyond the command timeout
    assert time.monotonic_ns() - started > 0.15e9
    last = servo.written[-1]
    if mode in (Mode.POSITION, Mode.PD):
        assert last.position == servo.written[-2].position
        assert 0.2 < last.position[0] <= 0.5  # as far as it came until then
    else:
        assert getattr(last, mode) == (0.0, 0.0)
        assert max(getattr(s, mode)[0] for s in servo.written) > 0.0
    if mode is Mode.PD:
        gains = [setpoint.kp[0] for setpoint in servo.written]
        assert gains[0] < 1.0 and gains[-1] == 8.0 and gains == sorted(gains)


def test_one_thread_at_a_time_calls_the_driver(guarded: Any) -> None:
    robot, servo = guarded(Servo())
    robot.start()
    robot.command((0.3, 0.3))
    robot.close()
    assert {thread for _, thread in servo.calls} == {threading.get_ident()}


@pytest.mark.parametrize("how", ["a fault", "silence", "refusal"])
def test_whatever_is_wrong_with_the_device_stops_it_and_the_program_hears_why(
    guarded: Any, how: str
) -> None:
    robot, servo = guarded(Servo())
    robot.start()
    if how == "a fault":
        servo.faults = ("too hot",)
    elif how == "silence":
        servo.silent_since_ns = time.monotonic_ns() - 10**9
    else:
        servo.stopped = "by somebody else"
    with pytest.raises(DriverError, match=r"too hot|silent|somebody else"):
        for _ in range(10):
            robot.command((0.3, 0.3))
    assert robot.life.state is State.FAULT and "estop" in servo.made()
    with pytest.raises(DriverError, match=r"too hot|silent|somebody else"):
        robot.command((0.3, 0.3))


def test_an_estop_is_latched_beyond_the_object(guarded: Any) -> None:
    robot, servo = guarded(Servo())
    robot.start()
    robot.estop("hand")
    with pytest.raises(DriverError, match="hand"):
        for _ in range(10):
            robot.command((0.3, 0.3))
    assert robot.life.state is State.ESTOPPED and servo.stopped == "hand"
    robot.close()
    again, _ = guarded(Servo())
    with pytest.raises(DriverError, match="e-stopped"):
        again.start()
    with pytest.raises(DriverError, match="reason"):
        again.reset(" ")
    again.reset("looked at it")
    again.start()
    assert again.command((0.3, 0.3)).position == (0.3, 0.3)


def test_an_estop_before_and_between(guarded: Any) -> None:
    robot, _ = guarded(Servo())
    robot.estop("before it is connected")
    assert robot.life.state is State.ESTOPPED
    robot.reset("looked at it")
    robot.start()
    robot.estop("hand")
    until(lambda: robot.life.state is State.ESTOPPED)
    robot.reset("looked at it")
    assert robot.life.state is State.CONNECTED
    robot.start()
    assert robot.command((0.3, 0.3)).position == (0.3, 0.3)


def test_not_started_closed_or_of_another_device(guarded: Any) -> None:
    robot, servo = guarded(Servo())
    with pytest.raises(DriverError, match="connect"):
        _ = robot.measured
    with pytest.raises(DriverError, match="start"):
        robot.command((0.0, 0.0))
    with pytest.raises(DriverError, match="belongs to"):
        robot.start(Calibration({"serial": "8"}))
    assert "activate" not in servo.made()
    robot.start(Calibration({"serial": "7"}))
    assert robot.measured.sensors == {"load": (1.0,)}
    robot.close()
    robot.close()
    with pytest.raises(DriverError):
        robot.command((0.0, 0.0))
