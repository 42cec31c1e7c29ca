"""The same scheduling for every contestant's processes, whoever starts them."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_AUTOGROUP = Path("/proc/self/autogroup")
_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def apply(schedule: Mapping[str, Any], threads: Iterable[int] = (0,)) -> list[str]:
    """Takes CPU set, niceness or SCHED_FIFO, locked memory, and the rest.

    Args:
        schedule: `policy`, `priority`, `cpus`, `nice`, `lock_memory`, `gc`, `timer_slack_us`; what
            is absent stays as it is, and `fixed_addresses` is for who starts the process.
        threads: thread ids; 0 is the caller, whose later threads and children inherit it.

    Returns:
        What the machine refused, a line each.
    """
    refused = []
    for thread in threads:
        refused += _schedule_thread(schedule, thread)
    if schedule.get("lock_memory"):
        if ctypes.CDLL(None, use_errno=True).mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
            refused.append(f"mlockall: {os.strerror(ctypes.get_errno())}")
    if (slack := schedule.get("timer_slack_us")) is not None:
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, max(1, int(slack * 1000)), 0, 0, 0)
    return list(dict.fromkeys(refused))


def _schedule_thread(schedule: Mapping[str, Any], thread: int) -> list[str]:
    refused = []
    try:
        if schedule.get("cpus"):
            os.sched_setaffinity(thread, schedule["cpus"])
    except OSError as error:
        refused.append(f"CPUs {schedule['cpus']}: {error.strerror}")
    try:
        if schedule.get("policy") == "fifo":
            parameters = os.sched_param(int(schedule["priority"]))
            os.sched_setscheduler(thread, os.SCHED_FIFO, parameters)
        elif schedule.get("nice"):
            os.setpriority(os.PRIO_PROCESS, thread, schedule["nice"])
            if thread == 0 and _AUTOGROUP.exists():
                _AUTOGROUP.write_text(str(schedule["nice"]))
    except OSError as error:
        wanted = "SCHED_FIFO" if schedule.get("policy") == "fifo" else f"nice {schedule['nice']}"
        refused.append(f"{wanted}: {error.strerror}")
    return refused


def all_threads() -> list[int]:
    """The ids of this process's threads: for libraries that make theirs when they are imported."""
    return [int(name) for name in os.listdir("/proc/self/task")]


def settle(schedule: Mapping[str, Any]) -> None:
    """After everything is loaded: what lives now is not looked at by the collector again."""
    gc.collect()
    gc.freeze()
    if schedule.get("gc") == "off":
        gc.disable()


def die_with_parent() -> None:
    """SIGKILL when the parent ends, however it does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() == 1:
        os._exit(1)  # it has ended already


def isolate_network() -> bool:
    """Moves this process into a network of its own that has a loopback device and nothing else.

    Returns:
        False without the privilege; nothing has changed then.
    """
    import fcntl
    import socket
    import struct

    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh", b"lo", _IFF_UP)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)
    return True
