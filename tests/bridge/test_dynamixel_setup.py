"""A Dynamixel chain before it moves: what is declared, who is there, what has to fit."""

from __future__ import annotations

import os
from dataclasses import replace
from math import pi
from typing import Any

import pytest

pytest.importorskip("dynamixel_sdk")

from dynamixel_rig import JOINTS, Rig, driving, soon, working

from safetypilot.bridge import registry
from safetypilot.bridge.contract import DriverError, Failsafe, Mode
from safetypilot.bridge.drivers.dynamixel import DynamixelDriver, DynamixelOptions

# What is declared.


def test_the_description_needs_no_device() -> None:
    told = registry.describe("dynamixel", {"port": "/dev/nowhere"})
    assert [joint.name for joint in told.joints] == list(JOINTS)
    assert (told.joints[0].low, told.joints[1].high) == (-2.0, 2.4)
    assert told.failsafes == (Failsafe.HOLD,)
    assert told.modes == (Mode.POSITION, Mode.VELOCITY)
    assert told.calibration and not told.simulated
    fast = registry.describe("dynamixel", {"baud": 4_000_000})
    assert fast.max_rate_hz == pytest.approx(4 * told.max_rate_hz)
    assert fast.simulated and not fast.calibration


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"joints": {"a": {"id": 1}, "b": {"id": 1}}}, "two joints have the motor 1"),
        ({"joints": {"a": {"id": 253}}}, "0 to 252"),
        ({"joints": {"a": {}}}, "0 to 252"),
        ({"joints": {"a": {"id": 1, "model": "xm430"}}}, "is not known"),
        ({"joints": {"a": {"id": 1, "speed": 1.0}}}, "has no 'speed'"),
        ({"baud": 9000}, "9600"),
        ({"watchdog_s": 3.0}, "0.04 to 2.56"),
        ({"failsafe": "drop"}, "hold or torque off"),
        ({"model": "xl430-w250", "effort": True}, "not every motor controls current"),
        ({"rate_hz": 2000.0}, "at most"),
        ({"rates": 1}, "did you mean 'rate_hz'"),
    ],
)
def test_options_that_will_not_do(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(DriverError, match=reason):
        registry.create("dynamixel", options)


def test_a_motor_that_may_do_less() -> None:
    told = DynamixelDriver(
        DynamixelOptions(
            joints={"a": {"id": 1, "velocity": 1.0}, "b": {"id": 2}}, model="xl430-w250"
        )
    ).description
    assert told.joints[0].velocity == 1.0
    assert told.joints[1].velocity == pytest.approx(0.97 * 61 * 2 * pi / 60)
    assert told.joints[1].high == pytest.approx(pi, abs=0.01)


# Connecting and configuring.


def test_the_identity_is_the_motors() -> None:
    with Rig() as rig:
        rig.values("elbow")["homing_offset"] = 12
        driver = DynamixelDriver(DynamixelOptions(port=rig.path))
        before = dict(rig.values("shoulder"))
        assert driver.connect() == {
            "model": "xm430-w350",
            "serial": "1:1020:0,2:1020:12",
            "firmware": "44",
        }
        assert not any(rig.values(joint)["torque_enable"] for joint in JOINTS)
        assert rig.values("shoulder")["goal_position"] == before["goal_position"]
        with pytest.raises(DriverError, match="already"):
            driver.connect()
        driver.close()
        named = DynamixelDriver(DynamixelOptions(port=rig.path, serial="left arm"))
        assert named.connect()["serial"] == "left arm"
        named.close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": 7}, "motor 2 does not answer"),
        ({"model_number": 1060}, "motor 2 is a xl430-w250, not the declared xm430-w350"),
        ({"model_number": 350}, "model 350"),
        ({"firmware_version": 37}, "has no bus watchdog"),
    ],
)
def test_another_motor_is_not_connected_to(change: dict[str, int], reason: str) -> None:
    with Rig() as rig:
        rig.values("elbow").update(change)
        driver = DynamixelDriver(DynamixelOptions(port=rig.path))
        with pytest.raises(DriverError, match=reason):
            driver.connect()
        with pytest.raises(DriverError, match="not connected"):
            driver.read(soon())


