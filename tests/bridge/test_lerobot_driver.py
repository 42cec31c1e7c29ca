"""A robot with LeRobot's calls as a driver: units, one thread, and what it cannot promise."""

from __future__ import annotations

import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf, nan, pi, radians
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetypilot.bridge.contract import DriverError, Failsafe, Measurement, Mode, Setpoint
from safetypilot.bridge.drivers.lerobot import LerobotDriver, LerobotOptions
from safetypilot.bridge.drivers.lerobot_features import ends_of, row_of

PATIENCE_S = 20.0
LATER = 1 << 62


@dataclass
class DuckConfig:
    """As LeRobot's: one dataclass per robot."""

    id: str = "blue"
    port: str = "/dev/null"
    disable_torque_on_disconnect: bool = True


class Duck:
    """LeRobot's calls, and two servos that go where they are told within a call.

    shoulder.pos is in degrees, gripper.pos from 0 to 100.
    """

    config_class = DuckConfig
    name = "duck"
    made: ClassVar[list[Duck]] = []

    def __init__(self, config: DuckConfig) -> None:
        self.config, self.id = config, config.id
        self.at = {"shoulder.pos": 10.0, "gripper.pos": 50.0}
        self.is_connected, self.is_calibrated = False, True
        self.calls: list[tuple[str, int, Any]] = []
        self.answers: dict[str, Callable[[], Any]] = {}  # in place of what it would do
        self.clip = inf
        Duck.made.append(self)

    @property
    def observation_features(self) -> dict[str, Any]:
        return {**dict.fromkeys(self.at, float), "shoulder.vel": float, "camera": (4, 4, 3)}

    @property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(self.at, float)

    def _call(self, name: str, given: Any = None) -> Any:
        self.calls.append((name, threading.get_ident(), given))
        return self.answers[name]() if name in self.answers else None

    def connect(self, calibrate: bool = True) -> None:
        self._call("connect", calibrate)
        self.is_connected = True

    def get_observation(self) -> dict[str, Any]:
        answer = self._call("observe")
        return answer if answer is not None else {**self.at, "shoulder.vel": 90.0, "camera": b""}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        answer = self._call("act", dict(action))
        if answer is not None:
            return answer
        sent = {k: min(max(v, self.at[k] - self.clip), self.at[k] + self.clip)
                for k, v in action.items()}  # fmt: skip
        self.at.update(sent)
        return sent

    def disconnect(self) -> None:
        self._call("disconnect")
        self.is_connected = False

    def done(self, name: str) -> list[Any]:
        return [given for call, _, given in self.calls if call == name]


JOINTS: dict[str, Any] = {
    "shoulder": {
        "feature_unit": "deg",
        "velocity_feature": "shoulder.vel",
        "low": -2.0,
        "high": 2.0,
    },
    "gripper": {"feature_unit": "percent", "low": 0.0, "high": 1.5},
}
RANGES = {"ranges": {"gripper": [0.0, 1.5]}}


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    made = types.ModuleType("duck_pond")
    made.Duck, made.number = Duck, 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "duck_pond", made)


@pytest.fixture
def opened() -> Iterator[Callable[..., LerobotDriver]]:
    drivers = []

    def make(**options: Any) -> LerobotDriver:
        given = {"robot": "duck_pond:Duck", "joints": JOINTS, "rate_hz": 200.0, **options}
        drivers.append(LerobotDriver(LerobotOptions(**given)))
        return drivers[-1]

    yield make
    for driver in drivers:
        driver.close()


@pytest.fixture
def active(opened: Callable[..., LerobotDriver]) -> tuple[LerobotDriver, Duck]:
    driver = opened()
    driver.connect()
    driver.configure(RANGES)
    driver.activate(Mode.POSITION)
    return driver, Duck.made[-1]


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def soon() -> int:
    return time.monotonic_ns() + round(PATIENCE_S * 1e9)


def fresh(driver: LerobotDriver) -> Measurement:
    while not (measured := driver.read(soon())).fresh:
        pass
    return measured


def test_what_it_declares_needs_neither_robot_nor_lerobot(opened: Callable[..., Any]) -> None:
    before = len(Duck.made)
    description = opened(robot="so101_follower").description
    assert [joint.name for joint in description.joints] == ["shoulder", "gripper"]
    assert description.joints[1].high == 1.5
    assert description.watchdog_s is None and description.failsafes == (Failsafe.HOLD,)
    assert description.calibration == ("ranges",)
    assert opened(joints={"a": {}}).description.calibration == ()
    assert opened(estop="disconnect").description.failsafes[-1] is Failsafe.TORQUE_OFF
    assert len(Duck.made) == before


