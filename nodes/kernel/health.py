"""Health of inputs and always-on timing statistics, cheap enough to stay on the control path."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from math import log2
from typing import Any

_PER_OCTAVE = 8
_BUCKETS = 40 * _PER_OCTAVE


class Histogram:
    """Durations in ns, counted in buckets 9 % wide; percentiles are the bucket's upper edge."""

    __slots__ = ("count", "counts", "max_ns")

    def __init__(self) -> None:
        self.counts = [0] * _BUCKETS
        self.count = 0
        self.max_ns = 0

    def add(self, duration_ns: int) -> None:
        if duration_ns > self.max_ns:
            self.max_ns = duration_ns
        index = int(log2(duration_ns) * _PER_OCTAVE) if duration_ns > 1 else 0
        self.counts[index if index < _BUCKETS else _BUCKETS - 1] += 1
        self.count += 1

    def percentile_us(self, percent: float) -> float | None:
        """The percentile in us; None where the sample is too small to support it."""
        return self._percentile_us(percent, list(accumulate(self.counts)))

    def _percentile_us(self, percent: float, below: list[int]) -> float | None:
        if self.count * (1 - percent / 100) < 1:
            return None
        upper = 2 ** ((bisect_left(below, self.count * percent / 100) + 1) / _PER_OCTAVE)
        return round(min(upper, self.max_ns) / 1e3, 1)

    def summary(self) -> dict[str, Any]:
        """Called between two steps of a control loop, so it counts only once."""
        below = list(accumulate(self.counts)) if self.count else []
        return {
            "n": self.count,
            "p50": self._percentile_us(50, below),
            "p99": self._percentile_us(99, below),
            "p999": self._percentile_us(99.9, below),
            "max": round(self.max_ns / 1e3, 1),
        }


class InputHealth:
    """Alive, at rate and valid, for one input: the same thresholds in simulation as on a robot."""

    __slots__ = (
        "age", "drops", "every", "expected_ns", "gaps", "last_ns", "last_seq", "mean_period_ns",
        "received", "stale_ns",
    )  # fmt: skip

    def __init__(self, period_ns: int, stale_after_periods: float, every: int = 1) -> None:
        self.expected_ns = period_ns
        self.every = every  # a message comes for every so many-th observation
        self.stale_ns = period_ns * stale_after_periods
        self.received = 0
        self.gaps = 0  # sequence numbers that never arrived
        self.last_ns = -1
        self.last_seq = -1
        self.mean_period_ns = 0.0
        self.drops: dict[str, int] = {}  # refused frames by cause
        self.age = Histogram()  # now - stamp of the observation, at arrival

    def accept(self, seq: int, stamp_ns: int, now_ns: int) -> None:
        if self.received:
            period = now_ns - self.last_ns
            self.mean_period_ns += (period - self.mean_period_ns) * (
                0.05 if self.received > 20 else 1 / self.received
            )
            if seq > self.last_seq + 1:
                self.gaps += (seq - self.last_seq - 1) // self.every
        self.received += 1
        self.last_ns, self.last_seq = now_ns, seq
        self.age.add(now_ns - stamp_ns)

    def refuse(self, cause: str) -> None:
        self.drops[cause] = self.drops.get(cause, 0) + 1

    def alive(self, now_ns: int) -> bool:
        return self.received > 0 and now_ns - self.last_ns <= self.stale_ns

    def rate_ok(self) -> bool:
        return self.received > 1 and self.mean_period_ns <= 1.25 * self.expected_ns

    def valid(self) -> bool:
        return self.received > 0 and sum(self.drops.values()) * 100 <= self.received

    def summary(self, now_ns: int) -> dict[str, Any]:
        rate = 1e9 / self.mean_period_ns if self.mean_period_ns > 0 else 0.0
        return {
            "received": self.received,
            "rate_hz": round(rate, 1),
            "alive": self.alive(now_ns),
            "rate_ok": self.rate_ok(),
            "valid": self.valid(),
            "gaps": self.gaps,
            "drops": dict(self.drops),
            "age_us": self.age.summary(),
        }
