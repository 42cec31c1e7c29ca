"""The last line at full speed: read, limit, write against the MuJoCo device, as long as wanted."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from safetypilot.launch.bench.bridge_loop import ROBOTS


def run(
    rate: float = 1000.0, cycles: int = 60_000, joints: int = 12, realtime: bool = False
) -> dict[str, Any]:
    """Runs the loop in a process of its own.

    Args:
        rate: cycles per second.
        joints: 2 (the maze's puck) or 12 (the quadruped).
        realtime: SCHED_FIFO, locked memory and no garbage collection, as far as they are granted.

    Returns:
        Missed deadlines, what the host explains of them, costs in us, shares of a core, memory.

    Raises:
        ValueError: there is no robot with so many joints.
        RuntimeError: the loop failed; with its last words.
    """
    if joints not in ROBOTS:
        raise ValueError(f"joints is {joints}; there are robots with {sorted(ROBOTS)}")
    command = [sys.executable, "-P", "-m", "safetypilot.launch.bench.bridge_loop"]
    done = subprocess.run(
        [*command, str(rate), str(cycles), str(joints), str(int(realtime))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2] or "the loop failed")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def text(found: dict[str, Any]) -> str:
    """The figures for people."""
    missed, host = found["missed_deadlines"], found["missed_deadlines"]
    host -= found["missed_unexplained"]
    grown = [(after - before) / 1024 for before, after in
             (found["rss_bytes"], found["device_rss_bytes"])]  # fmt: skip
    cycle, work = found["cycle"], found["work"]
    high = cycle["p999_us"]
    shares = (
        f"limiter and life cycle: {found['vetting_share']:.1%} of a core; "
        f"the loop {found['loop_share']:.1%}, the device {found['device_share']:.1%}"
    )
    lines = [
        f"{cycle['n']:,} cycles at {found['rate_hz']:g} Hz, {found['joints']} joints",
        f"missed deadlines: {missed}, {host} of them by the host; no fresh state: {found['stale']}",
        f"cycle: p50 {cycle['p50_us']:.0f}, p99 {cycle['p99_us']:.0f}"
        + (f", p99.9 {high:.0f}" if high else "")
        + f", max {cycle['max_us']:.0f} us; work alone p50 {work['p50_us']:.0f} us",
        shares,
        f"memory grew by {grown[0]:.0f} KiB, the device's by {grown[1]:.0f} KiB",
    ]
    if found["refused"]:
        lines.append(f"the machine refuses: {', '.join(found['refused'])}")
    return "\n".join(lines) + "\n"