def test_units_become_si_and_back(active: tuple[LerobotDriver, Duck]) -> None:
    driver, duck = active
    measured = fresh(driver)
    assert measured.position == pytest.approx((radians(10.0), 0.75))
    assert measured.velocity[0] == pytest.approx(pi / 2)  # its own 90 deg/s
    assert measured.device_ns == -1 and measured.sensors == {} and measured.effort == (0.0, 0.0)
    driver.write(Setpoint(Mode.POSITION, (radians(20.0), 0.3)), LATER)
    until(lambda: duck.at["shoulder.pos"] == pytest.approx(20.0))
    assert duck.at["gripper.pos"] == pytest.approx(20.0)
    until(lambda: fresh(driver).position == pytest.approx((radians(20.0), 0.3)))


@given(
    st.sampled_from(["deg", "rad", "m", "m100", "percent"]),
    st.booleans(),
    st.floats(-3.0, 3.0),
    st.floats(-3.0, 3.0),
)
def test_a_feature_goes_to_si_and_back_unchanged(
    unit: str, flipped: bool, offset: float, value: float
) -> None:
    row = row_of("j", {"feature_unit": unit, "reversed": flipped, "offset": offset})
    feature = row.feature((0.5, -1.0) if row.ends else None)
    raw = feature.raw(value)
    assert feature.gain * raw + feature.bias == pytest.approx(value, abs=1e-9)
    if row.ends:
        assert [feature.gain * end + feature.bias for end in row.ends] == pytest.approx([0.5, -1.0])
    else:
        assert (feature.gain < 0) is flipped


def test_one_thread_makes_all_calls_and_no_calibration_is_asked_for(
    active: tuple[LerobotDriver, Duck],
) -> None:
    driver, duck = active
    until(lambda: duck.done("act"))
    driver.write(Setpoint(Mode.POSITION, (0.0, 0.0)), LATER)
    until(lambda: len(duck.done("act")) >= 2)
    driver.close()
    assert {thread for _, thread, _ in duck.calls}.isdisjoint({threading.get_ident()})
    assert len({thread for _, thread, _ in duck.calls}) == 1
    assert duck.done("connect") == [False]
    assert duck.done("disconnect") == [None]
    assert not duck.config.disable_torque_on_disconnect  # or the arm would have fallen


def test_activation_sends_where_it_is_and_nothing_was_sent_before(
    opened: Callable[..., LerobotDriver],
) -> None:
    driver = opened()
    identity = driver.connect()
    assert identity == {"model": "duck", "serial": "blue", "firmware": "duck_pond"}
    driver.configure(RANGES)
    duck = Duck.made[-1]
    assert not duck.done("act")
    start = driver.activate(Mode.POSITION)
    until(lambda: duck.done("act"))
    assert duck.done("act")[0] == pytest.approx({"shoulder.pos": 10.0, "gripper.pos": 50.0})
    assert start.position == pytest.approx((radians(10.0), 0.75))


def test_an_action_that_comes_back_altered_or_not_at_all_is_counted(
    active: tuple[LerobotDriver, Duck],
) -> None:
    driver, duck = active
    until(lambda: duck.done("act"))
    assert driver.counters["altered"] == 0
    duck.clip = 1.0
    driver.write(Setpoint(Mode.POSITION, (radians(50.0), 0.75)), LATER)
    until(lambda: driver.counters["altered"] == 1)
    duck.answers["act"] = lambda: {"shoulder.pos": nan}
    driver.write(Setpoint(Mode.POSITION, (radians(50.0), 0.75)), LATER)
    until(lambda: driver.counters["not confirmed"] == 2)


def test_a_read_says_when_nothing_is_new_and_never_waits_beyond_its_deadline(
    opened: Callable[..., LerobotDriver],
) -> None:
    driver = opened(rate_hz=2.0, silence_s=30.0)
    driver.connect()
    driver.configure(RANGES)
    first = fresh(driver)
    before = time.monotonic_ns()
    again = driver.read(before)
    assert not again.fresh and again.seq == first.seq
    deadline = time.monotonic_ns() + 20_000_000
    assert not driver.read(deadline).fresh
    assert time.monotonic_ns() >= deadline  # it did wait; the next state is half a second away
    assert fresh(driver).seq > first.seq


