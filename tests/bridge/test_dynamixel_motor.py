"""Simulated Dynamixel motors are as the e-manual has them: locks, limits, watchdog."""

from __future__ import annotations

import pytest
from dynamixel_bench import MS, Chain

from safetypilot.bridge.protocols import dynamixel as wire
from safetypilot.bridge.protocols.dynamixel import packet
from safetypilot.bridge.protocols.dynamixel_table import (
    CENTRE,
    RADIANS,
    RADIANS_PER_S,
    WATCHDOG_EXPIRED,
)


def test_ping_and_read() -> None:
    chain = Chain()
    assert chain.send(packet(1, wire.PING)) == [(1, 0, b"\xfc\x03\x2c")]
    everyone = chain.send(packet(wire.BROADCAST, wire.PING))
    assert [number for number, _, _ in everyone] == [1, 2]
    assert chain.read("model_number", 2) == 1020
    assert chain.send(packet(3, wire.PING)) == []


def test_the_eeprom_is_locked_while_torque_is_on() -> None:
    chain = Chain()
    assert chain.write("homing_offset", -5) == 0
    assert chain.write("torque_enable", 1) == 0
    for name in ("homing_offset", "operating_mode", "return_delay_time", "drive_mode", "id"):
        assert chain.write(name, 1) == wire.BAD_ACCESS
    assert chain.read("homing_offset") == -5
    assert chain.refused.count("eeprom locked") == 5
    assert chain.write("led", 1) == 0
    assert chain.write("torque_enable", 0) == 0
    assert chain.write("homing_offset", 7) == 0


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("present_position", 0, wire.BAD_ACCESS),
        ("hardware_error_status", 0, wire.BAD_ACCESS),
        ("torque_enable", 2, wire.BAD_RANGE),
        ("bus_watchdog", 128, wire.BAD_RANGE),
        ("bus_watchdog", 255, wire.BAD_RANGE),
        ("operating_mode", 2, wire.BAD_RANGE),
        ("goal_position", 4096, wire.BAD_LIMIT),
        ("goal_position", -1, wire.BAD_LIMIT),
        ("goal_velocity", 351, wire.BAD_LIMIT),
        ("goal_velocity", 1024, wire.BAD_RANGE),
        ("goal_current", -1194, wire.BAD_LIMIT),
        ("profile_velocity", -1, wire.BAD_RANGE),
    ],
)
def test_what_a_register_does_not_take(name: str, value: int, error: int) -> None:
    chain = Chain()
    before = chain.motors[0].values[name]
    assert chain.write(name, value) == error
    assert chain.motors[0].values[name] == before


def test_a_write_is_done_whole_or_not_at_all() -> None:
    chain = Chain()
    goals = b"\x64\0" + b"\x10\0" + b"\x10\0" + (400).to_bytes(4, "little")  # PWM, current, rate
    ((_, error, _),) = chain.send(packet(1, wire.WRITE, goals))
    assert error == wire.BAD_LIMIT
    assert chain.read("goal_pwm") == 885
    assert chain.send(packet(1, wire.WRITE, goals[:-1])) == [(1, wire.BAD_LENGTH, b"")]
    assert chain.send(packet(1, wire.WRITE, b"\x42\0\0")) == [(1, wire.BAD_ACCESS, b"")]
    assert chain.send(packet(1, wire.READ, b"\x84\0\x03\0")) == [(1, wire.BAD_ACCESS, b"")]
    assert chain.send(packet(1, 0x77)) == [(1, wire.BAD_INSTRUCTION, b"")]
    assert chain.send(packet(1, wire.ACTION)) == [(1, wire.BAD_INSTRUCTION, b"")]


def test_a_motor_without_current_control_has_no_current() -> None:
    chain = Chain("xl430-w250")
    assert chain.send(packet(1, wire.READ, b"\x66\0\x02\0")) == [(1, wire.BAD_ACCESS, b"")]
    assert chain.write("operating_mode", 0) == wire.BAD_RANGE
    assert chain.write("operating_mode", 4) == 0


def test_changing_the_mode_resets_what_belongs_to_it() -> None:
    chain = Chain()
    chain.write("profile_velocity", 10)
    chain.write("goal_pwm", 5)
    chain.write("goal_current", 0)
    assert chain.write("operating_mode", 0) == 0
    assert [chain.read(name) for name in ("profile_velocity", "goal_pwm", "goal_current")] == [
        0,
        885,
        1193,  # full current: who turns torque on now has to know it
    ]


# The bus watchdog.


def moving(watchdog: int) -> Chain:
    """A motor that turns in velocity mode, with its watchdog armed."""
    chain = Chain()
    for name, value in (
        ("operating_mode", 1),
        ("torque_enable", 1),
        ("goal_velocity", 50),
        ("bus_watchdog", watchdog),
    ):
        assert chain.write(name, value) == 0
    return chain


