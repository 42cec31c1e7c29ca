"""The quadruped, flown by the real graph: in the simulator, and as a robot on DDS."""

from __future__ import annotations

import json
from itertools import dropwhile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flights import launch
from robots_in_flight import QUADRUPED, Kind, Robot

from safetypilot.envs import quadruped_names
from safetypilot.envs.quadruped_body import pose_of, tilt_of
from safetypilot.nodes.recording_file import Recording

LOCKSTEP = ("--clock", "lockstep", "--in-process", "--seed", "5")
SLOW = Path(__file__).parent / "quadruped_slow.yaml"
DEVICE = ("--time-factor", "0.2", "--timeout", "0.5", "--with-parent")


def test_in_the_simulator_it_stands_up_and_holds_what_it_is_told(tmp_path: Path) -> None:
    summary = launch(tmp_path / "run", "quadruped", "--episodes", "1", *LOCKSTEP)
    assert (summary["successes"], summary["violations"]) == (1, 0)


@pytest.mark.parametrize("shield", ["on", "off"])
def test_in_the_simulator_a_bad_policy_is_caught_by_the_shield(tmp_path: Path, shield: str) -> None:
    arguments = ("quadruped", "policy=novice", f"shield={shield}", "--episodes", "1")
    summary = launch(tmp_path / "run", *arguments, *LOCKSTEP)
    assert summary["violations"] == (shield == "off")
    assert (summary["interventions"] > 100) == (shield == "on")


class Moment(NamedTuple):
    """What was seen at an observation, and who acted."""

    height: float
    tilt: float
    source: int

    @property
    def lies(self) -> bool:
        return self.height < quadruped_names.LYING_HEIGHT + 0.02 and self.tilt < 0.1

    @property
    def stands(self) -> bool:
        return self.height > 0.22 and self.tilt < 0.1


def on_dds(
    folder: Path, pushes: list[dict[str, Any]], *arguments: str
) -> tuple[dict[str, Any], list[Moment]]:
    """A flight in slow motion; its summary, and all that was seen."""
    pytest.importorskip("cyclonedds")
    disturb = folder / "pushes.json"
    disturb.write_text(json.dumps(pushes))
    words = [*QUADRUPED.device(folder), "--disturb", str(disturb), *DEVICE]
    robot = Robot(Kind("quadruped", lambda _: words, QUADRUPED.graph, 0.5, 1.0, 1.0), folder)
    graph = [str(SLOW), *QUADRUPED.graph(robot.ready)[1:], "record=on"]
    try:
        summary = launch(folder / "run", *graph, *arguments)
    finally:
        robot.close()
    (recording,) = (folder / "run").glob("recording*.mcap")
    steps: list[Any] = [each.message for each in Recording(recording) if each.topic == "transition"]
    rows = [(step.next_observation, step.source) for step in steps]
    return summary, [Moment(pose_of(seen).height, tilt_of(seen), who) for seen, who in rows]


def push(at_s: float, y: float) -> dict[str, Any]:
    return {"at_s": at_s, "body": "trunk", "force": [60.0, y, 0.0], "duration_s": 0.2}


@pytest.mark.slow
def test_on_dds_it_stands_up_and_holds_height_and_yaw(tmp_path: Path) -> None:
    summary, seen = on_dds(tmp_path, [], "--episodes", "1")
    assert (summary["successes"], summary["violations"]) == (1, 0)
    assert seen[0].lies and any(moment.stands for moment in seen)


@pytest.mark.slow
def test_on_dds_it_is_pushed_and_lies_down_instead_of_falling(tmp_path: Path) -> None:
    pushes = [push(9.0, 160.0), push(13.0, -160.0)]
    summary, seen = on_dds(tmp_path, pushes, "--episodes", "2")
    assert summary["violations"] == 0
    assert max(moment.tilt for moment in seen) > 0.1
    pushed = dropwhile(lambda moment: moment.tilt < 0.1 or moment.source == 0, seen)
    assert any(moment.lies for moment in pushed)
    assert any(moment.stands for moment in pushed)


@pytest.mark.slow
def test_on_dds_a_bad_policy_is_caught_and_the_robot_lies_down(tmp_path: Path) -> None:
    summary, seen = on_dds(tmp_path, [], "policy=novice", "--episodes", "1")
    assert (summary["successes"], summary["violations"]) == (0, 0)
    up = dropwhile(lambda moment: not moment.stands, seen)
    caught = dropwhile(lambda moment: moment.source == 0, up)
    assert any(moment.lies for moment in caught)


@pytest.mark.slow
def test_on_dds_without_the_shield_the_bad_policy_falls(tmp_path: Path) -> None:
    """So the catch of the others is the shield's."""
    summary, _ = on_dds(tmp_path, [], "policy=novice", "shield=off", "--episodes", "1")
    assert summary["violations"] == 1
