"""A model on trial: compared with the live one before it flies, and with the past after.

Both judges are plain counters on numbers that somebody else measured: no clock, no I/O. Letters: A
size of an answer (an action, a risk or a predicted observation).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_KEPT = 4096  # durations that percentiles are taken of; the newest
_SLACK = 1e-5  # of the range: rounding at a saturated tanh
_LEAST_FOR_P99 = 100


class Shadow:
    """What a candidate would have answered, beside what the live model did answer.

    Attributes:
        steps: compared so far.
        skipped: steps for which there was no time.
    """

    def __init__(self, low: ArrayLike, high: ArrayLike) -> None:
        """Compare answers that must lie within limits.

        Args:
            low: smallest answer, (A,) or a number; -inf where there is no limit.
            high: largest answer, likewise.
        """
        self._low, self._high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        width = np.where(np.isfinite(self._high - self._low), self._high - self._low, 0.0)
        self._slack = _SLACK * width
        self.steps = self.skipped = 0
        self._sum = self._largest = self._signed = 0.0
        self._live_ns: deque[int] = deque(maxlen=_KEPT)
        self._candidate_ns: deque[int] = deque(maxlen=_KEPT)

    def add(self, live: ArrayLike, candidate: ArrayLike, live_ns: int, candidate_ns: int) -> str:
        """Takes one step in.

        Args:
            live: what the live model answered, (A,).
            candidate: what the candidate answered to the same, (A,).
            live_ns: how long the live call took.
            candidate_ns: how long the candidate's took.

        Returns:
            Why the candidate may never fly; empty if nothing speaks against it.
        """
        answer = np.asarray(candidate, np.float64)
        if not np.isfinite(answer).all():
            return f"its answer is not finite at step {self.steps} of the shadow: {answer}"
        outside = (answer < self._low - self._slack) | (answer > self._high + self._slack)
        if outside.any():
            worst = float(answer[outside].flat[0])
            return f"its answer leaves the limits at step {self.steps} of the shadow: {worst:g}"
        difference = answer - np.asarray(live, np.float64)
        self.steps += 1
        self._sum += float(np.abs(difference).mean())
        self._signed += float(difference.mean())
        self._largest = max(self._largest, float(np.abs(difference).max()))
        self._live_ns.append(live_ns)
        self._candidate_ns.append(candidate_ns)
        return ""

    def report(self) -> dict[str, Any]:
        """Differences in the answer's own unit, calls in us; None where the sample is too small."""
        steps = self.steps
        return {
            "steps": steps,
            "skipped": self.skipped,
            "difference_mean": round(self._sum / steps, 6) if steps else None,
            "difference_max": round(self._largest, 6) if steps else None,
            "bias": round(self._signed / steps, 6) if steps else None,
            "call_us": percentiles(self._candidate_ns),
            "live_call_us": percentiles(self._live_ns),
        }


def percentiles(durations_ns: deque[int]) -> dict[str, float | None]:
    """Median and p99 in us; the latter only of 100 or more."""
    if not durations_ns:
        return {"p50": None, "p99": None}
    microseconds = np.fromiter(durations_ns, np.float64) / 1e3
    many = len(microseconds) >= _LEAST_FOR_P99
    return {
        "p50": round(float(np.median(microseconds)), 1),
        "p99": round(float(np.quantile(microseconds, 0.99)), 1) if many else None,
    }


@dataclass(frozen=True)
class Limits:
    """What may become worse after a promotion, relative to before.

    Attributes:
        interventions: by so much may the share of commands that are not the task policy's rise.
        risk: by so much may the mean risk rise.
        latency: so many times the median duration of a call before.
        least: steps before and after that a comparison needs.
    """

    interventions: float
    risk: float
    latency: float
    least: int = 25


class Guard:
    """Watches a promoted model for a while, and says when it does worse than the one before."""

    def __init__(self, limits: Limits, window: int) -> None:
        """Compare up to `window` steps before a promotion with those after it."""
        self._limits = limits
        self._past = _Steps(window)
        self._since = _Steps(window)
        self.watching = False

    def note_call(self, call_ns: int) -> None:
        """The model answered, which took so long."""
        self._now.calls.append(call_ns)

    def note_command(self, intervened: bool, risk: float) -> None:
        """A step was decided: by the task policy or not, at such a risk (NaN: unknown)."""
        steps = self._now
        steps.interventions.append(intervened)
        if isfinite(risk):
            steps.risks.append(risk)

    @property
    def _now(self) -> _Steps:
        return self._since if self.watching else self._past

    def begin(self) -> None:
        """A promotion: from here on every step counts against the new model."""
        self._since.clear()
        self.watching = True

    def end(self, keep: bool) -> None:
        """The watch is over; `keep` what came since as the past, because the model stays."""
        if self.watching and keep:
            self._past, self._since = self._since, self._past
        self.watching = False

    def trip(self) -> str:
        """Why the model has to go; empty while it need not."""
        before, after, limits = self._past.figures(), self._since.figures(), self._limits
        least = limits.least
        if min(before["steps"], after["steps"]) >= least:
            rise = after["interventions"] - before["interventions"]
            if rise > limits.interventions:
                return (
                    f"interventions rose from {before['interventions']:.1%} to "
                    f"{after['interventions']:.1%} of the steps, allowed is a rise of "
                    f"{limits.interventions:.1%}"
                )
        if min(before["risks"], after["risks"]) >= least:
            if after["risk"] - before["risk"] > limits.risk:
                return (
                    f"mean risk rose from {before['risk']:.3g} to {after['risk']:.3g}, allowed is "
                    f"a rise of {limits.risk:g}"
                )
        if min(before["calls"], after["calls"]) >= least:
            if after["call_us"] > limits.latency * before["call_us"] > 0:
                return (
                    f"a call takes {after['call_us']:.0f} us (median), before "
                    f"{before['call_us']:.0f} us, allowed are {limits.latency:g} times as much"
                )
        return ""

    def report(self) -> dict[str, Any]:
        """Before and after, as far as they are known."""
        return {"before": self._past.figures(), "after": self._since.figures()}


class _Steps:
    """The newest steps, at most so many."""

    def __init__(self, size: int) -> None:
        self.interventions: deque[bool] = deque(maxlen=size)
        self.risks: deque[float] = deque(maxlen=size)
        self.calls: deque[int] = deque(maxlen=size)

    def clear(self) -> None:
        for kept in (self.interventions, self.risks, self.calls):
            kept.clear()

    def figures(self) -> dict[str, Any]:
        steps, risks = len(self.interventions), len(self.risks)
        return {
            "steps": steps,
            "interventions": sum(self.interventions) / steps if steps else 0.0,
            "risks": risks,
            "risk": sum(self.risks) / risks if risks else 0.0,
            "calls": len(self.calls),
            "call_us": percentiles(self.calls)["p50"] or 0.0,
        }
