"""Times things against one another on a machine that others use, too.

Short blocks of each take turns, in an order that changes, so that whatever else runs falls on all
of them alike; ratios are taken within a round and their median is reported. Time is that of the
process on the CPU: what the scheduler gives to others does not count (wall time stands beside it).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Timed:
    """Milliseconds per call, one entry for each round.

    Attributes:
        cpu: of the process, all its threads, (R,).
        wall: by the clock, (R,).
    """

    cpu: NDArray[np.float64]
    wall: NDArray[np.float64]

    def line(self) -> str:
        """Median and the quartiles around it."""
        low, middle, high = np.percentile(self.cpu, (25, 50, 75))
        return f"{middle:8.3f} ms ({low:.3f} to {high:.3f}; wall {np.median(self.wall):.3f})"


def interleaved(
    calls: Mapping[str, Callable[[], object]], rounds: int, each: int = 5
) -> dict[str, Timed]:
    """Run every call `each` times per round, after two rounds that do not count."""
    names, rng = list(calls), np.random.default_rng(0)
    cpu, wall = (np.zeros((len(names), rounds + 2)) for _ in range(2))
    for number in range(rounds + 2):
        for index in rng.permutation(len(names)):
            call = calls[names[index]]
            began, used = time.perf_counter(), time.process_time()
            for _ in range(each):
                call()
            cpu[index, number] = (time.process_time() - used) / each * 1e3
            wall[index, number] = (time.perf_counter() - began) / each * 1e3
    return {name: Timed(cpu[i, 2:], wall[i, 2:]) for i, name in enumerate(names)}


def ratio(slow: Timed, fast: Timed) -> str:
    """How many times as fast, round by round: median and quartiles."""
    low, middle, high = np.percentile(slow.cpu / fast.cpu, (25, 50, 75))
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"
