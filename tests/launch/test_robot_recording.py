"""A recorded run becomes a robot that plays it."""

from __future__ import annotations

import json
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safetypilot.bridge import registry
from safetypilot.bridge.contract import Mode
from safetypilot.bridge.protocols import recording
from safetypilot.launch import robot_recording
from safetypilot.launch.cli_common import InputError
from safetypilot.launch.graph import load
from safetypilot.launch.robot_recording import export
from safetypilot.nodes.kernel.messages import Actuation
from safetypilot.nodes.kernel.wire import codecs
from safetypilot.nodes.recording_file import RecordingWriter, Settings

PERIOD_NS = 20_000_000


def actuation(number: int, state: str = "active", **changes: Any) -> Actuation:
    sent = np.full((5, 2), nan, np.float32)
    sent[0] = number
    measured = np.full((3, 2), 0.125 * number, np.float32)
    stamp_ns = 10**9 + number * PERIOD_NS
    message = Actuation(
        number, stamp_ns, stamp_ns + 1000, state, 0, number, stamp_ns, measured, sent,
        np.zeros(0, np.float32),
    )  # fmt: skip
    return message._replace(**changes)


def recorded(folder: Path, rows: list[Actuation], plant: str = "bridge") -> Path:
    """What a run with record=on leaves behind."""
    folder.mkdir(exist_ok=True)
    graph = load("maze", [f"plant={plant}", "record=on"])
    (folder / "launch.json").write_text(json.dumps(graph.to_dict()))
    described = graph.plan().describe()
    described["topics"]["actuation"] = {"type": "actuation"}
    writer = RecordingWriter(Settings(folder / "recording.mcap"), described)
    encode = codecs({"O": 4, "A": 2})[Actuation].encode
    for row in rows:
        writer.write("actuation", encode(row))
    writer.close()
    return folder / "recording.mcap"


def test_a_run_becomes_a_robot_with_its_joints_and_pace(tmp_path: Path) -> None:
    rows = [actuation(n, "configured") for n in range(3)]
    rows += [actuation(n) for n in range(3, 40)]
    rows += [actuation(n, "fault") for n in range(40, 45)]
    file = recorded(tmp_path / "run", rows)
    done = export([file], tmp_path / "robot.npz")
    assert (done.rows, done.joints, done.skipped) == (37, 2, 0)
    assert done.duration_s == pytest.approx(36 * 0.02)

    track = recording.load(tmp_path / "robot.npz")
    assert track.position[0].tolist() == [0.375, 0.375]  # the first active one
    assert track.sent[0, 0].tolist() == [3.0, 3.0] and np.isnan(track.sent[0, 1:]).all()
    assert np.diff(track.time_ns).tolist() == [PERIOD_NS] * 36

    original = load("maze", ["plant=bridge"]).node("bridge").config
    robot = registry.describe("mujoco", original["options"]["mujoco"])
    played = registry.describe("recording", {"file": str(tmp_path / "robot.npz")})
    assert played.joints == robot.joints and played.modes == (Mode.POSITION,)
    assert played.rate_hz == 50.0 and played.time_factor == robot.time_factor
    assert played.simulated


def test_the_same_launch_file_flies_on_it(tmp_path: Path) -> None:
    """By what both declare; nothing runs."""
    file = recorded(tmp_path / "run", [actuation(n) for n in range(9)])
    export([file], tmp_path / "robot.npz")
    config = {**load("maze", ["plant=bridge"]).node("bridge").config, "driver": "recording"}
    config["options"] = {"recording": {"file": str(tmp_path / "robot.npz")}}
    description, body = robot_recording.robots.robot_of(config, PERIOD_NS)
    assert description.name.endswith("(recorded)") and body.mode == "position"


def test_states_that_were_seen_twice_or_came_late_are_skipped(tmp_path: Path) -> None:
    rows = [actuation(0), actuation(1), actuation(2, device_seq=1), actuation(4), actuation(3),
            actuation(4, stamp_ns=10**9 + 4 * PERIOD_NS, device_seq=5)]  # fmt: skip
    done = export([recorded(tmp_path / "run", rows)], tmp_path / "robot.npz")
    track = recording.load(tmp_path / "robot.npz")
    assert track.position[:, 0].tolist() == [0.0, 0.125, 0.375, 0.5] and done.skipped == 2


def test_several_files_of_one_recording(tmp_path: Path) -> None:
    first = recorded(tmp_path / "run", [actuation(n) for n in range(5)])
    first.rename(tmp_path / "run" / "a.mcap")
    second = recorded(tmp_path / "run", [actuation(n) for n in range(5, 9)])
    both = [tmp_path / "run" / "a.mcap", second]
    assert export(both, tmp_path / "robot.npz").rows == 9


def test_a_robot_that_was_never_active_is_played_whole(tmp_path: Path) -> None:
    file = recorded(tmp_path / "run", [actuation(n, "configured") for n in range(5)])
    assert export([file], tmp_path / "robot.npz").rows == 5


def test_what_cannot_become_a_robot_is_said(tmp_path: Path) -> None:
    good = recorded(tmp_path / "run", [actuation(n) for n in range(5)])
    output = tmp_path / "robot.npz"
    text = tmp_path / "text.json"
    text.write_text("{")
    no_bridge = recorded(tmp_path / "simulated", [actuation(n) for n in range(5)], "simulator")
    cases = [
        ([good], tmp_path / "robot.zip", None, r"\.npz"),
        ([good], output, tmp_path / "nothing.json", "--launch"),
        ([good], output, text, "no resolved launch file"),
        ([tmp_path / "none.mcap"], output, good.with_name("launch.json"), "none.mcap"),
        ([no_bridge], output, None, "no bridge"),
        ([recorded(tmp_path / "short", [actuation(0)])], output, None, "actuation"),
        ([good], tmp_path / "no folder" / "robot.npz", None, "No such file"),
    ]
    for files, target, launch, told in cases:
        with pytest.raises(InputError, match=told):
            export(files, target, launch)


@pytest.mark.parametrize(("sensors", "numbers", "sizes"), [
    ({"a": "N"}, 3, {"a": ("N", 3)}),
    ({"a": "N", "b": "m"}, 2, {"a": ("N", 1), "b": ("m", 1)}),
    ({"known": "m", "a": "N"}, 5, {"known": ("m", 2), "a": ("N", 3)}),
    ({"a": "N", "b": "m"}, 4, None),
    ({}, 1, None),
])  # fmt: skip
def test_whose_the_numbers_of_the_sensors_are(
    sensors: dict[str, str], numbers: int, sizes: dict[str, tuple[str, int]] | None
) -> None:
    class Its:
        pass

    description, body = Its(), Its()
    description.sensors, body.sensors = sensors, {"known": 2}  # type: ignore[attr-defined]
    if sizes is None:
        with pytest.raises(InputError, match="cannot be told"):
            robot_recording._sensors(description, body, numbers)  # type: ignore[arg-type]
    else:
        found = robot_recording._sensors(description, body, numbers)  # type: ignore[arg-type]
        assert found == sizes
