"""Counts what happened in a run, from the reports of its episodes: in all and per phase.

A phase is a span between two swaps of the task policy. It ends with the episode during which
another model began to act; that episode counts to the phase in which it began.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np

from safetypilot.nodes.kernel.messages import EpisodeReport

SOURCES = ("task", "recovery", "tail", "failsafe")  # names of policies.shield.Source, in order
_KEPT_LATENCIES = 1 << 20
_KEPT_PATHS = 400  # per phase, for the picture

Floats = np.ndarray[Any, np.dtype[np.float32]]


class Latencies:
    """Durations in us with exact percentiles; a very long run keeps an even selection."""

    def __init__(self) -> None:
        self.count = 0
        self.max_us = 0.0
        self._kept: list[Floats] = []
        self._size = 0
        self._stride = 1

    def add(self, values: Floats) -> None:
        finite = values[np.isfinite(values)]
        if not finite.size:
            return
        self.count += finite.size
        self.max_us = max(self.max_us, float(finite.max()))
        self._kept.append(finite[:: self._stride].copy())
        self._size += len(self._kept[-1])
        if self._size > _KEPT_LATENCIES:
            self._kept = [np.concatenate(self._kept)[::2]]
            self._size, self._stride = len(self._kept[0]), self._stride * 2

    def summary(self) -> dict[str, float | int | None]:
        """Percentiles in us; None where the sample does not support them (fewer than 10 beyond
        p99.9, fewer than one beyond p99)."""
        if not self.count:
            return {"n": 0, "p50": None, "p99": None, "p999": None, "max": None}
        values = np.concatenate(self._kept)

        def percentile(percent: float, least: int) -> float | None:
            return round(float(np.percentile(values, percent)), 1) if self.count >= least else None

        return {
            "n": self.count,
            "p50": percentile(50, 1),
            "p99": percentile(99, 100),
            "p999": percentile(99.9, 10_000),
            "max": round(self.max_us, 1),
        }


@dataclass
class Path:
    """An episode for the picture: the first two observed numbers and who was in control."""

    points: Floats  # (T, 2)
    sources: np.ndarray[Any, np.dtype[np.uint8]]  # (T,)
    success: bool
    violation: bool


@dataclass
class Phase:
    """Figures of a span of episodes."""

    model: str = ""  # of the task policy
    episodes: int = 0
    successes: int = 0
    violations: int = 0
    steps: int = 0
    missed: int = 0
    refused: int = 0
    reward: float = 0.0
    sources: list[int] = field(default_factory=lambda: [0] * len(SOURCES))
    latencies: Latencies = field(default_factory=Latencies)
    paths: list[Path] = field(default_factory=list)

    def add(self, report: EpisodeReport) -> None:
        self.episodes += 1
        self.successes += report.success
        self.violations += report.violation
        self.steps += report.steps
        self.missed += report.missed
        self.refused += report.dropped
        self.reward += report.total_reward if isfinite(report.total_reward) else 0.0
        for source, count in enumerate(np.bincount(report.sources, minlength=len(SOURCES))):
            self.sources[min(source, len(SOURCES) - 1)] += int(count)
        self.latencies.add(report.latency_us)
        drawable = len(report.observations) > 0 and report.observations.shape[1] >= 2
        if drawable and len(self.paths) < _KEPT_PATHS:
            self.paths.append(
                Path(
                    report.observations[:, :2].copy(),
                    report.sources.copy(),
                    report.success,
                    report.violation,
                )
            )

    @property
    def interventions(self) -> int:
        """Steps that were not the task policy's."""
        return sum(self.sources[1:])

    def figures(self) -> dict[str, Any]:
        return {
            "episodes": self.episodes,
            "successes": self.successes,
            "violations": self.violations,
            "steps": self.steps,
            "interventions": self.interventions,
            "failsafe_steps": self.sources[-1],
            "missed_deadlines": self.missed,
            "refused_commands": self.refused,
            "mean_reward": round(self.reward / self.episodes, 4) if self.episodes else None,
            "steps_by_source": dict(zip(SOURCES, self.sources, strict=True)),
            "latency_us": self.latencies.summary(),
        }


class Tally:
    """Takes in episode reports in order."""

    def __init__(self) -> None:
        self.total = Phase()
        self.phases: list[Phase] = []
        self.models: list[str] = []  # all that acted, in order of appearance

    def add(self, report: EpisodeReport) -> None:
        acted = [model for model in report.models.split(",") if model]
        self.models += [model for model in dict.fromkeys(acted) if model not in self.models]
        self.total.add(report)
        self.total.paths.clear()
        if not self.phases:
            self.phases.append(Phase(model=acted[0] if acted else ""))
        phase = self.phases[-1]
        if acted and not phase.model:
            phase.model = acted[0]
        elif acted and acted[0] != phase.model:
            phase = Phase(model=acted[0])
            self.phases.append(phase)
        phase.add(report)

    @property
    def episodes(self) -> int:
        return self.total.episodes
