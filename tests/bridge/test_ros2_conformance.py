"""The ROS 2 driver passes what every driver has to, with each of its controllers."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from conformance_judge import judge

from safetypilot.bridge.conformance import suite

pytest.importorskip("cyclonedds")

DEVICE = f"{sys.executable} -P -m safetypilot.bridge.devices.ros2 --domain free --controller"

# Most controllers have no time-out of their own, and none is calibrated from here.
MAY_SKIP = {
    *("foreign_calibration", "watchdog_can_be_provoked"),
    *("silence_damps", "killed_driver_damps"),
}
EFFORT = {"commands_move_their_joint"}  # an effort says nothing of where it leads


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


@pytest.mark.slow
@pytest.mark.parametrize("check", suite.CHECKS, ids=suite.name)
def test_conformance(
    check: suite.Check, bench: suite.Bench, request: pytest.FixtureRequest
) -> None:
    controller = request.node.callspec.params["bench"]
    judge(check, bench, MAY_SKIP | (EFFORT if controller == "effort" else set()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["silence_damps", "killed_driver_damps"])
def test_a_controller_with_a_time_out_damps_by_itself(name: str, timed: suite.Bench) -> None:
    judge(next(check for check in suite.CHECKS if suite.name(check) == name), timed, ())
