"""The long run: nothing grows, and a cycle costs little."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from time import monotonic_ns, sleep, thread_time_ns
from typing import NamedTuple

from safetypilot.bridge.conformance.bench import Bench
from safetypilot.bridge.conformance.session import AMPLE_NS, Session
from safetypilot.bridge.conformance.verdict import Failed

_WARM = 300  # cycles after which everything has been used once
_LONGEST_S = 5.0  # of a quick soak, for drivers with a low rate
_PAGE = os.sysconf("SC_PAGE_SIZE")
_GROWTH, _BLOCKS = 4 << 20, 1000  # bytes, objects: what an interpreter does for itself
_PER_CYCLE = 0.02  # objects that stay
_COUNTED = 0.1  # errors of a cycle; a busy host makes some


def soaks(bench: Bench) -> str:
    """Over many cycles memory stays the same, no error is counted, and a cycle costs little."""
    gc.collect()
    gc.freeze()  # of what is there already: to look through it takes longer than a watchdog waits
    try:
        return _soak(bench, bench.session())
    finally:
        gc.unfreeze()


def _soak(bench: Bench, session: Session) -> str:
    wanted = bench.subject.cycles
    if not bench.subject.thorough:
        wanted = min(wanted, session.cycles(_LONGEST_S))
    session.cycle(min(_WARM, wanted))
    counters = dict(session.driver.counters)
    memory, blocks = _held()
    costs = _run(session, wanted)
    more, more_blocks = (now - then for now, then in zip(_held(), (memory, blocks), strict=True))
    if more_blocks > _BLOCKS + _PER_CYCLE * wanted or more > _GROWTH:
        raise Failed(f"{more_blocks} objects and {more >> 10} kB more after {wanted} cycles")
    for name, count in session.driver.counters.items():
        if count - counters.get(name, 0) > 2 + _COUNTED * wanted:
            raise Failed(f"{name!r} was counted {count - counters.get(name, 0)} times")
    if session.last.faults:
        raise Failed(f"the device complains: {', '.join(session.last.faults)}")
    period_us, cpu_us = session.period_ns / 1e3, costs.read_us + costs.write_us
    if cpu_us > period_us / 2:
        raise Failed(f"a cycle costs {cpu_us:.0f} us of CPU, its period is {period_us:.0f} us")
    return (
        f"{wanted} cycles, {more >> 10:+d} kB; read {costs.read_us:.0f} us, write "
        f"{costs.write_us:.0f} us of CPU; {costs.late} cycles over their period, the worst "
        f"{costs.worst_ms:.1f} ms"
    )


class _Costs(NamedTuple):
    """CPU time of a call, wall time of a cycle, and how many of these took longer than a period."""

    read_us: float
    write_us: float
    worst_ms: float
    late: int


def _run(session: Session, cycles: int) -> _Costs:
    driver, setpoint, period_ns = session.driver, session.hold, session.period_ns
    reading_ns = writing_ns = worst_ns = late = 0
    tick_ns = monotonic_ns() + period_ns
    for _ in range(cycles):
        sleep(max(0, tick_ns - monotonic_ns()) / 1e9)
        tick_ns = max(tick_ns, monotonic_ns() - period_ns) + period_ns
        began_ns, began_cpu = monotonic_ns(), thread_time_ns()
        session.last = driver.read(began_ns)
        read_cpu = thread_time_ns()
        driver.write(setpoint, began_ns + AMPLE_NS)
        wrote_cpu, took_ns = thread_time_ns(), monotonic_ns() - began_ns
        reading_ns += read_cpu - began_cpu
        writing_ns += wrote_cpu - read_cpu
        worst_ns = max(worst_ns, took_ns)
        late += took_ns > period_ns
    each_us = 1e3 * cycles
    return _Costs(reading_ns / each_us, writing_ns / each_us, worst_ns / 1e6, late)


def _held() -> tuple[int, int]:
    """Bytes of memory and objects that this process holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * _PAGE, sys.getallocatedblocks()
