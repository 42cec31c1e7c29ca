"""How a process asks the machine for punctuality: real-time policy, CPUs, memory, timer slack.

Every setting is asked for on its own; what the machine refuses is named, with what it would take,
and the process runs without it. The order matters (`apply`, then the ZeroMQ context, then the
node's `configure`, then `rise`): loading a model under SCHED_FIFO would starve the rest of the
control path for as long as it takes.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from safetypilot.nodes.kernel import addresses
from safetypilot.nodes.kernel.errors import NodeError

POLICIES, GC = ("fifo", "other"), ("off", "frozen", "on")
LOWEST, HIGHEST = 1, 98  # of SCHED_FIFO; the I/O thread needs one above its node
RUNAWAY_US, KILLED_US = 400_000, 2_400_000  # without sleeping, under a real-time policy
LIMITS_FILE = "/etc/security/limits.conf"
_PR_SET_TIMERSLACK, _CAP_IPC_LOCK = 29, 14
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_RANDOM = "fixed addresses were refused: the container's seccomp filter forbids personality()"


@dataclass(frozen=True, slots=True)
class Settings:
    """The `realtime:` section of a node, as a launch file gives it; the defaults ask for nothing.

    Attributes:
        policy: "fifo" or "other".
        priority: of SCHED_FIFO, 1 to 98.
        cpus: CPU set, or empty for any.
        lock_memory: keep every page in memory, from the start on.
        gc: "on"; "frozen": what was there before the node became active is not looked at again;
            "off": collected only in quiet moments.
        timer_slack_us: how late the kernel may make a wake-up on purpose; None: its default, 50.
        rehearse_us: so long before the next observation is due, the way of a step is walked once
            without effect, so that code and data are in the CPU's caches when it comes; 0: never.
        fixed_addresses: see addresses.py; who starts the process sees to it.
    """

    policy: str = "other"
    priority: int = 50
    cpus: tuple[int, ...] = ()
    lock_memory: bool = False
    gc: str = "frozen"
    timer_slack_us: int | None = None
    rehearse_us: int = 0
    fixed_addresses: bool = False

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Settings:
        """The settings of a spec's plain dictionary.

        Raises:
            NodeError: a key or a value is not known.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(section) - known):
            raise NodeError(f"realtime has no {unknown[0]!r}; it has {', '.join(sorted(known))}")
        values: dict[str, Any] = dict(section)
        made = cls(**{**values, "cpus": tuple(values.get("cpus", ()))})
        for name, value, choices in (("policy", made.policy, POLICIES), ("gc", made.gc, GC)):
            if value not in choices:
                raise NodeError(f"realtime.{name} is {value!r}; it can be {', '.join(choices)}")
        if made.fifo and not LOWEST <= made.priority <= HIGHEST:
            raise NodeError(f"realtime.priority is {made.priority}; it goes from 1 to {HIGHEST}")
        return made

    @property
    def fifo(self) -> bool:
        return self.policy == "fifo"


@dataclass(frozen=True, slots=True)
class Granted:
    """What came of the request.

    Attributes:
        settings: what was asked for.
        fifo: the policy can be taken.
        locked: memory is locked.
        missing: what the machine refused, and what it would take; one sentence each.
        cpus: the CPUs that the process was free to use before.
    """

    settings: Settings
    fifo: bool = False
    locked: bool = False
    missing: tuple[str, ...] = ()
    cpus: frozenset[int] = frozenset()

    @property
    def io_priority(self) -> int | None:
        """For ZeroMQ's I/O thread, which must outrank its node; None: no real-time policy."""
        return self.settings.priority + 1 if self.fifo else None


def apply(settings: Settings) -> Granted:
    """Takes all that a process needs before it opens sockets; the policy itself waits for `rise`.

    Returns:
        What was granted; `missing` is empty if that is all.
    """
    before = frozenset(os.sched_getaffinity(0))
    slack = settings.timer_slack_us
    refused = {
        "cpus": take_cpus(settings.cpus),
        "slack": "" if slack is None else _take_slack(slack),
        "memory": _lock_memory() if settings.lock_memory else "",
        "policy": try_fifo(settings.priority + 1) if settings.fifo else "",
        "addresses": "" if not settings.fixed_addresses or addresses.fixed() else _RANDOM,
    }
    return Granted(
        settings,
        fifo=settings.fifo and not refused["policy"],
        locked=settings.lock_memory and not refused["memory"],
        missing=tuple(text for text in refused.values() if text),
        cpus=before,
    )


