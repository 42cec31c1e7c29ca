"""The LeRobot driver passes what every driver has to, as far as a robot without a device can."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from safetypilot.bridge.conformance import suite


@pytest.fixture(scope="module")
def bench() -> Iterator[suite.Bench]:
    duck = Path(__file__).with_name("lerobot_duck.py")
    with suite.bench(suite.Subject(f"{duck}:DuckDriver")) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("check", suite.CHECKS, ids=suite.name)
def test_conformance(check: suite.Check, bench: suite.Bench) -> None:
    outcome = suite.run(check, bench)
    if outcome.verdict is suite.Verdict.SKIPPED:
        pytest.skip(outcome.seen)
    assert outcome.verdict is suite.Verdict.PASSED, outcome.seen
