"""A graph in flight with everybody looking: recorder, record, latency, top; and their deaths."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flights import SAFETYPILOT, Flight, alive, eventually
from mcap.reader import make_reader

from safetypilot.nodes.kernel import trace
from safetypilot.nodes.recording_file import Recording

Fly = Callable[..., Flight]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
TOPICS = {"observation", "proposal", "risk", "recovery", "command", "decision", "transition"}


def ask(*words: str) -> dict[str, Any]:
    """What a verb with --json says about the run."""
    done = subprocess.run(
        [*SAFETYPILOT, *words, "--json"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_everybody_may_look_and_sees_every_hop(fly: Fly, tmp_path: Path) -> None:
    flight = fly("maze", "record=on", "rate=25", "--duration", "12")
    outside = subprocess.Popen([*SAFETYPILOT, "record", "-o", str(tmp_path / "outside.mcap"),
                                "--topics", "transition,command"])  # fmt: skip
    looked = ask("latency", "-n", "1", "--every", "2")
    hops, total = looked["hops_us"], looked["hops_us"]["total"]
    assert looked["steps"] >= 25 and total["n"] == looked["steps"] - looked["missed"]
    assert {"policy", "critic", "planner", "arbiter", "risk_to_arbiter"} <= set(hops)
    assert hops["policy"]["p50"] + hops["critic"]["p50"] < total["p50"] < 40_000
    assert looked["age_at_use_us"]["proposal"]["p50"] < total["max"]
    rows = ask("top", "--once", "--every", "0.5")["nodes"]
    assert all(row["state"] == "active" and row["rss_mb"] > 10 for row in rows.values())
    assert rows["task_policy"]["rate_hz"] == pytest.approx(25, rel=0.3)
    assert rows["recorder"]["dropped"] == 0 and rows["simulator"]["missed_deadlines"] is not None
    code, summary = flight.finish()
    assert code == 0 and outside.wait(20) == 0
    recorded_whole(flight.out / "recording.mcap", summary)
    kept = list(Recording(tmp_path / "outside.mcap"))
    assert {topic for topic, _ in kept} == {"transition", "command"} and len(kept) > 100


def recorded_whole(path: Path, summary: dict[str, Any]) -> None:
    """From the first message to the last, with the whole chain of every step."""
    row = summary["nodes"]["recorder"]["node"]
    assert row["failure"] == "" and row["dropped"] == 0 and row["gaps"] == {}
    recording = Recording(path)
    read = list(recording)
    assert not recording.cut_off and len(read) == row["messages"]
    assert {topic for topic, _ in read} >= TOPICS
    steps = [message for topic, message in read if topic == "transition"]
    assert [step.seq for step in steps] == list(range(len(steps)))
    assert len(steps) >= summary["steps"]
    taken = [step for step in steps if trace.unpack(step.chain).plant_taken]
    assert len(taken) > 0.8 * len(steps)
    for step in taken:
        chain = trace.unpack(step.chain)
        assert chain.arbiter_taken <= chain.command_sent <= chain.plant_taken <= step.sent_ns
        if chain.risk_sent:
            assert step.stamp_ns == chain.policy_observed <= chain.policy_taken
            assert chain.policy_taken <= chain.proposal_sent <= chain.critic_taken
            assert chain.critic_taken <= chain.risk_sent <= chain.arbiter_taken
    with path.open("rb") as file:
        found = make_reader(file).get_summary()
        assert found is not None and found.statistics is not None
        assert found.statistics.message_count == len(read)


def test_a_killed_recorder_leaves_the_run_flying_and_its_file_readable(fly: Fly) -> None:
    flight = fly("maze", "record=on", "rate=50", "--duration", "10")
    path = flight.out / "recording.mcap"
    eventually(lambda: flight.status("recorder")["node"]["messages"] > 300, what="a recording")
    pid = flight.pid("recorder")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not alive(pid), what="its death")
    recording = Recording(path)
    read = list(recording)
    assert recording.cut_off and len(read) > 300
    again = flight.out / "recording-restart1.mcap"
    eventually(again.exists, what="the next recorder's file")
    code, summary = flight.finish()
    assert code == 0 and summary["restarts"] == {"recorder": 1}
    assert summary["failsafe_steps"] < 0.2 * summary["steps"] > 20
    later = [m.seq for topic, m in Recording(again) if topic == "observation"]
    assert len(later) > 50 and later[0] > max(m.seq for t, m in read if t == "observation")


def test_a_recorder_that_is_told_to_stop_closes_its_file(fly: Fly) -> None:
    flight = fly("maze", "record=on", "rate=25", "--duration", "8")
    eventually(lambda: flight.status("recorder")["node"]["messages"] > 30, what="a recording")
    pid = flight.pid("recorder")
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not alive(pid), what="its end")
    with (flight.out / "recording.mcap").open("rb") as file:
        found = make_reader(file).get_summary()
    assert found is not None and found.statistics is not None
    assert found.statistics.message_count > 20
    code, summary = flight.finish()
    assert code == 0 and not summary["restarts"] and summary["steps"] > 50


def test_a_recorder_whose_disk_is_full_does_not_hurt_the_run_and_says_so(
    fly: Fly, tmp_path: Path
) -> None:
    (tmp_path / "run0").mkdir()
    (tmp_path / "run0" / "recording.mcap").symlink_to("/dev/full")
    flight = fly("maze", "record=on", "rate=25", "--duration", "4")
    code, summary = flight.finish()
    row = summary["nodes"]["recorder"]["node"]
    assert code == 0 and not summary["restarts"] and summary["steps"] > 50
    assert row["failure"].endswith("No space left on device") and row["dropped"] > 100
    said = [e["text"] for e in summary["events"] if e["node"] == "recorder"]
    assert any("recording failed" in text for text in said)
    assert any(text.startswith("recorded") and "No space left" in text for text in said)
