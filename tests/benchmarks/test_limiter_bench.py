"""The limiter alone: one setpoint for 12 joints, of a policy that keeps all limits."""

from __future__ import annotations

from itertools import count
from math import cos, sin
from typing import Any

import pytest

from safetypilot.bridge.contract import Joint, Mode, Setpoint
from safetypilot.bridge.limits import Limiter

JOINT = Joint(
    "knee", -1.0, 2.0, velocity=2.0, effort=50.0, acceleration=20.0, margin=0.1, kp=50.0, kd=2.0
)
JOINTS, NS, STEPS = 12, 1_000_000, 4096


def swing(mode: Mode, step: int) -> Setpoint:
    """Back and forth, at most 0.3 rad/s and 0.3 rad/s^2."""
    phase = step * NS / 1e9
    numbers = {"position": 0.3 * (1 - cos(phase)), "velocity": 0.3 * sin(phase), "effort": 1.0}
    rows = {name: (value,) * JOINTS for name, value in {**numbers, "kp": 20.0, "kd": 1.0}.items()}
    return Setpoint(mode, **rows)


@pytest.mark.parametrize("mode", list(Mode))
def test_a_setpoint_for_12_joints(benchmark: Any, mode: Mode) -> None:
    limiter = Limiter([JOINT] * JOINTS, mode, NS / 1e9)
    limiter.start((0.0,) * JOINTS, 0)
    asked = [swing(mode, step) for step in (*range(STEPS), *range(STEPS - 1, -1, -1))]
    steps = count(1)

    def cycle() -> None:
        step = next(steps)
        setpoint = asked[step % len(asked)]
        limiter.limit(setpoint, setpoint.position, setpoint.velocity, step * NS)

    benchmark(cycle)
    cycle()
    assert not limiter.cut
