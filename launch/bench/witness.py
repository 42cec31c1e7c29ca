"""Which missed deadlines the host itself explains."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from safetypilot.launch.bench.samples import Integers, Samples


def stalls_of(witnesses: Iterable[Samples]) -> Integers:
    """Spans in which a timer slept longer than it had asked for, (K, 2), ns, in order."""
    spans = [
        np.stack([seen.stamp_ns, seen.stamp_ns + (seen.latency_us * 1e3).astype(np.int64)], axis=1)
        for seen in witnesses
        if len(seen)
    ]
    if not spans:
        return np.zeros((0, 2), np.int64)
    joined = np.concatenate(spans)
    order: Integers = joined[np.argsort(joined[:, 0])]
    return order


def explained(samples: Samples, stalls: Integers, deadline_ns: int) -> int:
    """How many of the missed steps would have been in time had the host not stood still.

    A step is explained if the witnesses were held up, between the step's stamp and its deadline,
    for so long that an ordinary step (99 % of this block's are faster) no longer fitted in.
    """
    in_time = samples.latency_us[~samples.missed & ~np.isnan(samples.latency_us)]
    ordinary_ns = float(np.percentile(in_time, 99)) * 1e3 if len(in_time) else 0.0
    least_ns = deadline_ns - ordinary_ns
    count = 0
    for step in np.flatnonzero(samples.missed):
        start = int(samples.stamp_ns[step])
        end = start + deadline_ns
        if len(samples.slack_ns):
            start -= int(samples.slack_ns[step])
        held = _held_up(stalls, start, end)
        count += held > 0 and held >= least_ns
    return count


def _held_up(stalls: Integers, start: int, end: int) -> int:
    """How much of a time was stalls, however many and whoever saw them."""
    spans = stalls[(stalls[:, 1] > start) & (stalls[:, 0] < end)]
    until, total = start, 0
    for began, ended in spans.tolist():  # in the order of their begin
        total += max(0, min(ended, end) - max(began, until))
        until = max(until, min(ended, end))
    return total
