"""The servo in a simulated Dynamixel: goals, profiles and limits."""

from __future__ import annotations

from math import pi

import pytest
from dynamixel_bench import Chain

from safetypilot.bridge.protocols.dynamixel_table import (
    CENTRE,
    RADIANS,
    RADIANS_PER_S,
)


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("offset", [0, 100])
def test_position_mode_goes_to_its_goal(reverse: int, offset: int) -> None:
    chain = Chain()
    chain.write("drive_mode", reverse)
    chain.write("homing_offset", offset)
    chain.write("torque_enable", 1)
    chain.write("goal_position", CENTRE + offset + 500)
    chain.run(1.0)
    assert chain.angle == pytest.approx((-500 if reverse else 500) * RADIANS, abs=0.01)
    assert chain.read("present_position") == pytest.approx(CENTRE + offset + 500, abs=3)


def test_a_profile_limits_the_speed() -> None:
    chain = Chain()
    chain.write("torque_enable", 1)
    chain.write("profile_velocity", 20)
    chain.write("profile_acceleration", 10)
    chain.write("goal_position", CENTRE + 2000)
    fastest = 0.0
    for _ in range(100):
        fastest = max(fastest, chain.run(0.01)[1])
    assert fastest == pytest.approx(20 * RADIANS_PER_S, rel=0.15)
    chain.run(7.0)
    assert chain.angle == pytest.approx(2000 * RADIANS, abs=0.01)


def test_limits_of_torque_and_current() -> None:
    chain = Chain()
    chain.write("torque_enable", 1)
    chain.write("goal_pwm", 0)
    chain.write("goal_position", CENTRE + 1000)
    chain.run(0.2)
    assert chain.angle == 0.0, "its output was limited to nothing"
    motor = chain.motors[0]
    chain.write("torque_enable", 0)
    chain.write("operating_mode", 0)
    chain.write("goal_current", 100)
    chain.write("torque_enable", 1)
    assert motor.servo.drive(0.0, 0.0, 0.002) == pytest.approx(100 * motor.model.torque)
    assert chain.read("present_current") == 100
    assert motor.servo.drive(0.0, 10.0, 0.002) == 0.0  # faster than it can turn
    chain.write("torque_enable", 0)
    assert motor.servo.drive(0.0, 0.0, 0.002) == 0.0


def test_an_old_goal_is_driven_to_when_torque_comes() -> None:
    chain = Chain()
    chain.motors[0].servo.drive(pi / 4, 0.0, 0.002)  # turned by hand
    chain.angle = pi / 4
    chain.write("torque_enable", 1)
    chain.run(0.5)
    assert chain.angle == pytest.approx(0.0, abs=0.01)