def test_a_robot_that_hangs_is_silence_and_does_not_hang_the_bridge(
    opened: Callable[..., LerobotDriver],
) -> None:
    driver = opened(silence_s=0.1, timeout_s=0.2)
    driver.connect()
    driver.configure(RANGES)
    driver.activate(Mode.POSITION)
    duck, resume = Duck.made[-1], threading.Event()
    duck.answers["observe"] = lambda: resume.wait(PATIENCE_S) and None
    with pytest.raises(DriverError, match="no state for"):
        while True:
            driver.read(time.monotonic_ns() + 10_000_000)
    driver.estop("it hangs")
    driver.close()
    assert driver.counters["not closed"] == 1
    resume.set()
    until(lambda: duck.done("disconnect"))  # once it is back, it is left alone
    assert len(duck.done("act")) == 1


def test_single_failures_are_counted_and_several_in_a_row_end_it(
    active: tuple[LerobotDriver, Duck],
) -> None:
    driver, duck = active
    failures = iter([ConnectionError("no packet")] * 3)

    def fail() -> None:
        error = next(failures, None)
        if error is not None:
            raise error

    duck.answers["observe"] = fail
    until(lambda: driver.counters["reads failed"] == 3)
    assert fresh(driver).fresh

    def broken() -> None:
        raise ConnectionError("unplugged")

    duck.answers["observe"] = broken
    with pytest.raises(DriverError, match="unplugged"):
        while True:
            driver.read(soon())
    with pytest.raises(DriverError, match="unplugged"):
        driver.write(Setpoint(Mode.POSITION, (0.0, 0.0)), LATER)


@pytest.mark.parametrize("value", [nan, inf])
def test_states_that_are_not_finite_are_dropped_and_counted(
    active: tuple[LerobotDriver, Duck], value: float
) -> None:
    driver, duck = active
    duck.answers["observe"] = lambda: {**duck.at, "shoulder.pos": value, "shoulder.vel": 0.0}
    until(lambda: driver.counters["not finite"] >= 2)
    del duck.answers["observe"]
    assert fresh(driver).position == pytest.approx((radians(10.0), 0.75))


def test_what_may_not_go_out_is_refused(active: tuple[LerobotDriver, Duck]) -> None:
    driver, duck = active
    until(lambda: duck.done("act"))
    for position in ((nan, 0.0), (0.0, inf), (0.0,), ()):
        with pytest.raises(DriverError):
            driver.write(Setpoint(Mode.POSITION, position), LATER)
    with pytest.raises(DriverError, match="deadline"):
        driver.write(Setpoint(Mode.POSITION, (0.0, 0.0)), 0)
    with pytest.raises(DriverError, match="velocity"):
        driver.write(Setpoint(Mode.VELOCITY, velocity=(0.0, 0.0)), LATER)
    time.sleep(0.05)
    assert len(duck.done("act")) == 1


def test_an_estop_holds_where_it_is_and_obeys_no_more(active: tuple[LerobotDriver, Duck]) -> None:
    driver, duck = active
    driver.write(Setpoint(Mode.POSITION, (radians(30.0), 0.75)), LATER)
    until(lambda: duck.at["shoulder.pos"] == pytest.approx(30.0))
    until(lambda: fresh(driver).position[0] == pytest.approx(radians(30.0)))
    driver.estop("hand")
    driver.estop("again")
    count = len(duck.done("act"))
    with pytest.raises(DriverError, match="hand"):
        driver.write(Setpoint(Mode.POSITION, (0.0, 0.0)), LATER)
    until(lambda: len(duck.done("act")) > count + 3)  # again and again: a packet may get lost
    assert duck.done("act")[-1]["shoulder.pos"] == pytest.approx(30.0)
    driver.reset()
    with pytest.raises(DriverError, match="not active"):
        driver.write(Setpoint(Mode.POSITION, (0.0, 0.0)), LATER)
    driver.configure(RANGES)
    driver.activate(Mode.POSITION)


def test_an_estop_may_disconnect_where_that_is_wanted(
    opened: Callable[..., LerobotDriver],
) -> None:
    driver = opened(estop="disconnect")
    driver.connect()
    driver.configure(RANGES)
    driver.activate(Mode.POSITION)
    driver.estop("hand")
    until(lambda: Duck.made[-1].done("disconnect"))
    with pytest.raises(DriverError, match="connect anew"):
        driver.reset()
    with pytest.raises(DriverError, match="let go"):
        driver.read(soon())


def test_deactivation_waits_until_it_stands_and_says_if_it_does_not(
    active: tuple[LerobotDriver, Duck],
) -> None:
    driver, duck = active
    driver.deactivate()
    with pytest.raises(DriverError, match="not active"):
        driver.write(Setpoint(Mode.POSITION, (0.0, 0.0)), LATER)
    driver.activate(Mode.POSITION)
    angles = iter(range(10_000_000))
    duck.answers["observe"] = lambda: {**duck.at, "shoulder.pos": next(angles), "shoulder.vel": 0}
    with pytest.raises(DriverError, match="rest"):
        driver.deactivate()


