"""What this machine allows of a launch file's `realtime:` section, and what the rest would need.

What changes a process is tried in a child, so that this one keeps its own scheduling.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable
from pathlib import Path

from safetypilot.launch.finding import Finding
from safetypilot.nodes.kernel import addresses, schedule

_PR_GET_TIMERSLACK = 30
_KERNEL, _CPUS = Path("/proc/sys/kernel"), Path("/sys/devices/system/cpu")


def examine() -> list[Finding]:
    """One finding per setting of the section, then what the kernel does to those that use it."""
    return [
        _policy(), _throttling(), _memory(), _slack(), _addresses(), _isolated(), _governor(),
        _kernel(),
    ]  # fmt: skip


def _in_child(attempt: Callable[[], bool]) -> bool:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if attempt() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _policy() -> Finding:
    """`policy: fifo` and `priority`: the highest that may be asked for."""
    highest = schedule.HIGHEST
    soft, _ = resource.getrlimit(resource.RLIMIT_RTPRIO)
    for priority in (highest, min(soft - 1, highest)):
        if priority > 0 and _in_child(lambda p=priority: not schedule.try_fifo(p + 1)):  # type: ignore[misc]
            return Finding("policy: fifo", f"allowed, priority up to {priority}")
    advice = (
        "runs without; it needs CAP_SYS_NICE, or the line "
        f"`USER - rtprio {highest + 1}` in {schedule.LIMITS_FILE} and a new login"
    )
    return Finding("policy: fifo", f"refused, rtprio limit {soft}", "note", advice)


def _throttling() -> Finding:
    """What happens to a real-time process that never sleeps; ours give up long before."""
    name = "real-time throttling"
    share, period = (_number(_KERNEL / f"sched_rt_{what}_us") for what in ("runtime", "period"))
    if share is None or period is None:
        return Finding(name, "unknown", "note", f"{_KERNEL} has no sched_rt_runtime_us")
    if share < 0:
        return Finding(name, "off")
    free = (period - share) / 1e3
    text = f"ordinary work gets {free:g} ms of each {period / 1e6:g} s on a CPU"
    guard = schedule.RUNAWAY_US / 1e6
    advice = f"a node that does not sleep for {guard:g} s loses its policy before that"
    return Finding(name, text, "ok", advice)


def _memory() -> Finding:
    """`lock_memory: on`."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    limit = "unlimited" if soft == resource.RLIM_INFINITY else f"limit {soft // 1024} KiB"
    if schedule.may_lock():
        return Finding("lock_memory", f"allowed, {limit}")
    advice = (
        "runs without; it needs CAP_IPC_LOCK, or the line "
        f"`USER - memlock unlimited` in {schedule.LIMITS_FILE} and a new login"
    )
    return Finding("lock_memory", f"refused, {limit}", "note", advice)


def _slack() -> Finding:
    """`timer_slack_us`: anybody may set it."""
    slack = ctypes.CDLL(None).prctl(_PR_GET_TIMERSLACK, 0, 0, 0, 0)
    return Finding("timer_slack_us", f"{slack / 1e3:g} by default, any may be asked for")


def _addresses() -> Finding:
    """`fixed_addresses`: anybody may, unless a container's filter is against it."""
    with addresses.fix(True) as fixed:
        if fixed:
            return Finding("fixed_addresses", "allowed")
    advice = "runs without; let the container's seccomp profile allow personality()"
    return Finding("fixed_addresses", "refused", "note", advice)


def _isolated() -> Finding:
    """`cpus`: which there are, and whether any is kept free of other work."""
    here = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
    isolated = _text(_CPUS / "isolated")
    if isolated:
        return Finding("cpus to pin to", f"{here}; isolated: {isolated}")
    advice = "for the last microseconds boot with isolcpus= and pin the control path there"
    return Finding("cpus to pin to", f"{here}; none is isolated", "ok", advice)


def _governor() -> Finding:
    """A CPU that clocks down between two steps wakes up slow."""
    found = {_text(path) for path in _CPUS.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    if not found:
        return Finding("cpu governor", "none here")
    fine = found == {"performance"}
    advice = "" if fine else "cpupower frequency-set -g performance keeps the clock up"
    return Finding("cpu governor", ", ".join(sorted(found)), "ok" if fine else "note", advice)


def _kernel() -> Finding:
    """Whether the kernel itself can be interrupted everywhere."""
    full = _text(Path("/sys/kernel/realtime")) == "1"
    kind = (
        "PREEMPT_RT"
        if full
        else next(
            (word for word in os.uname().version.split() if word.startswith("PREEMPT")),
            "no preemption",
        )
    )
    advice = "" if full else "a PREEMPT_RT kernel bounds the longest delay"
    return Finding("kernel preemption", kind, "ok", advice)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.lstrip("-").isdigit() else None
