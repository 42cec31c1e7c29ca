"""Replay: the same answers to the same inputs, others to others, and the same again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from safetypilot.launch import cli, comparison, replaying
from safetypilot.nodes.kernel import messages, trace
from safetypilot.nodes.recording_file import Recorded, Recording

ACTION = np.array([0.05, 0.0], np.float32)


def call(*words: str) -> Any:
    return CliRunner().invoke(cli.app, list(words), prog_name="safetypilot")


def replay(*words: str) -> dict[str, Any]:
    result = call("replay", *words, "--json")
    assert result.exit_code == 0, result.output
    outcome: dict[str, Any] = json.loads(result.stdout)
    return outcome


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of a few episodes of the maze, flown by the novice, in lockstep."""
    out = tmp_path_factory.mktemp("flight")
    words = ("launch", "maze", "policy=novice", "record=on", "--clock", "lockstep", "--in-process",
             "--episodes", "3", "--out", str(out))  # fmt: skip
    result = call(*words)
    assert result.exit_code == 0, result.output
    return out


def test_a_lockstep_run_records_every_frame_and_its_trace_stays(
    flight: Path, tmp_path: Path
) -> None:
    summary = json.loads((flight / "summary.json").read_text())
    read = list(Recording(flight / "recording.mcap"))
    steps = [m for topic, m in read if topic == "transition"]
    assert len(steps) == summary["steps"]
    row = summary["nodes"]["recorder"]["node"]
    assert row["messages"] == len(read) and row["failure"] == ""
    words = ("launch", "maze", "policy=novice", "--clock", "lockstep", "--in-process",
             "--episodes", "3", "--out", str(tmp_path))  # fmt: skip
    assert call(*words).exit_code == 0
    bare = json.loads((tmp_path / "summary.json").read_text())
    assert bare["trace_sha256"] == summary["trace_sha256"]


def test_a_full_disk_costs_a_lockstep_run_its_recording_only(tmp_path: Path) -> None:
    (tmp_path / "recording.mcap").symlink_to("/dev/full")
    words = ("launch", "maze", "record=on", "--clock", "lockstep", "--in-process",
             "--episodes", "1", "--out", str(tmp_path))  # fmt: skip
    result = call(*words)
    assert result.exit_code == 0 and "recording failed" in result.output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert "No space left" in summary["nodes"]["recorder"]["node"]["failure"]


def test_the_same_arbiter_decides_the_same(flight: Path) -> None:
    outcome = replay(str(flight / "recording.mcap"), "maze")
    assert outcome["nodes"] == ["arbiter"] and outcome["whole"]
    for row in outcome["topics"].values():
        assert row["compared"] > 100 and row["differ"] == 0
        assert row["only_recorded"] == row["only_replayed"] == 0


def test_another_threshold_decides_otherwise_and_always_the_same_way(flight: Path) -> None:
    words = (str(flight / "recording.mcap"), "maze", "--set", "arbiter.eps=0.02")
    outcome = replay(*words)
    assert outcome == replay(*words)
    decisions, commands = outcome["topics"]["decision"], outcome["topics"]["command"]
    assert decisions["differ"] == commands["differ"] > 0
    assert decisions["changes"] == {
        "TASK (APPROVED) -> RECOVERY (RISK_TOO_HIGH)": decisions["differ"]
    }
    first = decisions["first"]
    recorded = {m.seq: m for t, m in Recording(flight / "recording.mcap") if t == "risk"}
    assert 0.02 < recorded[first["seq"]].risk <= 0.15
    armed = first["seq"] - 3
    assert all(recorded[seq].risk <= 0.02 for seq in range(3, 3 + armed))


def test_the_whole_loop_but_the_plant_answers_as_it_did(flight: Path, tmp_path: Path) -> None:
    nodes = "task_policy,safety_critic,recovery_planner,arbiter"
    out = tmp_path / "answers.mcap"
    words = (str(flight / "recording.mcap"), "maze", "policy=novice", "--nodes", nodes)
    outcome = replay(*words, "-o", str(out))
    assert set(outcome["topics"]) == {"proposal", "risk", "recovery", "command", "decision"}
    assert all(row["differ"] == 0 for row in outcome["topics"].values())
    kept = {topic for topic, _ in Recording(out)}
    assert kept == set(outcome["topics"])


