"""The drivers that come with Safety Pilot do what every driver has to, on their simulated devices.

Those over ROS 2 and LeRobot, and recordings, have tests of their own for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from conformance_judge import judge

from safetypilot.bridge import registry
from safetypilot.bridge.conformance import suite

MUJOCO = "{python} -P -m safetypilot.bridge.devices.mujoco"
NEEDED = {"dynamixel": "dynamixel_sdk", "unitree": "cyclonedds"}


def mujoco(actuation: str) -> suite.Subject:
    """The maze's robot with servos, which the device has to have, too."""
    given = json.dumps({"actuation": actuation})
    device = f"{MUJOCO} --options '{{{given}}}'"  # its braces stand for themselves
    return suite.Subject("mujoco", {"actuation": actuation, "address": "{socket}"}, device)


SUBJECTS = {
    "mujoco": suite.Subject("mujoco"),
    "mujoco position": mujoco("position"),
    "mujoco pd": mujoco("pd"),
    "dynamixel": suite.Subject("dynamixel"),
    "unitree": suite.Subject("unitree"),
}


# Nothing is measured in the calibration of a simulated one; the maze's robot knows only efforts,
# which say nothing of where they lead.
MAY_SKIP = {
    "mujoco": {"foreign_calibration", "commands_move_their_joint"},
    "mujoco position": {"foreign_calibration"},
    "mujoco pd": {"foreign_calibration"},
    "dynamixel": {"foreign_calibration"},
    "unitree": {"foreign_calibration"},
}


@pytest.fixture(scope="module", params=SUBJECTS)
def bench(request: pytest.FixtureRequest) -> Iterator[suite.Bench]:
    subject = SUBJECTS[request.param]
    if subject.driver in NEEDED:
        pytest.importorskip(NEEDED[subject.driver])
    with suite.bench(subject) as made:
        yield made


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize("check", suite.CHECKS, ids=suite.name)
def test_conformance(
    check: suite.Check, bench: suite.Bench, request: pytest.FixtureRequest
) -> None:
    judge(check, bench, MAY_SKIP[request.node.callspec.params["bench"]])


@pytest.mark.parametrize(
    ("name", "device"),
    [("mujoco", "mujoco"), ("dynamixel", "dynamixel"), ("ros2", "ros2"), ("unitree", "quadruped")],
)
def test_a_driver_names_the_device_it_is_checked_with(name: str, device: str) -> None:
    command, options = type(registry.create(name)).SIMULATED
    assert f"safetypilot.bridge.devices.{device}" in command
    with suite.bench(suite.Subject(name)) as bench:
        assert set(options) <= {field for field in bench.kind.Options.__dataclass_fields__}
