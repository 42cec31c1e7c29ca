"""The host's own punctuality: a process that does nothing but sleep to absolute deadlines.

python -P -m safetypilot.launch.bench.timer COURSE            a block like a contestant's
python -P -m safetypilot.launch.bench.timer COURSE witness    watches until SIGTERM
"""

from __future__ import annotations

import signal
import sys
from time import monotonic_ns

import numpy as np

from safetypilot.launch.bench import contest, schedule
from safetypilot.launch.bench.course import Course
from safetypilot.launch.bench.plant import Progress, sleep_until
from safetypilot.launch.bench.samples import Samples

STALL_NS = 100_000  # a wake-up that is later than this is kept


def block(course: Course) -> Samples:
    """How late each wake-up was; later than a period is a missed deadline."""
    period, progress = course.period_ns, Progress(course)
    total = course.warmup + course.steps
    late, due = np.zeros(total), np.zeros(total, np.int64)
    schedule.settle(course.schedule)
    tick, done, overruns = monotonic_ns() + period, 0, 0
    for number in range(total):
        sleep_until(tick)
        now = monotonic_ns()
        late[number], due[number] = (now - tick) / 1e3, tick
        if now >= tick + period:
            overruns += number >= course.warmup
            tick = now
        tick += period
        done = number + 1
        if not number % 64:
            progress.steps = max(0, number - course.warmup)
        if progress.stop:
            break
    kept = slice(course.warmup, done)
    return Samples(late[kept], due[kept], late[kept] > period / 1e3, late[kept], overruns=overruns)


def watch(course: Course) -> Samples:
    """Keeps the moments at which the host woke it late, until SIGTERM."""
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    period, count = course.period_ns, 0
    stalls: list[tuple[int, int]] = []
    schedule.settle(course.schedule)
    tick = monotonic_ns() + period
    while not ended:
        sleep_until(tick)
        now = monotonic_ns()
        count += 1
        if now - tick > STALL_NS:
            stalls.append((tick, now))
            tick = max(tick, now - period)
        tick += period
    due = np.array([start for start, _ in stalls], np.int64)
    late = np.array([(woke - start) / 1e3 for start, woke in stalls])
    return Samples(late, due, np.ones(len(stalls), bool), facts={"wake_ups": count})


def main() -> None:
    course = Course.read(sys.argv[1])
    schedule.die_with_parent()
    contest.begin(course)
    with contest.reasons(course):
        samples = watch(course) if len(sys.argv) > 2 else block(course)
        samples.save(course.result)
    contest.leave()


if __name__ == "__main__":
    main()