def test_a_normalised_joint_means_nothing_before_it_is_calibrated(
    opened: Callable[..., LerobotDriver],
) -> None:
    driver = opened()
    driver.connect()
    with pytest.raises(DriverError, match="gripper"):
        driver.read(soon())
    for wrong in ({}, {"gripper": [1.0]}, {"gripper": [0.5, 0.5]}, {"gripper": "x"}):
        with pytest.raises(DriverError, match="gripper"):
            driver.configure({"ranges": wrong})
        with pytest.raises(DriverError):
            ends_of("gripper", wrong)


def test_what_does_not_fit_is_said_before_anything_moves(
    opened: Callable[..., LerobotDriver],
) -> None:
    shoulder = {"shoulder": JOINTS["shoulder"]}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"robot": ""}, "robot"),
        ({"joints": {}}, "joints"),
        ({"joints": {"shoulder": 3}}, "limit"),
        ({"joints": {"shoulder": {"feature_unit": "turns"}}}, "turns"),
        ({"joints": {"shoulder": {"hihg": 1.0}}}, "hihg"),
        ({"joints": {"shoulder": {"low": 1.0, "high": 0.0}}}, "below"),
        ({"rate_hz": 0.0}, "rate_hz"),
        ({"estop": "scream"}, "scream"),
        ({"robot": "duck_pond:Goose"}, "Goose"),
        ({"robot": "duck_pond:number"}, "number"),
        ({"robot": "no_pond:Duck"}, "no_pond"),
        ({"config": {"colour": "red"}}, "colour"),
        ({"joints": shoulder}, "gripper.pos"),
        ({"joints": {**JOINTS, "elbow": {}}}, "elbow.pos"),
        ({"joints": {**JOINTS, "shoulder": {"effort_feature": "shoulder.cur"}}}, "shoulder.cur"),
    ]
    for options, told in cases:
        with pytest.raises(DriverError, match=told):
            opened(**options).connect()
        assert not any(duck.done("act") for duck in Duck.made[-1:])


def test_a_robot_that_is_not_calibrated_or_does_not_answer_is_not_connected(
    opened: Callable[..., LerobotDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    def uncalibrated(self: Duck, calibrate: bool = True) -> None:
        self.is_connected, self.is_calibrated = True, False

    monkeypatch.setattr(Duck, "connect", uncalibrated)
    with pytest.raises(DriverError, match="lerobot-calibrate"):
        opened().connect()
    until(lambda: Duck.made[-1].done("disconnect"))
    resume = threading.Event()
    monkeypatch.setattr(Duck, "connect", lambda self, calibrate: resume.wait(PATIENCE_S))
    with pytest.raises(DriverError, match="within"):
        opened(timeout_s=0.1).connect()
    resume.set()


def test_calls_out_of_order_are_refused_and_closing_is_always_safe(
    opened: Callable[..., LerobotDriver],
) -> None:
    driver = opened()
    driver.close()
    driver.estop("before it is connected")
    for call in (
        lambda: driver.configure(RANGES), lambda: driver.read(0), driver.deactivate, driver.reset,
        driver.check_watchdog, lambda: driver.activate(Mode.POSITION),
    ):  # fmt: skip
        with pytest.raises(DriverError):
            call()
    driver.connect()
    with pytest.raises(DriverError, match="already"):
        driver.connect()
    with pytest.raises(DriverError, match="before"):
        driver.activate(Mode.POSITION)
    driver.reset()
    driver.configure(RANGES)
    assert driver.check_watchdog() == ""
    with pytest.raises(DriverError, match="effort"):
        driver.activate(Mode.EFFORT)
    driver.activate(Mode.POSITION)
    with pytest.raises(DriverError):
        driver.configure(RANGES)
    with pytest.raises(DriverError):
        driver.check_watchdog()
    driver.close()
    driver.close()


def test_the_velocity_of_positions(opened: Callable[..., LerobotDriver]) -> None:
    driver = opened()
    driver.connect()
    driver.configure(RANGES)
    duck = Duck.made[-1]
    start = time.monotonic()
    duck.answers["observe"] = lambda: {
        **duck.at, "shoulder.vel": 0.0, "gripper.pos": 10.0 * (time.monotonic() - start)
    }  # fmt: skip
    for _ in range(3):
        measured = fresh(driver)
    assert measured.velocity[1] == pytest.approx(0.15, rel=0.5)  # 10 % of 1.5 rad per second
