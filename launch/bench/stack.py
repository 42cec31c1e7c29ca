"""A block of the stack itself: the launch file's graph, flown by the real supervisor.

    python -P -m safetypilot.launch.bench.stack COURSE

What is measured is what the plant reports of each step; nothing is attached to the graph but what
the course's options ask for.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from safetypilot.launch.bench import contest, schedule
from safetypilot.launch.bench.course import Course
from safetypilot.launch.bench.plant import GraphError, Progress
from safetypilot.launch.bench.samples import Samples
from safetypilot.launch.children import environment
from safetypilot.launch.progress import Run
from safetypilot.launch.tally import SOURCES, Tally
from safetypilot.nodes.kernel.messages import EpisodeReport

_END_S = 3.0


class StepTally(Tally):
    """Keeps every step of every episode, beside the usual counts."""

    def __init__(self, period_ns: int) -> None:
        super().__init__()
        self._period = period_ns
        self._next_ns = 0  # when the step after the last one known is due
        self.latency: list[Any] = []
        self.stamps: list[Any] = []
        self.slack: list[Any] = []
        self.sources: list[Any] = []
        self.steps = 0

    def add(self, report: EpisodeReport) -> None:
        super().add(report)
        count = report.steps
        stamps = report.stamp_ns - self._period * np.arange(count - 1, -1, -1, dtype=np.int64)
        # A tick that was skipped within the episode makes the stamps before it too late.
        late = max(0, int(stamps[0]) - self._next_ns) if self._next_ns else 0
        self._next_ns = report.stamp_ns + self._period
        self.latency.append(np.asarray(report.latency_us, np.float64))
        self.stamps.append(stamps)
        self.slack.append(np.full(count, late, np.int64))
        self.sources.append(report.sources)
        self.steps += count


@dataclass
class Flight(Run):
    """A run that ends after so many steps, or when the benchmark asks for it."""

    course: Any = None
    steps: StepTally = field(default_factory=lambda: StepTally(1))
    page: Any = None

    def enough(self) -> bool:
        flown = self.steps.steps - self.course.warmup
        self.page.steps = max(0, flown)
        return bool(flown >= self.course.steps or self.page.stop)


def fly(course: Course, attach: Callable[[Run], None]) -> Samples:
    """Flies the graph for the steps of the course.

    Args:
        attach: called with the run many times a second; it may start what looks on.

    Raises:
        GraphError: the run failed, and why.
    """
    from safetypilot.launch.graph import load
    from safetypilot.launch.supervisor import Supervisor

    options = course.options
    graph = load(options["graph"], options["arguments"], options["sets"], clock="realtime",
                 seed=course.seed, duration=1e9)  # fmt: skip
    tally = StepTally(course.period_ns)
    flight = Flight(graph.plan(), Path(course.folder), tally=tally, course=course, steps=tally,
                    page=Progress(course))  # fmt: skip
    Supervisor(flight, attach).run()
    if flight.failure:
        raise GraphError(flight.failure)
    return _samples(course, flight)


def _samples(course: Course, flight: Flight) -> Samples:
    tally = flight.steps
    if not tally.latency:
        raise GraphError("no episode ended in time, so no step was reported; fly more --steps")
    kept = slice(course.warmup, course.warmup + course.steps)
    latency = np.concatenate(tally.latency)[kept]
    sources = np.concatenate(tally.sources)[kept]
    counts = np.bincount(sources, minlength=len(SOURCES)).tolist()
    plant = flight.rows().get(flight.plan.plant or "", {}).get("node", {})
    return Samples(
        latency,
        np.concatenate(tally.stamps)[kept],
        np.isnan(latency),
        slack_ns=np.concatenate(tally.slack)[kept],
        sources=sources,
        overruns=int(plant.get("overruns", 0)),
        facts={
            "sources": dict(zip(SOURCES, counts, strict=True)),
            "restarts": sum(row["restarts"] for row in flight.rows().values()),
        },
    )


@contextmanager
def _observers(commands: Any) -> Iterator[Any]:
    """Yields what the supervisor shows itself to; it attaches the observers once all is active."""
    started: list[subprocess.Popen[bytes]] = []

    def attach(run: Run) -> None:
        if run.active_since is None or started:
            return
        for words in commands:
            line = [word.replace("{run}", run.run_id).replace("{dir}", str(run.run_dir))
                    for word in words]  # fmt: skip
            started.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", "safetypilot.launch.cli", *line],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=environment(),
                )
            )

    try:
        yield attach
        for process in started:
            if process.poll() not in (None, 0):
                raise GraphError(f"an observer ended with code {process.returncode}")
    finally:
        for process in started:
            process.terminate()
        for process in started:
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main() -> None:
    schedule.die_with_parent()
    course = Course.read(sys.argv[1])
    with contest.reasons(course), _observers(course.options["observers"]) as attach:
        fly(course, attach).save(course.result)
    contest.leave()


if __name__ == "__main__":
    main()
