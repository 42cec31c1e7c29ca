"""What this machine offers to a graph: looked at, measured for a moment, and judged."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from safetypilot.launch import doctor_realtime
from safetypilot.launch.finding import Finding

_NEEDED = ("numpy", "pyzmq", "msgpack", "mujoco", "gymnasium", "onnxruntime", "pydantic", "typer")


def examine(seconds: float = 1.0) -> list[Finding]:
    """All findings; takes about `seconds`."""
    return [
        _python(),
        *_packages(),
        _torch(),
        _cpus(),
        *doctor_realtime.examine(),
        _runtime_dir(),
        _jitter(seconds),
    ]


def _python() -> Finding:
    fine = sys.version_info >= (3, 11) and sys.platform == "linux"
    advice = "" if fine else "Linux and Python 3.11 or newer are needed"
    text = f"{platform.python_version()} on {platform.platform()}"
    return Finding("python", text, "ok" if fine else "bad", advice)


def _packages() -> list[Finding]:
    found = []
    for package in ("safetypilot", *_NEEDED):
        try:
            found.append(Finding(package, version(package)))
        except PackageNotFoundError:
            found.append(Finding(package, None, "bad", "make demo, or pip install safetypilot"))
    return found


def _torch() -> Finding:
    if find_spec("torch") is None:
        advice = "only training needs it: pip install -e '.[train]' in the checkout"
        return Finding("torch", None, "note", advice)
    return Finding("torch", version("torch"))


def _cpus() -> Finding:
    usable = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    text = f"{usable} of {os.cpu_count()} usable, load {load:.1f}"
    if usable < 2:
        return Finding("cpus", text, "note", "a graph of five nodes wants two or more")
    busy = load > 0.75 * usable
    return Finding("cpus", text, "note" if busy else "ok", "other work is running" if busy else "")


def _runtime_dir() -> Finding:
    from safetypilot.launch import runtime_dir

    try:
        base = runtime_dir.base_dir()
    except runtime_dir.RuntimeDirError as error:
        return Finding("runtime directory", None, "bad", str(error))
    if len(str(base)) > runtime_dir.LONGEST_BASE:
        return Finding("runtime directory", str(base), "bad", "set TMPDIR to a shorter path")
    running = [run.run_id for run in runtime_dir.running()]
    return Finding("runtime directory", f"{base}, running: {', '.join(running) or 'nothing'}")


def _jitter(seconds: float) -> Finding:
    """How late a sleeping process wakes up: the floor under every deadline."""
    lateness, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        wanted = time.monotonic_ns() + 2_000_000
        time.sleep(0.002)
        lateness.append((time.monotonic_ns() - wanted) / 1e3)
    lateness.sort()
    p50, worst = lateness[len(lateness) // 2], lateness[-1]
    p99 = lateness[int(len(lateness) * 0.99)] if len(lateness) >= 100 else None
    figures = {"p50": round(p50, 1), "p99": p99 and round(p99, 1), "max": round(worst, 1),
               "n": len(lateness)}  # fmt: skip
    late = (p99 or worst) > 2000
    advice = "wake-ups are late; fast graphs will miss deadlines here" if late else ""
    return Finding("timer lateness us", figures, "note" if late else "ok", advice)
