"""One plan after another by the deployed planner: what `safetypilot bench planner` starts.

    python -P -m safetypilot.launch.bench.plan_times COURSE

The shipped node itself plans, with the config of the launch file, from observations of the flown
environment.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic_ns, thread_time_ns
from typing import Any

import numpy as np

from safetypilot.launch.bench import contest, schedule
from safetypilot.launch.bench.course import Course
from safetypilot.launch.bench.plant import GraphError, Progress
from safetypilot.launch.bench.samples import Samples, figures
from safetypilot.nodes.kernel.clock import RealClock
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.kernel.messages import Observation, Recovery
from safetypilot.nodes.kernel.node import Context
from safetypilot.nodes.kernel.process import build_config
from safetypilot.nodes.recovery_planner import RecoveryPlanner


class Catcher:
    """Stands behind the node's context and keeps its last plan."""

    def __init__(self) -> None:
        self._plan: Recovery | None = None

    def take(self) -> Recovery | None:
        """The plan since the last call, if there was one."""
        plan, self._plan = self._plan, None
        return plan

    def emit(self, topic: str, message: Any) -> None:
        if topic == "recovery":
            self._plan = message

    def event(self, kind: str, data: dict[str, Any]) -> None:
        """Nobody reads it."""

    def background(
        self, work: Callable[[], Any], done: Callable[[Any, int], None], name: str
    ) -> None:
        """Nothing is staged here."""


def node(course: Course, catcher: Catcher) -> RecoveryPlanner:
    """The planner, configured and warm."""
    options = course.options
    context = Context(
        name="recovery_planner",
        interface=Interface.from_dict(options["interface"]),
        period_ns=course.period_ns,
        seed=course.seed,
        run_dir=Path(course.folder),
        runtime_dir=Path(course.folder),
        clock=RealClock(),
        realtime=True,
        executor=catcher,
    )
    planner = RecoveryPlanner(build_config(RecoveryPlanner, options["config"]), context)
    planner.configure()
    planner.activate(monotonic_ns())
    return planner


def observations(course: Course) -> list[Any]:
    """Where the plans begin: states that random actions lead to."""
    from safetypilot.envs import registry

    env = registry.make_flat(course.env)
    env.action_space.seed(course.seed)
    found, (observation, _) = [], env.reset(seed=course.seed)
    for _ in range(200):
        found.append(np.asarray(observation, np.float32))
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            observation, _ = env.reset()
    return found


def measure(course: Course) -> Samples:
    """Times `course.steps` plans, by the clock and by the CPU.

    Raises:
        GraphError: the planner gave no plan.
    """
    catcher, progress = Catcher(), Progress(course)
    planner, starts = node(course, catcher), observations(course)
    schedule.settle(course.schedule)
    total = course.warmup + course.steps
    wall, cpu, iterations = np.full(total, np.nan), np.zeros(total), np.zeros(total, int)
    stamps, done = np.zeros(total, np.int64), 0
    for number in range(total):
        values = starts[number % len(starts)]
        stamps[number] = now = monotonic_ns()
        used = thread_time_ns()
        planner.on_message("observation", Observation(number, now, now, 0, number, values), now)
        if (plan := catcher.take()) is not None:
            wall[number] = (monotonic_ns() - now) / 1e3
            cpu[number] = (thread_time_ns() - used) / 1e3
            iterations[number] = plan.iterations
        done, progress.steps = number + 1, max(0, number - course.warmup)
        if progress.stop:
            break
    kept = slice(course.warmup, done)
    if np.isnan(wall[kept]).all():
        raise GraphError("the planner gave no plan within its budget")
    samples = Samples(wall[kept], stamps[kept], np.isnan(wall[kept]))
    samples.facts = {"cpu": figures(cpu[kept], 0), "iterations": float(iterations[kept].mean())}
    return samples


def main() -> None:
    course = Course.read(sys.argv[1])
    schedule.die_with_parent()
    contest.begin(course)
    with contest.reasons(course):
        measure(course).save(course.result)
    contest.leave()


if __name__ == "__main__":
    main()