@pytest.mark.parametrize("units", [1, 5, 127])
def test_the_watchdog_expires_after_silence_and_not_before(units: int) -> None:
    chain = moving(units)
    heard_ns = chain.now_ns - 10 * MS
    chain.motors[0].watch(heard_ns + units * 20 * MS)
    assert chain.motors[0].values["bus_watchdog"] == units
    chain.motors[0].watch(heard_ns + units * 20 * MS + 1)
    assert chain.motors[0].values["bus_watchdog"] == WATCHDOG_EXPIRED
    assert chain.events[-1][0] == "damping"


def test_every_good_packet_on_the_bus_is_heard_and_no_other() -> None:
    chain = moving(5)
    for _ in range(5):
        chain.now_ns += 80 * MS
        chain.send(packet(9, wire.PING))  # somebody else's
        chain.motors[0].watch(chain.now_ns)
    assert chain.read("bus_watchdog") == 5
    for _ in range(3):
        chain.now_ns += 40 * MS
        chain.send(packet(1, wire.PING)[:-1] + b"\0")  # damaged
        chain.motors[0].watch(chain.now_ns)
    assert chain.read("bus_watchdog") == WATCHDOG_EXPIRED


def test_an_expired_watchdog_stops_the_motor_until_it_is_cleared() -> None:
    chain = moving(5)
    chain.run(0.05)
    assert chain.speed > 0.3
    _, speed = chain.run(0.8)
    assert abs(speed) < 0.01
    assert chain.read("bus_watchdog") == WATCHDOG_EXPIRED
    for name in ("goal_velocity", "goal_position", "goal_pwm", "goal_current"):
        assert chain.write(name, 10) == wire.BAD_RANGE
    assert chain.write("bus_watchdog", 5) == wire.BAD_RANGE  # only 0 ends it
    assert chain.write("bus_watchdog", 0) == 0
    chain.run(0.3)
    assert abs(chain.speed) < 0.01, "it went on by itself"
    assert chain.write("goal_velocity", 50) == 0
    chain.run(0.5)
    assert chain.speed == pytest.approx(50 * RADIANS_PER_S, rel=0.1)
    assert [event for event, _ in chain.events] == ["active", "damping", "recovered"]


def test_the_watchdog_holds_in_position_mode() -> None:
    chain = Chain()
    chain.write("torque_enable", 1)
    chain.write("profile_velocity", 100)
    chain.write("goal_position", CENTRE + 1000)
    chain.write("bus_watchdog", 5)
    chain.run(0.11)
    at = chain.angle
    assert 0.05 < at < 1000 * RADIANS / 2
    chain.run(0.5)
    assert chain.angle == pytest.approx(at, abs=0.15)  # it stops within its own lag
    rest = chain.angle
    chain.run(0.5)
    assert chain.angle == pytest.approx(rest, abs=0.01)
    assert chain.read("torque_enable") == 1


@pytest.mark.parametrize("name", ["bus_watchdog", "torque_enable"])
def test_without_torque_or_a_setting_nobody_watches(name: str) -> None:
    chain = moving(5)
    chain.write(name, 0)
    chain.motors[0].watch(chain.now_ns + 10_000 * MS)
    assert chain.read("bus_watchdog") != WATCHDOG_EXPIRED


# Shutdown and reboot.


def test_a_hardware_error_is_told_in_every_answer_and_ends_with_a_reboot() -> None:
    chain = Chain()
    chain.write("homing_offset", 3)
    chain.write("goal_position", 2000)
    chain.write("torque_enable", 1)
    chain.motors[0].fail(0x20)
    assert chain.events[-1] == ("limp", {"cause": "shutdown", "motor": 1})
    ((_, error, data),) = chain.send(packet(1, wire.READ, b"\x46\0\x01\0"))
    assert (error, data) == (wire.ALERT, b"\x20")
    assert chain.write("torque_enable", 1) == wire.ALERT | wire.RESULT_FAIL
    assert chain.send(packet(1, wire.REBOOT)) == [(1, wire.ALERT, b"")]
    assert chain.send(packet(1, wire.PING)) == [], "it answers while it starts"
    chain.now_ns += 300 * MS
    assert chain.read("hardware_error_status") == 0
    assert chain.read("goal_position") == CENTRE
    assert chain.read("homing_offset") == 3  # EEPROM stays
    assert chain.write("torque_enable", 1) == 0


def test_an_error_that_does_not_shut_down_leaves_torque() -> None:
    chain = Chain()
    chain.write("torque_enable", 1)
    chain.motors[0].fail(0x01)
    assert chain.motors[0].values["torque_enable"] == 1


def test_a_broken_motor_is_broken_after_a_reboot_too() -> None:
    chain = Chain()
    chain.motors[0].broken = 0x08
    chain.send(packet(1, wire.REBOOT))
    assert chain.motors[0].values["hardware_error_status"] == 0x08