def test_a_port_that_is_not_there_or_taken() -> None:
    with pytest.raises(DriverError, match="cannot be opened"):
        DynamixelDriver(DynamixelOptions(port="/dev/nowhere")).connect()
    with Rig() as rig, driving(rig):
        with pytest.raises(DriverError, match="cannot be opened"):
            DynamixelDriver(DynamixelOptions(port=rig.path)).connect()


def test_another_speed_is_nothing_but_noise() -> None:
    with Rig() as rig:
        driver = DynamixelDriver(DynamixelOptions(port=rig.path, baud=115_200))
        with pytest.raises(DriverError, match="does not answer"):
            driver.connect()


def test_configure_sets_what_stays_and_enables_no_torque() -> None:
    with Rig() as rig, driving(rig) as driver:
        effective = driver.configure(driver.calibration())
        assert effective["calibration"]["ids"] == {"shoulder": 1, "elbow": 2}
        for joint in JOINTS:
            assert rig.values(joint)["return_delay_time"] == 0
            assert rig.values(joint)["torque_enable"] == 0
        assert set(driver.counters.values()) == {0}


def test_a_motor_that_answers_nothing_is_made_to() -> None:
    with Rig() as rig:
        rig.values("shoulder")["status_return_level"] = 0
        with driving(rig):
            assert rig.values("shoulder")["status_return_level"] == 2


@pytest.mark.parametrize("field", ["ids", "homing_offset", "drive_mode", "range_min", "range_max"])
def test_the_calibration_of_another_arm_is_refused(field: str) -> None:
    with Rig() as rig, driving(rig) as driver:
        own = driver.calibration()
        other = {**own, field: {**own[field], "elbow": own[field]["elbow"] + 1}}
        with pytest.raises(DriverError, match=f"{field} of elbow is {own[field]['elbow']}, not"):
            driver.configure(other)
        with pytest.raises(DriverError, match="before it is configured"):
            driver.activate(Mode.POSITION)
        missing = {name: rows for name, rows in own.items() if name != field}
        with pytest.raises(DriverError, match=f"has no {field}"):
            driver.configure(missing)
        with pytest.raises(DriverError, match="of the joints"):
            driver.configure({**own, field: {"elbow": 0}})
        with pytest.raises(DriverError, match="has no ids"):
            driver.configure({})
        driver.configure(own)


def test_a_simulated_chain_needs_no_calibration() -> None:
    with Rig() as rig:
        driver = DynamixelDriver(DynamixelOptions(port=rig.path, simulated=True))
        driver.connect()
        driver.configure({})
        driver.close()


@pytest.mark.parametrize(
    ("register", "value", "reason"),
    [
        ("hardware_error_status", 0x04, "overheating"),
        ("drive_mode", 0x08, "every goal turns torque on"),
        ("drive_mode", 0x04, "profile by time"),
        ("homing_offset", 1025, "not used in position mode"),
        ("max_position_limit", 3000, "only takes goals from"),
        ("velocity_limit", 100, "raise its velocity_limit"),
        ("current_limit", 100, "raise its current_limit"),
    ],
)
def test_a_motor_that_cannot_do_what_is_declared(register: str, value: int, reason: str) -> None:
    with Rig() as rig, driving(rig, effort=True) as driver:
        rig.values("elbow")[register] = value
        with pytest.raises(DriverError, match=reason):
            driver.configure(driver.calibration())


def test_torque_goes_off_only_to_change_a_register() -> None:
    with working() as (rig, driver):
        driver.deactivate()
        assert driver.configure(driver.calibration())["released"] == []
        assert rig.values("elbow")["torque_enable"] == 1
        rig.values("elbow")["return_delay_time"] = 250
        assert driver.configure(driver.calibration())["released"] == ["elbow"]
        assert rig.values("elbow")["return_delay_time"] == 0


# Leaving nothing behind.


def test_nothing_stays_open() -> None:
    with Rig() as rig:
        driver = DynamixelDriver(DynamixelOptions(port=rig.path))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            driver.connect()
            driver.close()
        assert len(os.listdir("/proc/self/fd")) == before


def test_without_the_sdk_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "safetypilot.bridge.drivers.dynamixel_port", None)
    driver = registry.create("dynamixel", {"port": "/dev/nowhere"})
    assert driver.description.name == "dynamixel"
    with pytest.raises(DriverError, match=r"safetypilot\[dynamixel\]"):
        driver.connect()


def test_options_are_frozen() -> None:
    assert replace(DynamixelOptions(), rate_hz=50.0).rate_hz == 50.0
