"""What a hop of the bare graphs does to a frame: the floor under what test_step_bench.py times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from safetypilot.launch.bench import frames
from safetypilot.launch.bench.contestants import Cell, Contestant, Ground
from safetypilot.launch.bench.course import HOPS


@pytest.mark.parametrize("role", HOPS)
def test_a_bare_hop(role: str, tmp_path: Path, benchmark: Any) -> None:
    course = Ground.of(Cell()).course(Contestant("hop", "", ""), 1, str(tmp_path), [])
    do = frames.work(role, course)
    frame = frames.Frame(course.sizes["observation"], course.dims).to_bytes()
    assert len(benchmark(do, frame)) == course.sizes[frames.TOPIC_OF[role]]