def rise(granted: Granted) -> None:
    """Ends the preparation: what is loaded stays, and the calling thread takes its policy.

    Threads it starts from now on do not inherit the policy.
    """
    settings = granted.settings
    if settings.gc != "on":
        gc.collect()
        gc.freeze()
    if settings.gc == "off":
        gc.disable()
    if granted.locked:
        _fault_in()
    if granted.fifo:
        limit = resource.getrlimit(resource.RLIMIT_RTTIME)[1]
        hard = KILLED_US if limit == resource.RLIM_INFINITY else min(limit, KILLED_US)
        resource.setrlimit(resource.RLIMIT_RTTIME, (min(RUNAWAY_US, hard), hard))
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(settings.priority))


def stand_aside(granted: Granted) -> None:
    """For a background thread of a real-time process: any CPU, and never starved.

    It may hold the interpreter's lock when the node's own thread wants it, so ordinary work must
    not keep it from running; it is no real-time thread itself, lest it keep others from theirs.
    """
    if not granted.fifo:
        return
    here = threading.get_native_id()
    os.sched_setaffinity(here, granted.cpus)
    try:
        os.setpriority(os.PRIO_PROCESS, here, -20)
    except OSError:
        return


def guard(granted: Granted, on_runaway: Callable[[], None]) -> None:
    """Ends the privilege of a process that runs without ever sleeping, before it stalls the rest.

    The kernel counts the time that a real-time thread runs without blocking (RLIMIT_RTTIME) and
    sends SIGXCPU at the first limit, SIGKILL at the second, which ends even one stuck in C code.
    To be called from the main thread.

    Args:
        on_runaway: called once, in the main thread, after the process became an ordinary one.
    """
    if not granted.fifo:
        return

    def handler(*_: Any) -> None:
        if fall_back():
            on_runaway()

    signal.signal(signal.SIGXCPU, handler)


def fall_back() -> bool:
    """Makes all threads of this process ordinary ones; False if they were already."""
    changed = False
    for thread in map(int, os.listdir("/proc/self/task")):
        try:
            if os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER:
                continue
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
        except ProcessLookupError:
            continue
        changed = True
    return changed


def take_cpus(cpus: tuple[int, ...]) -> str:
    """Pins the calling thread; says which CPUs are not there, and then uses those that are."""
    available = os.sched_getaffinity(0)
    if not cpus:
        return ""
    if wanted := set(cpus) & available:
        os.sched_setaffinity(0, wanted)
    if not (lacking := sorted(set(cpus) - available)):
        return ""
    listed, rest = _list(lacking), "the others are used" if wanted else "any is used"
    return f"CPU {listed} is not available ({_list(sorted(available))} is); {rest}"


def _list(cpus: list[int]) -> str:
    return ", ".join(map(str, cpus))


def try_fifo(priority: int) -> str:
    """Whether SCHED_FIFO may be taken; the calling thread is an ordinary one afterwards."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except PermissionError:
        return (
            "SCHED_FIFO was refused: it needs CAP_SYS_NICE, or the line "
            f"`USER - rtprio {HIGHEST + 1}` in {LIMITS_FILE}"
        )
    except OSError as error:
        return f"SCHED_FIFO was refused: {error.strerror}"
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return ""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _take_slack(microseconds: int) -> str:
    if _libc().prctl(_PR_SET_TIMERSLACK, max(1, microseconds * 1000), 0, 0, 0):
        return f"a timer slack of {microseconds} us was refused: {os.strerror(ctypes.get_errno())}"
    return ""


def _lock_memory() -> str:
    """Locks pages as they are first used, and keeps the allocator from handing any back."""
    libc = _libc()
    if not may_lock():
        return (
            "locking memory was refused: it needs CAP_IPC_LOCK, or the line "
            f"`USER - memlock unlimited` in {LIMITS_FILE}"
        )
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
        return f"locking memory was refused: {os.strerror(ctypes.get_errno())}"
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
        libc.mallopt(_M_MMAP_MAX, 0)
    return ""


def may_lock() -> bool:
    """Whether all memory may be locked; below a limit the call works and allocations fail later."""
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_IPC_LOCK & 1)
    return False


def _fault_in() -> None:
    """Brings in what has been loaded; what comes later is locked when it is first used."""
    libc = _libc()
    if libc.mlockall(_MCL_CURRENT):
        sys.stderr.write("memory could not be faulted in; pages come when they are first used\n")
    libc.mlockall(_MCL_FUTURE | _MCL_ONFAULT)
