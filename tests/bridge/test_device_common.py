"""What simulated devices share: their clock, their log, their pushes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.devices import common
from safetypilot.bridge.devices.common import EventLog, Pace, above_zero, read_pushes

MS = 1_000_000
BURST = common._BURST


def make_pace(monkeypatch: pytest.MonkeyPatch, *arguments: float) -> Pace:
    monkeypatch.setattr(common, "monotonic_ns", lambda: 0)
    return Pace(*arguments)


@settings(deadline=None)
@given(gaps=st.lists(st.integers(0, 3 * MS), min_size=1, max_size=200))
def test_physics_follows_the_clock_however_often_it_is_asked(gaps: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        pace = make_pace(patch, 0.0005, 2.0, 0.001)  # 4 steps of device time per ms
    now = steps = 0
    for gap in gaps:
        now += gap
        steps += pace.due(now)
        assert abs(steps - now * 4 / MS) <= 1
        assert now < pace.next_ns <= now + MS
    assert pace.skipped == 0


@settings(deadline=None)
@given(stall=st.integers(0, 10**12), then=st.integers(0, 20))
def test_after_a_stall_it_makes_up_for_a_few_ticks_and_counts_the_rest(
    stall: int, then: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        pace = make_pace(patch, 0.001)
    steps = pace.due(stall)
    assert steps <= BURST
    assert steps + pace.skipped == stall // MS
    for tick in range(1, then + 1):
        assert pace.due(stall + tick * MS) == 1  # as if nothing had been


def test_a_clock_that_goes_back_makes_no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = make_pace(monkeypatch, 0.001)
    assert pace.due(3 * MS) == 3
    assert pace.due(2 * MS) == 0
    assert pace.due(4 * MS) == 1


def test_events_are_lines_that_can_be_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "events"
    log = EventLog(path)
    log("ready", socket="here")
    for _ in range(3):
        log.refuse("crc")
    log.refuse("mode", mode="pd")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["event"], row.get("cause")) for row in rows] == [
        ("ready", None),
        ("refused", "crc"),
        ("refused", "mode"),
    ]
    assert rows[0]["socket"] == "here" and rows[2]["mode"] == "pd"
    assert rows[0]["at_ns"] <= rows[1]["at_ns"] <= rows[2]["at_ns"]
    log.end(ticks=7)
    log("too late")
    last = [json.loads(line) for line in path.read_text().splitlines()][-1]
    assert (last["event"], last["ticks"]) == ("ended", 7)
    assert last["refused"] == {"crc": 3, "mode": 1}
    assert path.stat().st_mode & 0o077 == 0


def test_a_log_without_a_file_counts_all_the_same() -> None:
    log = EventLog(None)
    log("ready")
    log.refuse("crc")
    log.end()
    assert log.refused == {"crc": 1}


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf"])
def test_an_option_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="above 0"):
        above_zero(text)
    assert above_zero("0.5") == 0.5


PUSH: dict[str, Any] = {"at_s": 1, "body": "trunk", "force": [0, 5, 0], "duration_s": 0.5}


def test_a_push_lasts_as_long_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "pushes.json"
    path.write_text(json.dumps([PUSH]))
    (push,) = read_pushes(path, ["world", "trunk"])
    assert push.force == (0.0, 5.0, 0.0)
    assert [push.lasts(time) for time in (0.99, 1.0, 1.49, 1.5)] == [False, True, True, False]
    assert read_pushes(None, []) == ()


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "3",
        json.dumps([3]),
        json.dumps([PUSH | {"force": [1, 2]}]),
        json.dumps([PUSH | {"at_s": float("nan")}]),
        json.dumps([PUSH | {"body": "tail"}]),
        json.dumps([{"body": "trunk"}]),
    ],
)
def test_pushes_that_make_no_sense_are_refused_with_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pushes.json"
    path.write_text(text)
    with pytest.raises(DriverError, match=r"pushes\.json"):
        read_pushes(path, ["trunk"])
    with pytest.raises(DriverError, match="nowhere"):
        read_pushes(tmp_path / "nowhere.json", ["trunk"])
