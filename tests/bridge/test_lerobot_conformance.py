"""The LeRobot driver passes what every driver has to, as far as a robot without a device can."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance_judge import judge

from safetypilot.bridge.conformance import suite

# A robot in this very process has no device that could hang, die or say what it did, no watchdog,
# and here no calibration.
MAY_SKIP = {
    *("foreign_calibration", "watchdog_can_be_provoked", "silence_damps", "killed_driver_damps"),
    *("stops_within_a_period", "stops_from_another_thread", "stops_from_a_signal"),
    *("resets_only_what_answers", "device_that_hangs", "device_that_dies", "connect_to_nothing"),
}


@pytest.fixture(scope="module")
def bench() -> Iterator[suite.Bench]:
    duck = Path(__file__).with_name("lerobot_duck.py")
    with suite.bench(suite.Subject(f"{duck}:DuckDriver")) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("check", suite.CHECKS, ids=suite.name)
def test_conformance(check: suite.Check, bench: suite.Bench) -> None:
    judge(check, bench, MAY_SKIP)
