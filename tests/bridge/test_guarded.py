"""A driver behind limiter and life cycle, for programs that are no graph."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import nan
from pathlib import Path
from typing import Any

import pytest

from safetypilot.bridge import guarded as module
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
from safetypilot.bridge.limits import Escalation

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
        self.errors: dict[str, BaseException] = {}  # call -> what it raises
        self.hangs = ""  # a call, until `free`
        self.free = threading.Event()
        self.hung = threading.Event()

    def _call(self, name: str) -> None:
        self.calls.append((name, threading.get_ident()))
        self._trouble(name)

    def _trouble(self, name: str) -> None:
        if name == self.hangs:
            self.hung.set()
            self.free.wait(PATIENCE_S)
        if name in self.errors:
            raise self.errors[name]

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
        self._trouble("read")
        self._seq += 1
        now_ns = self.silent_since_ns or time.monotonic_ns()
        still = (0.0,) * SIZE
        return Measurement(
            self._seq, now_ns, -1, self.position, still, still, {"load": (1.0,)},
            faults=self.faults,
        )  # fmt: skip

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        self._trouble("write")
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
        robot.driver.free.set()
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


@pytest.mark.parametrize("call", ["read", "write"])
@pytest.mark.parametrize("error", [OSError("unplugged"), IndexError("a bug"), SystemExit("exit")])
def test_whatever_ends_the_thread_stops_the_robot_and_the_program_hears_why(
    guarded: Any, call: str, error: BaseException
) -> None:
    robot, servo = guarded(Servo())
    robot.start()
    robot.command((0.3, 0.3))
    servo.errors[call] = error
    why = f"not active: {type(error).__name__}: {error}"
    for _ in range(2):
        with pytest.raises(DriverError, match=why):
            for _ in range(10):
                robot.command((0.3, 0.3))
    assert robot.life.state is State.FAULT and servo.stopped


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_program_that_cannot_be_told_is_not_left_waiting(guarded: Any) -> None:
    def told(transition: Transition) -> None:
        if transition.after is State.FAULT:
            raise OSError("the disk is full")

    robot, servo = guarded(Servo(), told=told)
    robot.start()
    servo.faults = ("too hot",)
    with pytest.raises(DriverError, match="too hot"):
        for _ in range(10):
            robot.command((0.3, 0.3))
    assert robot.life.state is State.FAULT and servo.stopped


def test_limits_that_cut_too_often_are_told_and_then_take_it_down(guarded: Any) -> None:
    told: list[Transition] = []
    slow = Servo(velocity=0.001)
    robot, servo = guarded(slow, escalation=Escalation(5, 10), told=told.append)
    robot.start()
    with pytest.raises(DriverError, match=r"limits: 5 of 10 .* again; start it once more"):
        for _ in range(50):
            robot.command((1.0, 1.0))
    assert [(t.after, t.cause) for t in told[3:]] == [
        (State.ACTIVE, "limits: 5 of 10 setpoints had to be cut"),
        (State.CONFIGURED, "limits: 5 of 10 setpoints had to be cut again"),
    ]
    written = len(servo.written)
    time.sleep(0.05)
    assert len(servo.written) == written and servo.made()[-1] == "deactivate"
    robot.start()
    assert robot.command(servo.position).position == servo.position


def test_a_robot_that_the_limits_cannot_take_down_is_stopped(guarded: Any) -> None:
    robot, servo = guarded(Servo(velocity=0.001), escalation=Escalation(5, 10))
    robot.start()
    servo.errors["deactivate"] = OSError("unplugged")
    with pytest.raises(DriverError, match="deactivate failed: OSError: unplugged"):
        for _ in range(50):
            robot.command((1.0, 1.0))
    assert robot.life.state is State.FAULT and servo.stopped


@pytest.mark.parametrize("call", ["read", "write", "deactivate"])
def test_while_a_call_does_not_return_the_robot_is_stopped_and_nobody_makes_another(
    guarded: Any, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.2)
    robot, servo = guarded(Servo(velocity=0.001), escalation=Escalation(5, 10))
    robot.start()
    servo.hangs = call
    while not servo.hung.is_set():
        with suppress(DriverError):
            robot.command((1.0, 1.0))
    with pytest.raises(DriverError, match="the driver hangs"):
        robot.command((1.0, 1.0))
    made, written = len(servo.calls), len(servo.written)
    for again in (robot.close, lambda: robot.reset("looked at it"), robot.start, robot.close):
        with pytest.raises(DriverError, match="does not return"):
            again()
    assert set(servo.made()[made:]) == {"estop"}
    assert robot.life.state is State.ESTOPPED and "hangs" in robot.failure
    servo.free.set()
    until(lambda: not robot._thread.is_alive())
    assert robot.life.state is State.ESTOPPED and len(servo.written) == written
    robot.close()
    assert servo.made()[-1] == "close"


def test_a_robot_that_does_not_know_where_it_is_is_not_started(guarded: Any) -> None:
    robot, servo = guarded(Servo())
    servo.position = (nan, 0.0)
    with pytest.raises(DriverError, match="cannot be limited"):
        robot.start()
    assert robot.life.state is State.FAULT and servo.stopped


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
