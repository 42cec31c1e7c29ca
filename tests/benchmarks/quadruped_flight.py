"""Flies the quadruped on its simulated DDS robot, pushed and with a bad policy, and draws it.

    python tests/benchmarks/quadruped_flight.py --out runs/quadruped

Both flights are `safetypilot launch quadruped plant=bridge driver=unitree`, at 500 Hz in real time;
OUT/quadruped.png is made of what they recorded. `--draw` draws again without flying.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("MUJOCO_GL", "egl")

import mujoco

from safetypilot.envs import quadruped_names
from safetypilot.envs.quadruped import load_model
from safetypilot.envs.quadruped_body import pose_of, tilt_of
from safetypilot.launch.picture import COLOURS
from safetypilot.nodes.recording_file import Recording

DEVICE = [sys.executable, "-P", "-m", "safetypilot.bridge.devices.quadruped", "--with-parent"]
SAFETYPILOT = [sys.executable, "-P", "-m", "safetypilot.launch.cli"]
PUSH = {"at_s": 14.0, "body": "trunk", "force": [60.0, 160.0, 0.0], "duration_s": 0.2}
FLIGHTS = {"pushed": ("trained", [PUSH], 2), "bad-policy": ("novice", [], 1)}
TITLES = {
    "pushed": "The trained policy, pushed with 170 N",
    "bad-policy": "A policy that leans until it falls",
}
SOURCES = ("task policy", "recovery", "tail of a plan", "failsafe")
FRAMES, FRAME = 6, (216, 400)  # how many, and their width and height in pixels
EVERY = 10  # observations per point: 50 a second


@dataclass(frozen=True)
class Seen:
    """What a flight recorded, a row for each control step."""

    time_s: Any  # (N,)
    observation: Any  # (N, 32)
    source: Any  # (N,)
    risk: Any  # (N,)
    eps: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/quadruped"))
    parser.add_argument("--domain", type=int, default=61)
    parser.add_argument("--draw", action="store_true", help="what was recorded before")
    parser.add_argument("--priority", type=int, help="real-time, of the device, with realtime=on")
    parser.add_argument("argument", nargs="*", help="of the launch file, such as eps=0.3")
    options = parser.parse_args()
    if not options.draw:
        for name in FLIGHTS:
            fly(name, options)
    flights = {name: read(options.out / name) for name in FLIGHTS}
    draw(options.out / "quadruped.png", flights, options.out)


def fly(name: str, options: argparse.Namespace) -> None:
    """One flight, with a device of its own."""
    policy, pushes, episodes = FLIGHTS[name]
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)
    disturb, events = folder / "pushes.json", folder / "events.jsonl"
    disturb.write_text(json.dumps(pushes))
    events.unlink(missing_ok=True)
    words = ["--domain", str(options.domain), "--events", str(events), "--disturb", str(disturb)]
    device = subprocess.Popen([*DEVICE, *words], stdout=subprocess.PIPE, text=True)
    if options.priority:
        os.sched_setscheduler(device.pid, os.SCHED_FIFO, os.sched_param(options.priority))
    try:
        assert device.stdout is not None and json.loads(device.stdout.readline())["ready"]
        subprocess.run(
            [
                *(*SAFETYPILOT, "launch", "quadruped", "plant=bridge", "driver=unitree"),
                *(f"domain={options.domain}", f"policy={policy}", "record=on"),
                *(*options.argument, "--episodes", str(episodes), "--out", str(folder / "run")),
            ],
            check=True,
        )
    finally:
        device.terminate()
        device.communicate(timeout=20)


def read(folder: Path) -> Seen:
    """From the first step under command, with the device's clock."""
    rows: dict[int, Any] = {}
    risks: dict[int, tuple[float, float]] = {}
    times: dict[int, float] = {}
    for recorded in Recording(next((folder / "run").glob("recording*.mcap"))):
        message: Any = recorded.message
        if recorded.topic == "transition":
            rows[message.seq] = message
        elif recorded.topic == "decision":
            risks[message.seq] = (message.risk, message.eps)
        elif recorded.topic == "actuation":
            times[message.seq] = message.device_ns / 1e9
    kept = [seq for seq in sorted(rows) if seq in times and rows[seq].step % EVERY == 0]
    steps = [rows[seq] for seq in kept]
    known = [risks.get(seq, (float("nan"), float("nan"))) for seq in kept]
    time_s = np.array([times[seq] for seq in kept])
    return Seen(
        time_s,
        np.array([step.observation for step in steps]),
        np.array([step.source for step in steps]),
        np.array([risk for risk, _ in known]),
        float(np.nanmax([eps for _, eps in known])),
    )


