"""The life of a driver: no call out of order, every failure stops it, and the latch holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetypilot.bridge.contract import (
    Description,
    DriverError,
    Failsafe,
    Joint,
    Measurement,
    Mode,
    Setpoint,
)
from safetypilot.bridge.lifecycle import LATCHED, Lifecycle, State, Transition

D, C, G, A, F, E = State  # in their order


class FakeDriver:
    """Knows its calls, and fails where it is told to."""

    def __init__(self) -> None:
        self.description = Description(
            "fake", (Joint("j"),), (Mode.POSITION,), 100, 100, 0.1, (Failsafe.HOLD,)
        )
        self.calls: list[str] = []
        self.broken: set[str] = set()
        self.error: Exception | None = None  # what a broken call raises; else a DriverError
        self.torque = False
        self.counters: dict[str, int] = {}

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.broken:
            raise self.error or DriverError(f"{name} is broken")

    def connect(self) -> dict[str, str]:
        self._call("connect")
        return {"serial": "7"}

    def configure(self, calibration: dict[str, Any]) -> dict[str, Any]:
        self._call("configure")
        return calibration

    def check_watchdog(self) -> str:
        self._call("check_watchdog")
        return "it acted"

    def activate(self, mode: Mode) -> Measurement:
        self.torque = True
        self._call("activate")
        return self.read(0)

    def read(self, deadline_ns: int) -> Measurement:
        return Measurement(0, 0, -1, (0.5,), (0.0,), (0.0,), {})

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        self._call("write")

    def deactivate(self) -> None:
        self._call("deactivate")
        self.torque = False

    def estop(self, reason: str) -> None:
        self._call("estop")
        self.torque = False

    def reset(self) -> None:
        self._call("reset")

    def close(self) -> None:
        self._call("close")
        self.torque = False


class Life:
    """A life cycle with what was published."""

    def __init__(self, folder: Path) -> None:
        self.driver, self.latch, self.told = FakeDriver(), folder / "estop", list[Transition]()
        self.cycle = Lifecycle(self.driver, self.latch, lambda: 42, self.told.append)

    def call(self, name: str) -> None:
        arguments: dict[str, tuple[Any, ...]] = {
            "configure": ({"id": 1}, "test"), "activate": (Mode.POSITION, "test"),
            "check_watchdog": (),
        }  # fmt: skip
        getattr(self.cycle, name)(*arguments.get(name, ("test",)))

    def rise(self, *calls: str) -> Life:
        for call in calls:
            self.call(call)
        return self


UP = ("connect", "configure", "activate")
CALLS = (*UP, "check_watchdog", "deactivate", "fault", "estop", "reset", "close")
TABLE = {
    "connect": {D: C},
    "configure": {C: G, G: G},
    "check_watchdog": {G: G},
    "activate": {G: A},
    "deactivate": {A: G},
    "fault": {D: F, C: F, G: F, A: F, F: F, E: E},
    "estop": dict.fromkeys(State, E),
    "reset": {F: C, E: C},
    "close": {D: D, C: D, G: D, A: D, F: D, E: E},
}


def in_state(folder: Path, state: State) -> Life:
    made = Life(folder).rise(*UP[: {D: 0, C: 1, G: 2}.get(state, 3)])
    if state in LATCHED:
        made.call("fault" if state is F else "estop")
    assert made.cycle.state is state
    return made


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("call", CALLS)
def test_every_call_in_every_state(tmp_path: Path, state: State, call: str) -> None:
    made = in_state(tmp_path, state)
    told = len(made.told)
    after = TABLE[call].get(state)
    if after is None:
        with pytest.raises(DriverError, match=f"cannot {call} while {state}"):
            made.call(call)
        after = state
    else:
        made.call(call)
    assert made.cycle.state is after
    changed = [(t.before, t.after) for t in made.told[told:]]
    assert changed[-1:] == ([(changed[-1][0], after)] if after is not state or changed else [])
    assert made.driver.torque == (after is A)


@given(st.lists(st.tuples(st.sampled_from(CALLS), st.booleans()), max_size=30))
def test_whatever_is_called_and_fails_torque_is_on_only_while_active(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, bool]]
) -> None:
    made = Life(tmp_path_factory.mktemp("life"))
    for call, broken in calls:
        made.driver.broken = {call} if broken else set()
        before = made.cycle.state
        try:
            made.call(call)
        except DriverError:
            pass
        state = made.cycle.state
        assert made.driver.torque == (state is A)
        assert made.latch.exists() == (state is E)
        if before in LATCHED and state is not before:
            assert call == ("estop" if state is E else call)
            assert call in ("reset", "close", "estop")
    for one, following in zip(made.told, made.told[1:], strict=False):
        assert one.after is following.before and following.cause


CALLED_IN = {"configure": C, "check_watchdog": G, "activate": G, "deactivate": A}


@pytest.mark.parametrize("call", ["configure", "check_watchdog", "activate", "deactivate"])
def test_a_call_that_fails_stops_the_device_and_is_a_fault(tmp_path: Path, call: str) -> None:
    made = in_state(tmp_path, CALLED_IN[call])
    made.driver.broken = {call}
    with pytest.raises(DriverError, match="is broken"):
        made.call(call)
    assert made.cycle.state is F and made.driver.calls[-1] == "estop"
    assert made.told[-1].cause == f"{call} failed: {call} is broken"


def test_a_device_that_is_not_there_is_no_fault(tmp_path: Path) -> None:
    made = Life(tmp_path)
    made.driver.broken = {"connect"}
    with pytest.raises(DriverError):
        made.call("connect")
    assert made.cycle.state is D and made.driver.calls == ["connect", "close"]
    assert not made.told


BUGS = [OSError(5, "Input/output error"), RuntimeError("a bug"), KeyError("sn")]


@pytest.mark.parametrize("error", BUGS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("call", ["configure", "check_watchdog", "activate", "deactivate"])
def test_whatever_a_driver_raises_stops_the_device_and_is_a_fault(
    tmp_path: Path, call: str, error: Exception
) -> None:
    made = in_state(tmp_path, CALLED_IN[call])
    made.driver.broken, made.driver.error = {call}, error
    with pytest.raises(DriverError, match=f"{call} failed: {type(error).__name__}: "):
        made.call(call)
    assert made.cycle.state is F and made.driver.calls[-1] == "estop"
    assert not made.driver.torque


def test_a_bug_in_connect_is_a_fault_that_can_be_reset(tmp_path: Path) -> None:
    made = Life(tmp_path)
    made.driver.broken, made.driver.error = {"connect", "close"}, RuntimeError("a bug")
    with pytest.raises(DriverError, match="connect failed: RuntimeError: a bug"):
        made.call("connect")
    assert made.cycle.state is F and made.driver.calls == ["connect", "close"]
    assert made.told[-1].cause.endswith(
        "a bug (and the driver could not be closed: RuntimeError: a bug)"
    )
    made.call("reset")
    assert made.cycle.state is D


def test_a_bug_in_reset_leaves_it_latched_and_one_in_close_open_no_longer(tmp_path: Path) -> None:
    made = in_state(tmp_path, E)
    made.driver.broken, made.driver.error = {"reset", "close"}, RuntimeError("a bug")
    with pytest.raises(DriverError, match="reset failed: RuntimeError"):
        made.call("reset")
    assert made.cycle.state is E and made.latch.exists()
    made.call("close")
    assert not made.cycle.connected


@pytest.mark.parametrize("error", [*BUGS, None], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("call", ["estop", "trip", "fault"])
def test_a_device_that_cannot_be_stopped_is_latched_and_that_is_told(
    tmp_path: Path, call: str, error: Exception | None
) -> None:
    made = in_state(tmp_path, A)
    made.driver.broken, made.driver.error = {"estop"}, error
    getattr(made.cycle, call)("smoke")
    if call == "trip":
        assert made.cycle.tripped
        made.cycle.estop(made.cycle.tripped)
    assert made.cycle.state is (F if call == "fault" else E)
    assert made.latch.exists() == (call != "fault")
    assert made.told[-1].cause.startswith("smoke (and the device could not be stopped: ")


def test_trouble_that_comes_after_the_e_stop_was_told_is_told_too(tmp_path: Path) -> None:
    made = in_state(tmp_path, A)

    def slow(reason: str) -> None:
        made.cycle.estop(made.cycle.tripped)  # as the loop's thread does meanwhile
        assert made.cycle.state is E
        raise OSError(5, "Input/output error")

    made.driver.estop = slow  # type: ignore[method-assign]
    made.cycle.trip("smoke")
    made.cycle.estop(made.cycle.tripped)
    assert [t.cause[:10] for t in made.told[-2:]] == ["smoke", "smoke (and"]
    assert made.latch.exists() and not made.cycle.tripped


@pytest.mark.parametrize("call", ["connect", "reset"])
def test_a_trip_while_it_connects_or_is_reset_stays(tmp_path: Path, call: str) -> None:
    made = in_state(tmp_path, D if call == "connect" else E)
    work = getattr(made.driver, call)

    def tripped() -> Any:
        made.cycle.trip("a hand in the way")
        return work()

    setattr(made.driver, call, tripped)
    with pytest.raises(DriverError, match=f"{call} was cut short by an e-stop"):
        made.call(call)
    assert made.cycle.state is E and made.latch.exists()
    assert made.driver.calls[-1] == "estop"


def test_the_latch_outlives_the_process_and_a_reset_needs_intent_and_health(tmp_path: Path) -> None:
    made = in_state(tmp_path, A)
    made.cycle.estop("a hand in the way")
    assert json.loads(made.latch.read_text()) == {"reason": "a hand in the way", "at_ns": 42}
    again = Life(tmp_path)
    assert again.cycle.state is E
    with pytest.raises(DriverError, match="cannot connect while e-stopped"):
        again.call("connect")
    with pytest.raises(DriverError, match="needs a reason"):
        again.cycle.reset(" ")
    again.call("reset")
    assert again.cycle.state is D and not made.latch.exists()
    made.driver.broken = {"reset"}
    with pytest.raises(DriverError, match="reset is broken"):
        made.call("reset")
    assert made.cycle.state is E


def test_a_latch_that_cannot_be_written_is_told_and_stops_all_the_same(tmp_path: Path) -> None:
    made = in_state(tmp_path, A)
    made.latch.mkdir()
    made.cycle.estop("smoke")
    assert made.cycle.state is E and not made.driver.torque
    assert made.told[-1].cause.startswith("smoke (and the latch could not be written")
    with pytest.raises(DriverError, match=r"the latch .*estop stays: "):
        made.call("reset")
    assert made.cycle.state is E


def test_an_active_device_that_does_not_go_down_is_stopped_when_it_is_closed(
    tmp_path: Path,
) -> None:
    made = in_state(tmp_path, A)
    made.driver.broken = {"deactivate"}
    made.call("close")
    assert made.driver.calls[-3:] == ["deactivate", "estop", "close"]
    assert made.cycle.state is D


def test_a_trip_from_elsewhere_stops_at_once_and_is_told_later(tmp_path: Path) -> None:
    made = in_state(tmp_path, A)
    told = len(made.told)
    made.cycle.trip("a key")
    assert not made.driver.torque and made.latch.exists() and len(made.told) == told
    made.cycle.estop(made.cycle.tripped)
    assert made.cycle.state is E and made.told[-1].cause == "a key"
    assert made.driver.calls.count("estop") == 1 and not made.cycle.tripped


@pytest.mark.parametrize("call", ["configure", "activate", "deactivate"])
def test_a_call_that_comes_back_after_an_estop_was_told_does_not_undo_it(
    tmp_path: Path, call: str
) -> None:
    made = in_state(tmp_path, CALLED_IN[call])
    work = getattr(made.driver, call)

    def given_up(*arguments: Any) -> Any:
        made.cycle.estop("it hangs")  # says another thread
        return work(*arguments)

    setattr(made.driver, call, given_up)
    with pytest.raises(DriverError, match="cut short by an e-stop"):
        made.call(call)
    assert made.cycle.state is E and not made.driver.torque and made.latch.exists()
    assert made.told[-1].cause == "it hangs"


@pytest.mark.parametrize("call", ["configure", "activate", "deactivate"])
def test_a_trip_during_a_call_is_not_undone_by_it(tmp_path: Path, call: str) -> None:
    made = in_state(tmp_path, CALLED_IN[call])
    work = getattr(made.driver, call)

    def tripped(*arguments: Any) -> Any:
        made.cycle.trip("a hand in the way")
        return work(*arguments)

    setattr(made.driver, call, tripped)
    with pytest.raises(DriverError, match="cut short by an e-stop"):
        made.call(call)
    assert made.cycle.state is E and not made.driver.torque
