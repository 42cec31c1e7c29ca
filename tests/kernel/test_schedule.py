"""What a process asks of the machine, in processes of their own: taken, refused, and lost again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from safetypilot.nodes.kernel import addresses, schedule
from safetypilot.nodes.kernel.errors import NodeError
from safetypilot.nodes.kernel.schedule import Settings

pytestmark = pytest.mark.integration
privileged = pytest.mark.skipif(
    bool(schedule.try_fifo(3)), reason="this user may not take SCHED_FIFO"
)
LAST_CPU = max(os.sched_getaffinity(0))  # beside the control paths of other runs


def run(script: str, timeout_s: float = 30.0) -> Any:
    """What a script in a process of its own prints as JSON."""
    head = "import ctypes, gc, json, os, resource, threading, time\n"
    head += "from safetypilot.nodes.kernel import addresses, schedule\n"
    head += "Settings = schedule.Settings\n"
    done = subprocess.run(
        [sys.executable, "-P", "-c", head + textwrap.dedent(script)],
        capture_output=True, text=True, check=False, timeout=timeout_s,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"policy": "rr"}, "policy is 'rr'; it can be fifo, other"),
        ({"gc": "maybe"}, "gc is 'maybe'; it can be off, frozen, on"),
        ({"policy": "fifo", "priority": 99}, "priority is 99; it goes from 1 to 98"),
        ({"polcy": "fifo"}, "no 'polcy'; it has cpus, fixed"),
    ],
)
def test_settings_that_are_wrong(section: dict[str, Any], said: str) -> None:
    with pytest.raises(NodeError, match=said):
        Settings.of(section)


def test_lists_of_a_spec_become_tuples() -> None:
    assert Settings.of({"cpus": [0, 1], "priority": 7}) == Settings(cpus=(0, 1), priority=7)


def test_nothing_is_asked_for_by_default() -> None:
    before = (os.sched_getscheduler(0), os.sched_getaffinity(0))
    granted = schedule.apply(Settings())
    assert (granted.missing, granted.io_priority) == ((), None)
    assert (os.sched_getscheduler(0), os.sched_getaffinity(0)) == before


@privileged
def test_the_policy_is_taken_when_the_node_is_ready_and_not_by_its_threads() -> None:
    found = run(f"""
        granted = schedule.apply(Settings(policy="fifo", priority=2, cpus=({LAST_CPU},), gc="off"))
        before, cpus = os.sched_getscheduler(0), list(os.sched_getaffinity(0))
        schedule.rise(granted)
        seen = []
        def work():
            here = threading.get_native_id()
            schedule.stand_aside(granted)
            seen.extend([os.sched_getscheduler(here), os.getpriority(os.PRIO_PROCESS, here),
                         len(os.sched_getaffinity(here))])
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        own = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
        limit = resource.getrlimit(resource.RLIMIT_RTTIME)[0]
        priority = os.sched_getparam(0).sched_priority
        print(json.dumps([granted.missing, granted.io_priority, before, cpus, own, priority,
                          limit, gc.isenabled(), gc.get_freeze_count() > 1000, seen]))
    """)
    assert found[:9] == [
        [], 3, os.SCHED_OTHER, [LAST_CPU], os.SCHED_FIFO, 2, schedule.RUNAWAY_US, False, True,
    ]  # fmt: skip
    assert found[9] == [os.SCHED_OTHER, -20, len(os.sched_getaffinity(0))]


def test_timer_slack_is_set() -> None:
    found = run("""
        granted = schedule.apply(Settings(timer_slack_us=7))
        print(json.dumps([granted.missing, ctypes.CDLL(None).prctl(30, 0, 0, 0, 0)]))
    """)
    assert found == [[], 7000]


def test_fixed_addresses_are_missed_where_a_process_was_started_without() -> None:
    asked = """
        granted = schedule.apply(Settings(fixed_addresses=True))
        print(json.dumps([granted.missing, id(None)]))
    """
    assert not addresses.fixed() and "personality()" in run(asked)[0][0]
    with addresses.fix(True) as fixed:
        if not fixed:
            pytest.skip("this container does not let it")
        first, second = run(asked), run(asked)
    assert first == second and first[0] == []
    assert not addresses.fixed()


@pytest.mark.skipif(not schedule.may_lock(), reason="this user may not lock memory")
def test_memory_is_locked_and_stays_usable() -> None:
    found = run("""
        granted = schedule.apply(Settings(lock_memory=True))
        schedule.rise(granted)
        more = bytearray(8 << 20)
        more[::4096] = b"x" * len(more[::4096])
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        locked, resident = (int(status[key].split()[0]) for key in ("VmLck", "VmRSS"))
        print(json.dumps([granted.missing, granted.locked, locked, resident]))
    """)
    missing, locked, kilobytes, _ = found
    assert (missing, locked) == ([], True)
    assert kilobytes > 8 << 10


def test_without_the_privilege_each_refusal_says_what_it_would_take() -> None:
    found = run("""
        resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        granted = schedule.apply(Settings("fifo", 20, (4095,), True, "off", 10))
        schedule.guard(granted, lambda: None)
        schedule.rise(granted)
        print(json.dumps([granted.missing, granted.fifo, granted.locked, os.sched_getscheduler(0),
                          gc.isenabled()]))
    """)
    missing, *rest = found
    assert [text.split(":")[0].split(" (")[0] for text in missing] == [
        "CPU 4095 is not available",
        "locking memory was refused",
        "SCHED_FIFO was refused",
    ]
    assert "CAP_IPC_LOCK" in missing[1]
    assert "`USER - rtprio 99`" in missing[2]
    assert rest == [False, False, os.SCHED_OTHER, False]  # what needs no privilege is taken


@privileged
def test_a_process_that_never_sleeps_becomes_an_ordinary_one() -> None:
    found = run(f"""
        granted = schedule.apply(Settings(policy="fifo", priority=2, cpus=({LAST_CPU},)))
        said = []
        schedule.guard(granted, lambda: said.append("runaway"))
        schedule.rise(granted)
        policies, end = set(), time.monotonic() + 20
        while not said and time.monotonic() < end:
            policies.add(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK)
        used = time.thread_time()
        was_fifo = os.SCHED_FIFO in policies
        print(json.dumps([said, was_fifo, os.sched_getscheduler(0), used < 2.0]))
    """)
    assert found == [["runaway"], True, os.SCHED_OTHER, True]


@privileged
def test_one_that_is_stuck_in_c_code_is_killed() -> None:
    script = f"""
        from safetypilot.nodes.kernel import addresses, schedule
        granted = schedule.apply(schedule.Settings("fifo", 2, ({LAST_CPU},)))
        schedule.guard(granted, lambda: None)
        schedule.rise(granted)
        sum(range(10**13))  # hours, without a look at signals
    """
    begun = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(script)], check=False, timeout=60
    )
    assert begun.returncode == -9


@privileged
def test_a_process_that_sleeps_keeps_its_policy() -> None:
    found = run(f"""
        granted = schedule.apply(Settings(policy="fifo", priority=2, cpus=({LAST_CPU},)))
        said = []
        schedule.guard(granted, lambda: said.append("runaway"))
        schedule.rise(granted)
        begin = time.thread_time()
        while time.thread_time() - begin < 1.0:
            pause = time.thread_time() + 0.05
            while time.thread_time() < pause:
                pass
            time.sleep(0.001)
        print(json.dumps([said, os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK]))
    """)
    assert found == [[], os.SCHED_FIFO]
