"""Calibration files: of one device, and of no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from safetypilot.bridge.calibration import Calibration, load, save
from safetypilot.bridge.contract import Description, DriverError, Failsafe, Joint, Mode

IDENTITY = {"model": "arm", "serial": "7", "firmware": "1"}
VALUES = {"zero": [0.1]}


def description(simulated: bool = False) -> Description:
    return Description(
        "arm", (Joint("j"),), (Mode.POSITION,), 100, 100, 0.1, (Failsafe.HOLD,),
        calibration=("zero",), simulated=simulated,
    )  # fmt: skip


@pytest.mark.parametrize("device", [{"model": "arm"}, {"serial": "", "model": "arm"}])
def test_a_file_that_fits_every_unit_is_refused(tmp_path: Path, device: dict[str, str]) -> None:
    file = tmp_path / "c.json"
    save(Calibration(device, VALUES), file)
    identity = {**IDENTITY, "serial": device.get("serial", "7")}
    why = rf"{file} names no serial, so it would fit every arm; add .*`device: {{serial: ...}}`"
    with pytest.raises(DriverError, match=why):
        load(file).check(description(), identity)
    assert load(file).check(description(simulated=True), identity) == VALUES


@pytest.mark.parametrize("simulated", [False, True])
@pytest.mark.parametrize(("device", "why"), [
    ({}, "does not say whose it is"),
    ({"serial": "8"}, "belongs to serial '8', the device here is '7'"),
    ({"serial": "7", "model": "leg"}, "belongs to model 'leg', the device here is 'arm'"),
])  # fmt: skip
def test_a_file_of_another_device_or_of_none_is_refused(
    device: dict[str, str], why: str, simulated: bool
) -> None:
    with pytest.raises(DriverError, match=why):
        Calibration(device, VALUES).check(description(simulated), IDENTITY)


def test_a_file_of_this_device_fits() -> None:
    for device in ({"serial": "7"}, IDENTITY):
        assert Calibration(device, VALUES).check(description(), IDENTITY) == VALUES
