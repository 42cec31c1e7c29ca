"""Where the measurements were made: what a reader needs to judge them."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from safetypilot.launch import report

_PACKAGES = ("safetypilot", "pyzmq", "onnxruntime", "numpy", "msgpack", "dora-rs", "dora-rs-cli",
             "eclipse-zenoh", "cyclonedds", "ray", "mcap")  # fmt: skip


def host() -> dict[str, Any]:
    """Machine, kernel and what bounds its punctuality."""
    return {
        "system": platform.platform(),
        "kernel": platform.release(),
        "preemption": platform.version(),
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "usable_cpus": sorted(os.sched_getaffinity(0)),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "not exposed",
        "hypervisor": _read("/sys/hypervisor/type") or _read("/sys/class/dmi/id/product_name"),
        "virtual": "hypervisor" in _read("/proc/cpuinfo"),
        "clock_source": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "rt_runtime_us": _read("/proc/sys/kernel/sched_rt_runtime_us"),
        "rt_period_us": _read("/proc/sys/kernel/sched_rt_period_us"),
        "load_average": os.getloadavg(),
    }


def versions() -> dict[str, str]:
    """Of Python and of all that takes part."""
    return report.versions(_PACKAGES)


def stolen_ticks() -> dict[str, int]:
    """CPU -> hundredths of a second that the hypervisor gave to others, since the start."""
    lines = [line.split() for line in _read("/proc/stat").splitlines()]
    return {words[0]: int(words[8]) for words in lines
            if words and words[0].startswith("cpu") and words[0] != "cpu"}  # fmt: skip


def _cpu_model() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
