"""A recorded run plays the robot: in its own time, whatever it is asked, and keeps account."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetypilot.bridge.conformance import suite
from safetypilot.bridge.contract import DriverError, Joint, Mode, Setpoint
from safetypilot.bridge.drivers import recording as module
from safetypilot.bridge.drivers import vetting
from safetypilot.bridge.drivers.recording import RecordingDriver, RecordingOptions
from safetypilot.bridge.protocols import recording as file
from safetypilot.bridge.protocols.recording import Header, Track

JOINTS = (Joint("hip", -1.0, 1.0, velocity=4.0), Joint("rail", 0.0, 2.0, unit="m"))
ROWS, PERIOD_NS = 50, 10_000_000
LATER = 1 << 62


class Clock:
    """Time passes only where somebody sleeps, or a test says so."""

    def __init__(self) -> None:
        self.ns = 5_000_000_000

    def __call__(self) -> int:
        return self.ns

    def sleep(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "monotonic_ns", made)
    monkeypatch.setattr(module, "sleep", made.sleep)
    monkeypatch.setattr(vetting, "monotonic_ns", made)
    return made


def track(mode: Mode = Mode.POSITION, **columns: Any) -> Track:
    """hip goes from 0 to 0.49 rad, rail stays; told is 0.01 ahead; a row is 10 ms."""
    header = Header("arm", JOINTS, mode, 100.0, 3.0, {"force": ("N", 2)}, {"serial": "7"}, "a.mcap")
    hip = np.arange(ROWS) * 0.01
    position = np.stack([hip, np.full(ROWS, 0.5)], axis=1)
    sent = np.full((ROWS, 5, 2), nan, np.float32)
    if mode is Mode.POSITION:
        sent[:, 0] = position + 0.01
    elif mode is Mode.PD:
        sent[:] = 1.0
    else:
        sent[:, file.COMMANDS.index(mode)] = 0.25
    made: dict[str, Any] = {
        "time_ns": 1_000 + np.arange(ROWS) * PERIOD_NS,
        "position": position,
        "velocity": np.ones((ROWS, 2)),
        "effort": np.zeros((ROWS, 2)),
        "sent": sent,
        "sensors": np.tile(np.arange(ROWS)[:, None], (1, 2)),
    }
    return Track(header, **{**made, **columns})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file.save(track(), tmp_path / "robot.npz")
    return tmp_path / "robot.npz"


def started(path: Path, **options: Any) -> RecordingDriver:
    driver = RecordingDriver(RecordingOptions(str(path), **options))
    driver.connect()
    driver.configure({})
    return driver


def test_what_it_declares_is_read_from_the_header_alone(tmp_path: Path, path: Path) -> None:
    with np.load(path) as full:
        np.savez(tmp_path / "header.npz", header=full["header"])
    description = RecordingDriver(RecordingOptions(str(tmp_path / "header.npz"), 2.0)).description
    assert description.joints == JOINTS
    assert description.modes == (Mode.POSITION,)
    assert description.sensors == {"force": "N"}
    assert (description.rate_hz, description.time_factor) == (200.0, 6.0)
    assert description.watchdog_s is None and description.simulated


def test_it_stands_until_it_is_activated_and_then_moves_as_recorded(
    clock: Clock, path: Path
) -> None:
    driver = started(path)
    standing = [driver.read(clock.ns + 10**9) for _ in range(3)]
    assert [m.position for m in standing] == [(0.0, 0.5)] * 3
    assert [m.velocity for m in standing] == [(0.0, 0.0)] * 3
    assert all(m.fresh for m in standing)

    start = driver.activate(Mode.POSITION)
    assert start.position == (0.0, 0.5) and start.velocity == (0.0, 0.0)
    seen = [driver.read(clock.ns + 10**9) for _ in range(ROWS - 1)]
    assert [m.position[0] for m in seen] == pytest.approx([0.01 * n for n in range(1, ROWS)])
    assert {m.velocity for m in seen} == {(1.0, 1.0)}
    assert [m.sensors["force"] for m in seen] == [(float(n),) * 2 for n in range(1, ROWS)]
    assert np.diff([m.received_ns for m in seen]) == pytest.approx(PERIOD_NS, rel=1e-3)
    whole = [*standing, *seen]
    assert [m.seq for m in whole] == list(range(whole[0].seq, whole[0].seq + len(whole)))
    assert (np.diff([m.device_ns for m in whole]) > 0).all()
    with pytest.raises(DriverError, match=r"over after 0\.50 s"):
        driver.read(clock.ns + 10**9)


def test_a_read_waits_for_no_longer_than_its_deadline_and_says_when_nothing_is_new(
    clock: Clock, path: Path
) -> None:
    driver = started(path)
    driver.activate(Mode.POSITION)
    before = clock.ns
    again = driver.read(clock.ns + PERIOD_NS // 4)
    assert not again.fresh and clock.ns == before + PERIOD_NS // 4
    assert not driver.read(clock.ns).fresh and clock.ns == before + PERIOD_NS // 4
    assert driver.read(clock.ns + PERIOD_NS).fresh


def test_speed_loop_and_rows_that_nobody_read(clock: Clock, path: Path) -> None:
    driver = started(path, speed=4.0, loop=True)
    first = driver.activate(Mode.POSITION)
    clock.ns += PERIOD_NS  # four rows of the recording
    fourth = driver.read(0)
    assert fourth.position[0] == pytest.approx(0.04)
    assert fourth.seq - first.seq == 4
    clock.ns += ROWS * PERIOD_NS // 4
    assert driver.read(0).position[0] == pytest.approx(0.04)  # a round later
    assert driver.read(0).seq - first.seq == ROWS + 4


def test_what_is_asked_is_compared_with_what_was_told_then(
    clock: Clock, path: Path, tmp_path: Path
) -> None:
    driver = started(path, keep=str(tmp_path / "asked.npz"))
    driver.activate(Mode.POSITION)
    assert driver.deviation.compared == 0
    driver.write(Setpoint(Mode.POSITION, (0.01, 0.51)), LATER)
    clock.ns += 3 * PERIOD_NS
    driver.read(0)
    driver.write(Setpoint(Mode.POSITION, (0.04, 0.91)), LATER)
    found = driver.deviation
    assert found.compared == 4 and found.joint == "rail"
    assert found.largest == pytest.approx(0.4, abs=1e-6) and found.at_s == pytest.approx(0.03)
    assert found.mean == pytest.approx(0.1, abs=1e-6)
    assert driver.counters["deviating"] == 1
    driver.close()
    with np.load(tmp_path / "asked.npz") as kept:
        assert kept["asked"][3].tolist() == pytest.approx([0.04, 0.91])
        assert np.isnan(kept["asked"][1:3]).all()
        assert kept["told"][3].tolist() == pytest.approx([0.04, 0.51])


@pytest.mark.parametrize("mode", [Mode.VELOCITY, Mode.EFFORT, Mode.PD])
def test_every_mode_is_compared_in_its_own_numbers(
    clock: Clock, tmp_path: Path, mode: Mode
) -> None:
    file.save(track(mode), tmp_path / "robot.npz")
    driver = started(tmp_path / "robot.npz")
    driver.activate(mode)
    pair = (0.75, 0.75)
    driver.write(Setpoint(mode, pair, pair, pair, pair, pair), LATER)
    assert driver.deviation.largest == pytest.approx(0.25 if mode is Mode.PD else 0.5)


def test_where_nothing_was_told_nothing_is_compared(clock: Clock, tmp_path: Path) -> None:
    sent = np.full((ROWS, 5, 2), nan, np.float32)
    sent[0, 0, 1] = 0.5
    file.save(track(sent=sent), tmp_path / "robot.npz")
    driver = started(tmp_path / "robot.npz")
    driver.activate(Mode.POSITION)
    driver.write(Setpoint(Mode.POSITION, (9.0, 0.75)), LATER)
    clock.ns += PERIOD_NS
    driver.read(0)
    driver.write(Setpoint(Mode.POSITION, (9.0, 9.0)), LATER)
    found = driver.deviation
    assert (found.compared, found.joint) == (1, "rail")
    assert found.largest == found.mean == pytest.approx(0.25)


bad_numbers = st.sampled_from([(nan, 0.0), (inf, 0.0), (0.0,), (0.0, 0.0, 0.0), ()])


@given(bad_numbers)
def test_it_refuses_what_a_robot_would(numbers: tuple[float, ...]) -> None:
    with pytest.raises(DriverError):
        vetting.vet("x", Setpoint(Mode.POSITION, numbers), Mode.POSITION, 2, LATER)
    good = (0.0, 0.0)
    with pytest.raises(DriverError):
        vetting.vet("x", Setpoint(Mode.PD, good, good, good, numbers, good), Mode.PD, 2, LATER)


def test_no_write_while_inactive_late_stopped_or_in_another_mode(clock: Clock, path: Path) -> None:
    driver = started(path)
    good = Setpoint(Mode.POSITION, (0.0, 0.5))
    with pytest.raises(DriverError, match="activate"):
        driver.write(good, LATER)
    driver.activate(Mode.POSITION)
    driver.write(good, LATER)
    with pytest.raises(DriverError, match="deadline"):
        driver.write(good, clock.ns)
    with pytest.raises(DriverError, match="velocity"):
        driver.write(Setpoint(Mode.VELOCITY, velocity=(0.0, 0.0)), LATER)
    driver.estop("hand")
    driver.estop("again")
    with pytest.raises(DriverError, match="hand"):
        driver.write(good, LATER)
    with pytest.raises(DriverError, match="e-stopped"):
        driver.activate(Mode.POSITION)
    driver.reset()
    with pytest.raises(DriverError, match="configure"):
        driver.activate(Mode.POSITION)


def test_stopped_or_taken_down_it_stands_where_it_is_and_goes_on_from_there(
    clock: Clock, path: Path
) -> None:
    driver = started(path)
    driver.activate(Mode.POSITION)
    clock.ns += 10 * PERIOD_NS
    driver.read(0)
    driver.deactivate()
    clock.ns += 100 * PERIOD_NS
    still = driver.read(0)
    assert still.position[0] == pytest.approx(0.1) and still.velocity == (0.0, 0.0)
    assert driver.activate(Mode.POSITION).position[0] == pytest.approx(0.1)
    clock.ns += 5 * PERIOD_NS
    assert driver.read(0).position[0] == pytest.approx(0.15)
    driver.estop("hand")
    clock.ns += 100 * PERIOD_NS
    assert driver.read(0).position[0] == pytest.approx(0.15)
    driver.reset()
    driver.configure({})
    assert driver.activate(Mode.POSITION).position[0] == 0.0  # configured: from the start


def test_calls_out_of_order_are_refused_and_closing_is_always_safe(path: Path) -> None:
    driver = RecordingDriver(RecordingOptions(str(path)))
    driver.close()
    for call in (lambda: driver.configure({}), lambda: driver.read(0), driver.deactivate,
                 driver.check_watchdog):  # fmt: skip
        with pytest.raises(DriverError):
            call()
    driver.estop("before it is connected")
    identity = driver.connect()
    assert identity == {"model": "arm", "serial": "7", "firmware": "recorded"}
    with pytest.raises(DriverError):
        driver.connect()
    with pytest.raises(DriverError, match="before"):
        driver.configure({}), driver.activate(Mode.POSITION)
    driver.close()
    driver.close()


def test_a_file_that_cannot_be_written_is_told_and_not_raised(path: Path) -> None:
    driver = started(path, keep=str(path / "below a file.npz"))
    driver.close()
    assert any(name.startswith("not kept") for name in driver.counters)


def test_a_track_goes_through_its_file_unchanged(path: Path) -> None:
    there, back = track(), file.load(path)
    assert back.header == there.header
    for name in ("time_ns", "position", "velocity", "effort", "sent", "sensors"):
        assert np.array_equal(getattr(back, name), getattr(there, name), equal_nan=True), name


@pytest.mark.parametrize(
    "columns",
    [
        {"time_ns": np.zeros(ROWS, np.int64)},
        {"time_ns": np.arange(ROWS)[::-1]},
        {"position": np.zeros((ROWS, 3))},
        {"sensors": np.zeros((ROWS, 1))},
        {"velocity": np.full((ROWS, 2), nan)},
        {"sent": np.zeros((ROWS, 4, 2))},
    ],
)
def test_columns_that_do_not_belong_together_are_refused(columns: dict[str, Any]) -> None:
    with pytest.raises(DriverError, match="recording"):
        track(**columns)


def test_files_that_are_no_recording_are_refused_with_what_to_do(
    tmp_path: Path, path: Path
) -> None:
    with pytest.raises(DriverError, match="export-recording"):
        RecordingDriver(RecordingOptions())
    cases: dict[str, Any] = {
        "missing": None,
        "text": b"not a zip file",
        "cut": path.read_bytes()[:200],
        "no header": {"position": np.zeros(3)},
        "foreign header": {"header": np.frombuffer(b'{"format": "x", "version": 1}', np.uint8)},
        "broken header": {"header": np.frombuffer(b"\xff\xfe", np.uint8)},
        "objects": {"header": np.array([{}], object)},
    }
    for name, content in cases.items():
        target = tmp_path / f"{name}.npz"
        if isinstance(content, dict):
            np.savez(target, allow_pickle=True, **content)
        elif content is not None:
            target.write_bytes(content)
        with pytest.raises(DriverError):
            RecordingDriver(RecordingOptions(str(target)))


def test_a_header_without_joints_or_rate_is_refused(tmp_path: Path) -> None:
    for change in (
        {"joints": []},
        {"rate_hz": 0.0},
        {"time_factor": 0.0},
        {"mode": "dance"},
        {"version": 2},
    ):
        data = {**json.loads(track().header.to_json()), **change}
        np.savez(tmp_path / "x.npz", header=np.frombuffer(json.dumps(data).encode(), np.uint8))
        with pytest.raises(DriverError):
            file.read_header(tmp_path / "x.npz")


@pytest.mark.parametrize("wrong", [{"speed": 0.0}, {"speed": nan}, {"tolerance": -1.0}])
def test_options_are_checked(path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(DriverError):
        RecordingOptions(str(path), **wrong)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[suite.Bench]:
    """Of a robot that stood still for two minutes."""
    folder = tmp_path_factory.mktemp("recording")
    rows = 12_000
    still = np.zeros((rows, 2))
    sent = np.full((rows, 5, 2), nan, np.float32)
    sent[:, 0] = 0.0
    joints = tuple(Joint(name, -1.0, 1.0, velocity=4.0) for name in ("hip", "knee"))
    header = Header("arm", joints, Mode.POSITION, 100.0)
    times = np.arange(rows) * PERIOD_NS
    made = Track(header, times, still, still, still, sent, np.zeros((rows, 0)))
    file.save(made, folder / "robot.npz")
    options = {"file": str(folder / "robot.npz"), "loop": True}
    with suite.bench(suite.Subject("recording", options)) as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("check", suite.CHECKS, ids=suite.name)
def test_conformance(check: suite.Check, bench: suite.Bench) -> None:
    """All that every driver has to, but that commands move it: that is what it is for."""
    outcome = suite.run(check, bench)
    if suite.name(check) == "commands_move_their_joint":
        assert outcome.verdict is suite.Verdict.FAILED
        return
    if outcome.verdict is suite.Verdict.SKIPPED:
        pytest.skip(outcome.seen)
    assert outcome.verdict is suite.Verdict.PASSED, outcome.seen
