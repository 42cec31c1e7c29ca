"""The quadruped, flown by the real graph: in the simulator, and as a robot on DDS in real time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flights import launch
from robots_in_flight import QUADRUPED, Kind, Robot

LOCKSTEP = ("--clock", "lockstep", "--in-process", "--episodes", "1", "--seed", "5")
TILTED = {"at_s": 0.0, "body": "trunk", "duration_s": 0.2}


@pytest.mark.parametrize("policy", ["trained", "novice"])
def test_in_the_simulator_it_holds_what_it_is_told_or_is_caught(
    tmp_path: Path, policy: str
) -> None:
    summary = launch(tmp_path / "run", "quadruped", f"policy={policy}", *LOCKSTEP)
    assert summary["episodes"] == 1 and summary["violations"] == 0
    assert summary["successes"] == (policy == "trained")
    assert bool(summary["interventions"]) == (policy == "novice")


def test_without_the_shield_the_bad_policy_falls(tmp_path: Path) -> None:
    summary = launch(tmp_path / "run", "quadruped", "policy=novice", "shield=off", *LOCKSTEP)
    assert summary["violations"] == 1


def on_dds(
    folder: Path, pushes: list[dict[str, Any]], *arguments: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A flight in real time; its summary, and what the robot itself says happened."""
    disturb = folder / "pushes.json"
    disturb.write_text(json.dumps(pushes))
    words = [*QUADRUPED.device(folder), "--disturb", str(disturb), "--with-parent"]
    kind = Kind("quadruped", lambda _: words, QUADRUPED.graph, 0.05, 0.1, 1.0)
    robot = Robot(kind, folder)
    try:
        summary = launch(folder / "run", *kind.graph(robot.ready), *arguments)
    finally:
        robot.close()
    return summary, robot.events()


@pytest.mark.slow
def test_on_dds_it_stands_up_and_holds_height_and_yaw(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedds")
    summary, events = on_dds(tmp_path, [], "--episodes", "1")
    assert (summary["successes"], summary["violations"]) == (1, 0)
    seen = [event["event"] for event in events]
    assert "standing" in seen and "fell" not in seen


@pytest.mark.slow
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_on_dds_it_is_pushed_and_lies_down_instead_of_falling(tmp_path: Path, side: float) -> None:
    pytest.importorskip("cyclonedds")
    push = TILTED | {"at_s": 14.0, "force": [0.0, 170.0 * side, 0.0]}
    summary, events = on_dds(tmp_path, [push], "--episodes", "2")
    assert summary["violations"] == 0 and summary["interventions"] > 0
    seen = [event["event"] for event in events]
    assert seen.index("standing") < seen.index("lying") and "fell" not in seen


@pytest.mark.slow
def test_on_dds_a_bad_policy_is_caught_and_the_robot_lies_down(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedds")
    summary, events = on_dds(tmp_path, [], "policy=novice", "--episodes", "1")
    assert summary["violations"] == 0 and summary["interventions"] > 0
    seen = [event["event"] for event in events]
    assert seen.index("standing") < seen.index("lying") and "fell" not in seen


@pytest.mark.slow
def test_on_dds_without_the_shield_the_bad_policy_falls(tmp_path: Path) -> None:
    """So the catch of the others is the shield's."""
    pytest.importorskip("cyclonedds")
    summary, _ = on_dds(tmp_path, [], "policy=novice", "shield=off", "--episodes", "1")
    assert summary["violations"] == 1
