"""The ROS 2 driver passes what every driver has to, with each of its controllers."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from safetypilot.bridge.conformance import suite

pytest.importorskip("cyclonedds")

DEVICE = f"{sys.executable} -P -m safetypilot.bridge.devices.ros2 --domain free --controller"


@pytest.fixture(scope="module", params=["position", "velocity", "effort", "trajectory"])
def bench(request: pytest.FixtureRequest) -> Iterator[suite.Bench]:
    options = {"controller": request.param}
    with suite.bench(suite.Subject("ros2", options, f"{DEVICE} {request.param}")) as made:
        yield made


@pytest.fixture(scope="module")
def timed() -> Iterator[suite.Bench]:
    """A controller with a time-out for commands."""
    device = f"{DEVICE} position --timeout 0.2"
    with suite.bench(suite.Subject("ros2", {"watchdog_s": 0.2}, device)) as made:
        yield made


def judge(check: suite.Check, bench: suite.Bench) -> None:
    outcome = suite.run(check, bench)
    if outcome.verdict is suite.Verdict.SKIPPED:
        pytest.skip(outcome.seen)
    assert outcome.verdict is suite.Verdict.PASSED, outcome.seen


@pytest.mark.slow
@pytest.mark.parametrize("check", suite.CHECKS, ids=suite.name)
def test_conformance(check: suite.Check, bench: suite.Bench) -> None:
    judge(check, bench)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["silence_damps", "killed_driver_damps"])
def test_a_controller_with_a_time_out_damps_by_itself(name: str, timed: suite.Bench) -> None:
    judge(next(check for check in suite.CHECKS if suite.name(check) == name), timed)
