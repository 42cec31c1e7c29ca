"""What a contestant's plant has measured, and what may be said of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LEAST_P99, LEAST_P999 = 100, 10_000  # steps below which the percentile says nothing


@dataclass
class Samples:
    """The steps of one block, T of them, in order.

    Attributes:
        latency_us: from the stamp of an observation to its command, (T,); NaN: none came.
        stamp_ns: of each observation, CLOCK_MONOTONIC, (T,).
        missed: whether the command was not there by its deadline, (T,).
        wake_us: how late the plant's timer woke it, (T,), or empty where it is not known.
        slack_ns: how far a stamp may be off, to the past, (T,); 0 where it was measured.
        sources: who was in control, an index into tally.SOURCES, (T,), or empty.
        overruns: ticks that were skipped because the plant was a whole period late.
        facts: numbers and texts to be shown beside the figures.
    """

    latency_us: Floats
    stamp_ns: Integers
    missed: NDArray[np.bool_]
    wake_us: Floats = field(default_factory=lambda: np.zeros(0))
    slack_ns: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    sources: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    overruns: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.latency_us)

    def save(self, path: Path) -> None:
        """Writes an .npz file, whole or not at all."""
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            np.savez(
                file,
                latency_us=self.latency_us,
                stamp_ns=self.stamp_ns,
                missed=self.missed,
                wake_us=self.wake_us,
                slack_ns=self.slack_ns,
                sources=self.sources,
                overruns=np.int64(self.overruns),
                facts=np.array(json.dumps(self.facts)),
            )
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> Samples:
        """Raises OSError or ValueError if the file is not there or not whole."""
        with np.load(path, allow_pickle=False) as data:
            return cls(
                data["latency_us"],
                data["stamp_ns"],
                data["missed"],
                data["wake_us"],
                data["slack_ns"],
                data["sources"],
                int(data["overruns"]),
                json.loads(str(data["facts"])),
            )


def percentile(values: Floats, percent: float) -> float | None:
    """A percentile in us; NaN counts as later than all others. None if it falls on one of those."""
    ordered = np.sort(np.where(np.isnan(values), np.inf, values))
    found = float(np.percentile(ordered, percent, method="higher"))
    return round(found, 2) if np.isfinite(found) else None


def figures(latency_us: Floats, missed: int) -> dict[str, Any]:
    """What the JSON says of a sample: percentiles only where the sample supports them.

    A step whose command never came counts as later than all others, so a percentile that falls
    among those is null, and so is the maximum.
    """
    count = len(latency_us)
    never = int(np.isnan(latency_us).sum())
    return {
        "p50_us": percentile(latency_us, 50) if count else None,
        "p99_us": percentile(latency_us, 99) if count >= LEAST_P99 else None,
        "p999_us": percentile(latency_us, 99.9) if count >= LEAST_P999 else None,
        "max_us": round(float(latency_us.max()), 2) if count and not never else None,
        "n": count,
        "missed_deadlines": missed,
        "never_answered": never,
    }


def joined(blocks: Sequence[Samples]) -> Floats:
    """The latencies of all blocks, in us."""
    return np.concatenate([block.latency_us for block in blocks]) if blocks else np.zeros(0)
