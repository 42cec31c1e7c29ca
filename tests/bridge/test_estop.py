"""The ways to stop a robot that do not need the graph: each of them works, and is tested."""

from __future__ import annotations

import os
import signal
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

from safetypilot.bridge import estop
from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.estop import ALIVE, BEAT, STOP, Lines, Wiring, send


class Bridge:
    """Lines with what they said."""

    def __init__(self, folder: Path, wiring: Wiring) -> None:
        self.path, self.reasons = folder / "s", list[str]()
        self.errors: list[BaseException] = []  # that the next trips raise
        self.lines = Lines(self.trip, self.path, wiring)

    def trip(self, reason: str) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.reasons.append(reason)

    def reason(self, patience_s: float = 10.0) -> str:
        deadline = monotonic() + patience_s
        while not self.reasons and monotonic() < deadline:
            sleep(0.005)
        return self.reasons[0] if self.reasons else ""


@pytest.fixture
def open_bridge(tmp_path: Path) -> Iterator[object]:
    made: list[Bridge] = []

    def make(**wiring: object) -> Bridge:
        made.append(Bridge(tmp_path, Wiring(**wiring)))  # type: ignore[arg-type]
        made[-1].lines.open()
        return made[-1]

    yield make
    for one in made:
        one.lines.close()
        assert not one.path.exists()


def test_a_word_on_the_socket_stops_with_its_reason(open_bridge) -> None:
    bridge = open_bridge()
    send(bridge.path, STOP, "a hand in the way")
    assert bridge.reason() == "a hand in the way"
    assert bridge.path.stat().st_mode & 0o777 == 0o600


def test_a_signal_stops(open_bridge) -> None:
    bridge = open_bridge()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert bridge.reason() == "signal SIGUSR1"


def test_a_byte_on_the_watched_file_stops_and_its_writers_may_come_and_go(
    open_bridge, tmp_path: Path
) -> None:
    fifo = tmp_path / "button"
    os.mkfifo(fifo)
    bridge = open_bridge(watch=str(fifo))
    os.close(os.open(fifo, os.O_WRONLY))
    sleep(0.1)
    assert not bridge.reasons
    fifo.write_bytes(b"x")
    assert bridge.reason() == "the watched file says so"


def test_a_watched_device_that_is_gone_stops(open_bridge, tmp_path: Path) -> None:
    (tmp_path / "gone").touch()  # at its end from the beginning, as an unplugged device is
    assert open_bridge(watch=str(tmp_path / "gone")).reason() == "the watched file is gone"


@pytest.mark.parametrize(("event", "stops"), [
    ((0, 1, 1, 3), True), ((0, 0, 1, 3), False), ((0, 1, 1, 2), False),
    ((0, 1, 2, 3), False), ((0, 1, 0x81, 3), False),
])  # fmt: skip
def test_only_the_joysticks_button_stops(
    open_bridge, tmp_path: Path, event: tuple[int, ...], stops: bool
) -> None:
    device = tmp_path / "js0"
    os.mkfifo(device)
    bridge = open_bridge(joystick=str(device), button=3)
    device.write_bytes(struct.pack("<IhBB", *event))
    assert bridge.reason(10.0 if stops else 0.15) == ("the joystick says so" if stops else "")


def test_the_heartbeat_is_needed_only_while_it_is_expected(open_bridge) -> None:
    bridge = open_bridge(heartbeat_s=0.3)
    sleep(0.4)
    assert not bridge.reasons and bridge.lines.missing == "operator"
    send(bridge.path, BEAT)
    deadline = monotonic() + 10
    while bridge.lines.missing and monotonic() < deadline:
        sleep(0.005)
    bridge.lines.expect(True)
    for _ in range(10):
        send(bridge.path, BEAT)
        sleep(0.05)
    assert not bridge.reasons and not bridge.lines.missing
    assert bridge.reason() == "the operator's heartbeat is silent"


def test_a_frozen_supervisor_is_silent_too(open_bridge) -> None:
    bridge = open_bridge(supervisor_s=0.3)
    send(bridge.path, ALIVE)
    deadline = monotonic() + 10
    while bridge.lines.missing and monotonic() < deadline:
        sleep(0.005)
    bridge.lines.expect(True)
    assert not bridge.reasons
    assert bridge.reason() == "the supervisor's heartbeat is silent"


def test_without_a_heartbeat_asked_for_silence_is_no_matter(open_bridge) -> None:
    bridge = open_bridge()
    bridge.lines.expect(True)
    assert not bridge.lines.missing and bridge.reason(0.2) == ""


def test_the_lines_are_tested_without_stopping(open_bridge, tmp_path: Path) -> None:
    fifo, device = tmp_path / "button", tmp_path / "js0"
    os.mkfifo(fifo)
    os.mkfifo(device)
    bridge = open_bridge(watch=str(fifo), joystick=str(device))
    assert bridge.lines.test() == {
        "socket": "works",
        "signal": "works",
        "watched file": "works",
        "joystick": "needs a person to be tested",
    }
    sleep(0.1)
    assert not bridge.reasons
    send(bridge.path, STOP)
    assert bridge.reason() == "no reason given"