def test_another_policy_is_named_where_it_differs_first(flight: Path) -> None:
    result = call("replay", str(flight / "recording.mcap"), "maze", "--nodes", "task_policy")
    assert result.exit_code == 0
    assert "another proposal" in result.output and "first at seq 0" in result.output


def test_a_recording_that_was_cut_off_is_replayed_as_far_as_it_goes(
    flight: Path, tmp_path: Path
) -> None:
    data = (flight / "recording.mcap").read_bytes()
    (tmp_path / "cut.mcap").write_bytes(data[: len(data) // 2])
    outcome = replay(str(tmp_path / "cut.mcap"), "maze")
    assert not outcome["whole"]
    assert outcome["topics"]["decision"]["compared"] > 10
    assert outcome["topics"]["decision"]["differ"] == 0


def test_what_does_not_fit_is_refused(flight: Path, tmp_path: Path) -> None:
    recording = str(flight / "recording.mcap")
    other = call("replay", recording, "navigation1")
    assert other.exit_code == 2 and "was recorded in safetypilot/Maze-v0" in other.output
    few = tmp_path / "few.mcap"
    words = (recording, "maze", "policy=novice", "--nodes", "task_policy", "-o", str(few))
    replay(*words)
    lacking = call("replay", str(few), "maze", "--nodes", "safety_critic")
    assert lacking.exit_code == 2
    assert "--nodes simulator,safety_critic" in lacking.output


def of_step(risk_sent: int, taken: int, used: bool) -> tuple[Any, Any]:
    """A risk and the command of its step, which was decided with or without it."""
    risk = messages.Risk(7, 100, risk_sent, 1, 0.1, "m", 150)
    proposal = messages.Proposal(7, 100, 140, 1, ACTION, "m", 120)
    chain = trace.of_command(proposal, risk if used else None, None, taken)
    command = messages.Command(
        7, 100, taken + 10, ACTION, 0, 0, 1, ACTION, 0.1, 900, False, "m", chain
    )
    return risk, command


@pytest.mark.parametrize("used", [True, False])
def test_what_was_on_its_way_when_the_arbiter_decided_arrives_after_its_command(
    used: bool,
) -> None:
    risk, command = of_step(risk_sent=195, taken=200, used=used)
    topics = {"risk": "risk", "command": "command"}
    read: Any = [Recorded("command", command), Recorded("risk", risk)]
    came = list(replaying.arrivals(read, topics))
    assert [a.topic for a in came] == (["risk", "command"] if used else ["command", "risk"])
    assert [a.at_ns for a in came] == ([195, 210] if used else [210, 211])


def test_messages_are_sorted_however_they_lie_in_the_file() -> None:
    seqs = np.random.default_rng(0).permutation(500)
    read: Any = [
        Recorded("observation", messages.Observation(int(s), int(s), int(s) * 10**6, 0, 0, ACTION))
        for s in seqs
    ]
    came = [a.message.seq for a in replaying.arrivals(read, {"observation": "observation"})]
    assert came == sorted(came)


def decision(seq: int, source: int, reason: int) -> messages.Decision:
    return messages.Decision(
        seq, seq * 10**9, seq * 10**9, source, reason, 0, 0, 0.1, 0.15, 0, 0, 0, 0, ""
    )  # fmt: skip


def test_a_comparison_pairs_by_number_whichever_comes_first() -> None:
    found = comparison.Comparison({"decision": "decision", "transition": "transition"})
    approved, unarmed = (0, 0), (3, 11)
    for seq, (before, after) in enumerate(
        [(unarmed, approved), (approved, approved), (approved, (1, 67)), (approved, (1, 67))]
    ):
        both = [
            lambda s=seq, b=before: found.recorded("decision", decision(s, *b)),
            lambda s=seq, a=after: found.replayed("decision", decision(s, *a)),
        ]
        for say in both if seq % 2 else reversed(both):
            say()
    found.recorded("decision", decision(9, *approved))
    found.recorded("transition", None)
    (row,) = found.figures().values()
    assert (row["compared"], row["differ"], row["left_out"]) == (3, 2, 1)
    assert (row["only_recorded"], row["only_replayed"]) == (1, 0)
    assert list(row["changes"].values()) == [2]
    assert row["first"]["seq"] == 2 and row["first"]["recorded"].startswith("TASK (APPROVED)")
