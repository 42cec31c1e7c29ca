"""From what was commanded to damping, little by little."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic_ns, sleep

from safetypilot.bridge.contract import Mode, Setpoint, Vector


def as_pd(setpoint: Setpoint, zeros: Vector) -> Setpoint:
    """The same in mode pd."""
    if setpoint.mode is Mode.PD:
        return setpoint
    return Setpoint(Mode.PD, zeros, zeros, setpoint.effort, zeros, zeros)


def damped(first: Setpoint, share: float, damping: float) -> Setpoint:
    """A setpoint of mode pd on the way to damping, by a share from 0 to 1."""
    left = 1.0 - share
    return first._replace(
        velocity=tuple([left * number for number in first.velocity]),
        effort=tuple([left * number for number in first.effort]),
        kp=tuple([left * number for number in first.kp]),
        kd=tuple([left * number + share * damping for number in first.kd]),
    )


def ticks(period_ns: int, span_ns: int) -> Iterator[int]:
    """The time, CLOCK_MONOTONIC, once per period for so long."""
    now_ns = next_ns = monotonic_ns()
    end_ns = now_ns + span_ns
    while now_ns < end_ns:
        yield now_ns
        next_ns = max(next_ns + period_ns, monotonic_ns())
        sleep(max(0, next_ns - monotonic_ns()) / 1e9)
        now_ns = monotonic_ns()
