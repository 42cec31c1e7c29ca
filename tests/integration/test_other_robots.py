"""The same graph on a robot behind ros2_control, and on a recording of itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flights import launch

from safetypilot.launch.robot_recording import export

MAZE = Path(__file__).parents[2] / "launch" / "configs" / "maze.yaml"
DEVICE = [sys.executable, "-P", "-m", "safetypilot.bridge.devices.ros2"]


def launch_file(folder: Path, driver: str, options: dict[str, object]) -> str:
    """The maze with options for a driver of which it knows nothing."""
    bridge = {"config": {"options": {driver: options}}}
    text = {"name": f"maze_{driver}", "include": [str(MAZE)], "nodes": {"bridge": bridge}}
    file = folder / f"{driver}.yaml"
    file.write_text(json.dumps(text))
    return str(file)


@pytest.mark.integration
def test_the_maze_flies_on_a_robot_of_ros_2(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedds")
    words = ["--model", "maze.xml", "--domain", "free", "--time-factor", "50", "--with-parent"]
    device = subprocess.Popen([*DEVICE, *words], stdout=subprocess.PIPE, text=True)
    assert device.stdout is not None
    try:
        domain = json.loads(device.stdout.readline())["domain"]
        joint = {"unit": "m", "low": -0.3, "high": 0.3, "velocity": 1.0}
        options = {
            "domain": domain, "connect_s": 30.0, "rate_hz": 50.0, "time_factor": 50.0,
            "simulated": True, "joints": {"slide_x": joint, "slide_y": joint},
        }  # fmt: skip
        file = launch_file(tmp_path, "ros2", options)
        flown = ("plant=bridge", "driver=ros2", "arm=auto", "--episodes", "3")
        summary = launch(tmp_path / "run", file, *flown)
    finally:
        device.terminate()
        device.communicate(timeout=60)
    assert summary["episodes"] == 3 and summary["successes"] >= 2


@pytest.mark.integration
@pytest.mark.slow
def test_a_recorded_robot_is_asked_for_what_it_was_told(tmp_path: Path) -> None:
    flown = ("maze", "plant=bridge", "arm=auto", "record=on", "--episodes", "3")
    launch(tmp_path / "run", *flown)
    done = export([tmp_path / "run" / "recording.mcap"], tmp_path / "robot.npz")
    assert done.rows > 10
    options = {"file": str(tmp_path / "robot.npz"), "keep": str(tmp_path / "asked.npz")}
    file = launch_file(tmp_path, "recording", options)
    launch(
        tmp_path / "again", file, "plant=bridge", "driver=recording", "arm=auto",
        "--duration", str(done.duration_s + 3.0), check=False,
    )  # fmt: skip
    with np.load(tmp_path / "asked.npz") as kept:
        distance = np.abs(kept["asked"] - kept["told"]).max(axis=1)
    asked = distance[np.isfinite(distance)]
    assert len(asked) > done.rows / 2
    assert np.median(asked) < 1e-6  # steps that were late on a busy machine are others
