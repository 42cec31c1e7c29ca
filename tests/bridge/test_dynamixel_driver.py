"""The Dynamixel driver on a chain behind a pseudo-terminal: activating, moving, standing."""

from __future__ import annotations

from math import inf
from time import monotonic_ns, sleep

import pytest

pytest.importorskip("dynamixel_sdk")

from dynamixel_rig import JOINTS, Rig, cycle, driving, goal, soon, until, working

from safetypilot.bridge.contract import DriverError, Failsafe, Mode, Setpoint
from safetypilot.bridge.protocols.dynamixel_table import (
    CENTRE,
    MODELS,
    RADIANS,
)

# Activating, moving, deactivating.


@pytest.mark.parametrize("mode", [Mode.POSITION, Mode.VELOCITY, Mode.EFFORT])
def test_activation_does_not_step(mode: Mode) -> None:
    with Rig() as rig, driving(rig, effort=True) as driver:
        with rig.lock:
            rig.angles[:] = [1.2, -2.0]  # turned by hand since
            rig.values("elbow")["goal_velocity"] = 200
        before = list(rig.angles)
        start = driver.activate(mode)
        assert start.fresh and start.position == pytest.approx(before, abs=0.01)
        cycle(driver, Setpoint(mode, start.position, (0.0, 0.0), (0.0, 0.0)), 0.2)
        assert rig.angles == pytest.approx(before, abs=0.02)
        assert rig.values("elbow")["bus_watchdog"] == 9
        assert rig.values("elbow")["torque_enable"] == 1
        assert rig.values("elbow")["goal_pwm"] == 885


def test_torque_comes_little_by_little() -> None:
    with Rig() as rig, driving(rig, ramp_s=0.2) as driver:
        driver.activate(Mode.POSITION)
        ramp = [
            int.from_bytes(row[at + 13 : at + 15], "little")
            for row in [bytes(rig.heard)]
            for at in range(len(row) - 15)
            if row[at : at + 12] == b"\xff\xff\xfd\0\xfe\x0d\0\x83\x64\0\x02\0"
        ]
        assert len(ramp) >= 9
        assert ramp == sorted(ramp) and ramp[0] < 150 and ramp[-1] == 885


def test_goals_are_followed_in_si_units() -> None:
    with working() as (rig, driver):
        measured = cycle(driver, goal(0.8, -1.0), 0.8)
        assert rig.angles == pytest.approx([0.8, -1.0], abs=0.01)
        assert measured.position == pytest.approx((0.8, -1.0), abs=0.01)
        assert rig.values("shoulder")["goal_position"] == CENTRE + round(0.8 / RADIANS)
        assert measured.sensors["voltage"] == (12.0, 12.0)
        assert not measured.faults


@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_moved(model: str) -> None:
    with Rig(model) as rig, driving(rig, model=model, ramp_s=0.04) as driver:
        driver.activate(Mode.POSITION)
        until(lambda: abs(rig.angles[0] - 0.4) < 0.03, lambda: cycle(driver, goal(0.4, -0.4), 0.0))
        driver.deactivate()


def test_several_turns() -> None:
    joints = {"shoulder": {"id": 1}, "elbow": {"id": 2}}
    with working(extended=True, joints=joints) as (rig, driver):
        assert rig.values("shoulder")["operating_mode"] == 4
        assert driver.description.joints[0].high == inf
        until(lambda: rig.angles[0] > 6.4, lambda: cycle(driver, goal(6.5, -0.4), 0.0))
        assert driver.read(soon()).position[0] == pytest.approx(6.5, abs=0.3)


def test_velocity_and_effort() -> None:
    with working(Mode.VELOCITY) as (rig, driver):
        measured = cycle(driver, Setpoint(Mode.VELOCITY, velocity=(0.6, -0.6)), 0.8)
        assert measured.velocity == pytest.approx((0.6, -0.6), abs=0.06)
    with working(Mode.EFFORT, effort=True) as (rig, driver):
        measured = cycle(driver, Setpoint(Mode.EFFORT, effort=(0.02, 0.0)), 0.1)
        assert measured.effort == pytest.approx((0.02, 0.0), abs=0.005)
        assert rig.speeds[0] > 0.05


@pytest.mark.parametrize(
    "setpoint",
    [
        goal(float("nan"), 0.0),
        goal(0.0, float("inf")),
        goal(0.0),
        goal(0.0, 0.0, 0.0),
        goal(0.0, 1e300),
        goal(0.0, 5e3),
        Setpoint(Mode.VELOCITY, velocity=(0.0, 0.0)),
    ],
)
def test_what_cannot_be_right_does_not_go_out(setpoint: Setpoint) -> None:
    with working() as (rig, driver):
        cycle(driver, goal(*rig.angles), 0.02)
        before = rig.values("elbow")["goal_position"]
        with pytest.raises(DriverError):
            driver.write(setpoint, soon())
        with pytest.raises(DriverError, match="deadline"):
            driver.write(goal(0.0, 0.0), monotonic_ns() - 1)
        driver.read(soon())
        assert rig.values("elbow")["goal_position"] == before


@pytest.mark.parametrize("mode", [Mode.POSITION, Mode.VELOCITY, Mode.EFFORT])
def test_deactivated_it_stands_and_holds(mode: Mode) -> None:
    with working(mode, effort=True) as (rig, driver):
        cycle(driver, Setpoint(mode, (1.5, -1.5), (1.0, -1.0), (0.04, -0.04)), 0.15)
        driver.deactivate()
        at = list(rig.angles)
        for joint in JOINTS:
            assert rig.values(joint)["torque_enable"] == 1
            assert rig.values(joint)["bus_watchdog"] == 0
        sleep(0.2)
        assert rig.angles == pytest.approx(at, abs=0.05)
        with pytest.raises(DriverError, match="not active"):
            driver.write(goal(0.0, 0.0), soon())
        with pytest.raises(DriverError, match="not active"):
            driver.deactivate()
        driver.activate(Mode.POSITION)


def test_motion_ends_nearby_and_within_the_limits() -> None:
    with working() as (rig, driver):
        cycle(driver, goal(1.9, -0.4), 0.12)
        at = rig.angles[0]
        assert rig.speeds[0] > 1.0
        driver.deactivate()
        sleep(0.2)
        assert at - 0.02 < rig.angles[0] < 1.6
        assert rig.values("shoulder")["goal_position"] < CENTRE + 1.6 / RADIANS
        driver.activate(Mode.POSITION)
        until(lambda: rig.angles[0] > 1.93, lambda: cycle(driver, goal(3.0, -0.4), 0.0))
        driver.deactivate()
        assert rig.values("shoulder")["goal_position"] <= CENTRE + round(2.0 / RADIANS)


def test_holding_it_is_activated_without_letting_go() -> None:
    with working() as (rig, driver):
        driver.deactivate()
        rig.events.clear()
        driver.activate(Mode.POSITION)
        assert not rig.events


def test_torque_goes_off_where_that_is_wanted() -> None:
    with working(failsafe="torque off") as (rig, driver):
        assert driver.description.failsafes == (Failsafe.HOLD, Failsafe.TORQUE_OFF)
        driver.deactivate()
        assert not any(rig.values(joint)["torque_enable"] for joint in JOINTS)