def test_a_stop_comes_through_in_the_middle_of_a_test(open_bridge) -> None:
    bridge = open_bridge()
    stopper = threading.Timer(0.0, lambda: send(bridge.path, STOP, "now"))
    stopper.start()
    for _ in range(20):
        bridge.lines.test()
    stopper.join()
    assert bridge.reason() == "now"


def test_a_stop_that_comes_with_the_tests_own_word_is_not_swallowed(
    open_bridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo = tmp_path / "button"
    os.mkfifo(fifo)
    bridge = open_bridge(watch=str(fifo))
    poke, kill = estop._poke, os.kill
    monkeypatch.setattr(estop, "_poke", lambda path: (fifo.write_bytes(b"x"), poke(path)))
    assert bridge.lines.test()["watched file"] == "works"
    assert bridge.reasons == ["the watched file says so"]
    monkeypatch.setattr(os, "kill", lambda *its: (kill(*its), sleep(0.1), kill(*its)))
    bridge.lines.test()
    assert bridge.reasons[1] == "signal SIGUSR1"


def test_a_stop_that_cannot_be_handed_over_is_handed_over_again(open_bridge) -> None:
    bridge = open_bridge()
    bridge.errors += [OSError("a bug")] * 3
    send(bridge.path, STOP, "smoke")
    assert bridge.reason() == "smoke" and not bridge.errors
    sleep(0.1)
    assert bridge.reasons == ["smoke"] and not bridge.lines.dead
    bridge.errors.append(OSError("a bug"))
    os.kill(os.getpid(), signal.SIGUSR1)  # and is no error of what the main thread just did
    while len(bridge.reasons) < 2:
        sleep(0.005)
    assert bridge.reasons[1] == "signal SIGUSR1"


def test_a_line_that_fails_is_a_stop_and_the_others_go_on(open_bridge, tmp_path: Path) -> None:
    device = tmp_path / "js0"
    os.mkfifo(device)
    bridge = open_bridge(joystick=str(device), heartbeat_s=0.2)
    lines = bridge.lines

    def fails(data: bytes) -> bool:
        raise ValueError("a bug")

    lines._files = {fd: (name, fails) for fd, (name, _) in lines._files.items()}
    device.write_bytes(b"x")
    assert bridge.reason() == "the joystick failed: ValueError('a bug')"
    device.write_bytes(b"x")
    send(bridge.path, STOP, "smoke")
    while len(bridge.reasons) < 2:
        sleep(0.005)
    lines.expect(True)
    while len(bridge.reasons) < 3:
        sleep(0.005)
    assert bridge.reasons[1:] == ["smoke", "the operator's heartbeat is silent"]


def test_lines_that_cannot_be_watched_are_a_stop_and_watched_again(
    open_bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = open_bridge()
    turn, errors = bridge.lines._turn, [OSError(9, "Bad file descriptor")]

    def fails_once(poll: object) -> None:
        if errors:
            raise errors.pop()
        turn(poll)

    monkeypatch.setattr(bridge.lines, "_turn", fails_once)
    assert "cannot be watched: OSError(9, 'Bad file descriptor')" in bridge.reason()
    send(bridge.path, STOP, "smoke")
    while len(bridge.reasons) < 2:
        sleep(0.005)
    assert bridge.reasons[1] == "smoke"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whether_the_thread_has_died_can_be_seen(open_bridge) -> None:
    bridge = open_bridge()
    assert not bridge.lines.dead
    bridge.errors.append(SystemExit())  # which no thread survives
    send(bridge.path, STOP)
    while not bridge.lines.dead:
        sleep(0.005)
    bridge.lines.close()
    assert not bridge.lines.dead


def test_a_dead_line_may_not_fly(open_bridge) -> None:
    bridge = open_bridge()
    bridge.path.unlink()
    bridge.path.write_text("")
    with pytest.raises(DriverError, match="socket line is dead"):
        bridge.lines.test(0.1)


def test_a_line_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    lines = Lines(print, tmp_path / "s", Wiring(joystick=str(tmp_path / "none")))
    with pytest.raises(DriverError, match=r"e-stop line .*none"):
        lines.open()
    lines.close()


def test_garbage_is_counted_and_stops_nothing(open_bridge) -> None:
    bridge = open_bridge()
    for word in (b"", b"estopp", b"\xff\x00", b"x" * 4096):
        send(bridge.path, word)
    deadline = monotonic() + 10
    while bridge.lines.garbage < 4 and monotonic() < deadline:
        sleep(0.01)
    assert bridge.lines.garbage == 4 and not bridge.reasons


@pytest.mark.parametrize("silence", [-1.0, float("nan"), float("inf")])
def test_a_heartbeat_is_a_time(silence: float) -> None:
    with pytest.raises(ValueError, match="heartbeat_s"):
        Wiring(heartbeat_s=silence)
