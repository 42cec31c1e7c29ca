"""A hundred swaps at 500 Hz with both cores busy: what acts is always whole, and at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from flights import ZOO, Flight

from safetypilot.launch import attach

Fly = Callable[..., Flight]
pytestmark = [pytest.mark.integration, pytest.mark.slow]

SWAPS = 100


@contextmanager
def busy_cores() -> Iterator[None]:
    """Two processes of ordinary precedence that never sleep."""
    code = "while True: pass"
    loads = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    try:
        yield
    finally:
        for load in loads:
            load.kill()
            load.wait()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("shadow_steps", [0, 100])
def test_a_hundred_swaps_at_500_hz_under_load(fly: Fly, shadow_steps: int) -> None:
    light = ("population=8", "horizon=2")
    with busy_cores():
        flight = fly("maze", "rate=500", "policy=novice", *light, "--duration", "3000")
        receive = flight.tap("command")
        acted: list[tuple[int, str]] = []

        def collect() -> None:
            while (command := receive(0.0)) is not None:
                acted.append((command.seq, command.model))

        promotions: list[dict[str, Any]] = []
        for number in range(SWAPS):
            model = ("trained", "novice")[number % 2]
            options = {"shadow_steps": shadow_steps}
            path = str(ZOO / f"{model}.onnx")
            promotions.append(attach.swap(flight.ask, "task_policy", path, 120, options))
            collect()
        plant = flight.status("simulator")["node"]
    for swap, following in pairwise(promotions):
        begin, end = swap["promoted_at"], following["promoted_at"]
        models = {model for seq, model in acted if begin <= seq < end and model}
        assert models <= {swap["version"]}
        assert swap["at_ns"]["promoted"] >= swap["at_ns"]["ready"]
        assert not shadow_steps or swap["shadow"]["steps"] >= shadow_steps
    flown = [model for seq, model in acted if seq >= promotions[0]["promoted_at"] and model]
    assert len(set(flown)) == 2
    sys.stderr.write(f"missed {plant['missed_deadlines']} of {plant['steps']} steps\n")
