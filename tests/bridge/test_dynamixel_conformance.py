"""The Dynamixel driver passes what every driver has to, with the calibration of its arm."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from conformance_judge import judge

from safetypilot.bridge.calibration import Calibration
from safetypilot.bridge.conformance import suite

pytest.importorskip("dynamixel_sdk")

CALIBRATION = Calibration(
    device={"serial": "1:1020:0,2:1020:0"},
    values={
        "ids": {"shoulder": 1, "elbow": 2},
        "homing_offset": {"shoulder": 0, "elbow": 0},
        "drive_mode": {"shoulder": 0, "elbow": 0},
        "range_min": {"shoulder": 0, "elbow": 0},
        "range_max": {"shoulder": 4095, "elbow": 4095},
    },
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[suite.Bench]:
    port = str(tmp_path_factory.mktemp("dynamixel") / "arm")
    options = {"port": port, "simulated": False, "effort": True}
    device = f"{sys.executable} -P -m safetypilot.bridge.devices.dynamixel --link {port}"
    subject = suite.Subject("dynamixel", options, device, calibration=CALIBRATION)
    with suite.bench(subject) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("check", suite.CHECKS, ids=suite.name)
def test_conformance(check: suite.Check, bench: suite.Bench) -> None:
    judge(check, bench, may_skip=())