def draw(path: Path, flights: dict[str, Seen], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        5,
        len(flights),
        figsize=(13, 9),
        sharex="col",
        squeeze=False,
        height_ratios=(1.3, 1, 1, 1, 1),
        layout="constrained",
    )
    for column, (name, seen) in enumerate(flights.items()):
        start = seen.time_s[0]
        pushes = json.loads((out / name / "pushes.json").read_text())
        panels = axes[:, column]
        panels[0].set_title(TITLES[name], fontweight="bold")
        strip(panels[0], seen)
        curves(panels[1:], seen)
        for panel in panels[1:]:
            shade(panel, seen)
            for push in pushes:
                panel.axvline(push["at_s"] - start, color="#D55E00", linestyle=":")
        panels[-1].set_xlabel("s, of the robot")
    legend(figure)
    figure.savefig(path, dpi=110)


def curves(panels: Any, seen: Seen) -> None:
    """Height, yaw, tilt and risk over time."""
    time = seen.time_s - seen.time_s[0]
    poses = [pose_of(row) for row in seen.observation]
    rows = (
        ("height, m", [pose.height for pose in poses], seen.observation[:, -2]),
        ("yaw, rad", [pose.yaw for pose in poses], seen.observation[:, -1]),
        ("tilt, rad", [tilt_of(row) for row in seen.observation], quadruped_names.FALLEN),
        ("risk", seen.risk, seen.eps),
    )
    for panel, (label, values, wanted) in zip(panels, rows, strict=True):
        panel.plot(time, np.broadcast_to(wanted, time.shape), color="#888888", linestyle="--")
        panel.plot(time, values, color="#222222")
        panel.set_ylabel(label)
        panel.margins(x=0)


def shade(panel: Any, seen: Seen) -> None:
    """Who was in control, as the colour behind."""
    time = np.append(seen.time_s, seen.time_s[-1]) - seen.time_s[0]
    changes = np.flatnonzero(np.diff(seen.source, prepend=-1, append=-1))
    for first, after in pairwise(changes):
        colour = COLOURS[seen.source[first]]
        panel.axvspan(time[first], time[after], color=colour, alpha=0.25, linewidth=0)


def strip(panel: Any, seen: Seen) -> None:
    """The robot at some moments, above the time when it was so."""
    time = seen.time_s - seen.time_s[0]
    width = time[-1] / FRAMES
    model = load_model()
    model.vis.headlight.ambient[:] = 0.5
    model.vis.headlight.diffuse[:] = 0.5
    model.geom("floor").rgba[:] = 0.93, 0.93, 0.91, 1.0
    with mujoco.Renderer(model, FRAME[1], FRAME[0]) as renderer:
        for number in range(FRAMES):
            at = int(np.searchsorted(time, (number + 0.5) * width))
            pixels = picture(renderer, model, seen.observation[at])
            left = number * width
            panel.imshow(pixels, extent=(left, left + width, 0.0, 1.0), aspect="auto")
    panel.set(xlim=(0, time[-1]), ylim=(0, 1), yticks=[])
    panel.tick_params(bottom=False)


def picture(renderer: Any, model: Any, observation: Any) -> Any:
    """The robot as an observation says it is."""
    data = mujoco.MjData(model)
    pose = pose_of(observation)
    for name, angle in zip(quadruped_names.JOINTS, observation[6:18], strict=True):
        data.qpos[model.joint(name).qposadr[0]] = angle
    data.qpos[:3] = 0.0, 0.0, pose.height
    mujoco.mju_euler2Quat(data.qpos[3:7], np.array((pose.yaw, pose.pitch, pose.roll)), "zyx")
    mujoco.mj_kinematics(model, data)
    lowest = min(data.geom(leg).xpos[2] for leg in quadruped_names.LEGS)
    data.qpos[2] = max(pose.height + quadruped_names.FOOT_RADIUS - lowest, 0.057)
    mujoco.mj_forward(model, data)
    camera = mujoco.MjvCamera()
    camera.lookat[:] = 0.0, 0.0, 0.15
    camera.distance, camera.azimuth, camera.elevation = 1.35, 160.0, -24.0
    renderer.update_scene(data, camera)
    return renderer.render()


def legend(figure: Any) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=COLOURS[i], alpha=0.4, label=SOURCES[i]) for i in (0, 1, 3)]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)


if __name__ == "__main__":
    main()
