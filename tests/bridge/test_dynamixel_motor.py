"""Simulated Dynamixel motors are as the e-manual has them: locks, limits, watchdog, servo."""

from __future__ import annotations

from math import pi
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.bridge.devices.dynamixel_bus import Bus, Trouble
from safetypilot.bridge.devices.dynamixel_motor import Motor
from safetypilot.bridge.protocols import dynamixel as wire
from safetypilot.bridge.protocols.dynamixel import Receiver, packet, sync_write
from safetypilot.bridge.protocols.dynamixel_table import (
    CENTRE,
    MODELS,
    RADIANS,
    RADIANS_PER_S,
    TABLE,
    WATCHDOG_EXPIRED,
)

MS = 1_000_000


class Chain:
    """Two motors and their bus, by hand: no port and no clock but `now_ns`."""

    def __init__(
        self, model: str = "xm430-w350", trouble: Trouble | None = None, **bus: Any
    ) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.refused: list[str] = []
        self.motors = [Motor(number, MODELS[model], self._tell) for number in (1, 2)]
        self.bus = Bus(self.motors, self.refused.append, trouble or Trouble(), **bus)
        self.now_ns = 1
        self.noise: list[str] = []

    def _tell(self, event: str, **details: Any) -> None:
        self.events.append((event, details))

    def send(self, data: bytes, wait_ns: int = 10 * MS) -> list[tuple[int, int, bytes]]:
        """Sends, waits, and gives what was answered: id, error, data."""
        self.bus.receive(data, self.now_ns)
        self.now_ns += wait_ns
        found = Receiver(self.noise.append).feed(self.bus.due(self.now_ns), 0)
        assert all(each.instruction == wire.STATUS for each in found)
        return [(each.motor, each.parameters[0], each.parameters[1:]) for each in found]

    def write(self, name: str, value: int, motor: int = 1) -> int:
        """Writes a register; the error that is answered."""
        register = TABLE[name]
        data = register.address.to_bytes(2, "little") + register.encode(value)
        ((number, error, rest),) = self.send(packet(motor, wire.WRITE, data))
        assert (number, rest) == (motor, b"")
        return error

    def read(self, name: str, motor: int = 1) -> int:
        register = TABLE[name]
        question = register.address.to_bytes(2, "little") + bytes((register.size, 0))
        ((number, error, data),) = self.send(packet(motor, wire.READ, question))
        assert (number, error) == (motor, 0)
        return register.decode(data)

    def run(self, seconds: float, inertia: float = 0.02) -> tuple[float, float]:
        """Lets motor 1 turn a flywheel, with silence on the bus; angle and speed."""
        servo, step_s = self.motors[0].servo, 0.002
        for _ in range(round(seconds / step_s)):
            self.speed += servo.drive(self.angle, self.speed, step_s) / inertia * step_s
            self.angle += self.speed * step_s
            self.now_ns += int(step_s * 1e9)
            self.motors[0].watch(self.now_ns)
        return self.angle, self.speed

    angle = speed = 0.0


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


# Groups, registered writes, status levels.


def test_groups() -> None:
    chain = Chain()
    rows = [(2, (100).to_bytes(4, "little")), (1, (200).to_bytes(4, "little")), (9, bytes(4))]
    assert chain.send(sync_write(116, rows)) == []
    assert [chain.read("goal_position", motor) for motor in (1, 2)] == [200, 100]
    answers = chain.send(packet(wire.BROADCAST, wire.SYNC_READ, b"\x74\0\x04\0\x02\x09\x01"))
    assert [(number, int.from_bytes(data, "little")) for number, _, data in answers] == [
        (2, 100),
        (1, 200),
    ]
    answers = chain.send(
        packet(wire.BROADCAST, wire.BULK_READ, b"\x01\x90\0\x02\0\x02\x92\0\x01\0")
    )
    assert answers == [(1, 0, b"\x78\0"), (2, 0, b"\x1e")]
    chain.send(
        packet(wire.BROADCAST, wire.BULK_WRITE, b"\x01\x41\0\x01\0\x01\x02\x74\0\x04\0\x07\0\0\0")
    )
    assert (chain.read("led"), chain.read("goal_position", 2)) == (1, 7)


@pytest.mark.parametrize(
    "broken",
    [
        packet(wire.BROADCAST, wire.SYNC_WRITE, b"\x74\0\x04\0\x01\x01\x01"),
        packet(wire.BROADCAST, wire.SYNC_WRITE, b"\x74\0\0\0\x01"),
        packet(wire.BROADCAST, wire.SYNC_READ, b"\x74\0"),
        packet(wire.BROADCAST, wire.BULK_WRITE, b"\x01\x41\0\x02\0\x01"),
        packet(1, wire.SYNC_READ, b"\x74\0\x04\0\x01"),
        packet(1, wire.STATUS, b"\0"),
    ],
)
def test_malformed_groups_are_counted_and_change_nothing(broken: bytes) -> None:
    chain = Chain()
    before = dict(chain.motors[0].values)
    assert chain.send(broken) == []
    assert chain.motors[0].values == before
    assert len(chain.refused) == 1


def test_a_registered_write_waits_for_the_action() -> None:
    chain = Chain()
    goal = b"\x74\0" + (300).to_bytes(4, "little")
    assert chain.send(packet(1, wire.REG_WRITE, goal)) == [(1, 0, b"")]
    assert (chain.read("goal_position"), chain.read("registered_instruction")) == (CENTRE, 1)
    assert chain.send(packet(wire.BROADCAST, wire.ACTION)) == []
    assert (chain.read("goal_position"), chain.read("registered_instruction")) == (300, 0)


def test_status_levels_and_broadcasts() -> None:
    chain = Chain()
    for level, reads, writes in ((1, 1, 0), (0, 0, 0)):
        chain.motors[0].values["status_return_level"] = level
        assert len(chain.send(packet(1, wire.READ, b"\x84\0\x04\0"))) == reads
        assert len(chain.send(packet(1, wire.WRITE, b"\x41\0\x01"))) == writes
        assert len(chain.send(packet(1, wire.PING))) == 1
    assert chain.send(packet(wire.BROADCAST, wire.WRITE, b"\x41\0\x01")) == []
    assert chain.motors[1].values["led"] == 1


def test_answers_come_after_the_return_delay_and_the_time_on_the_wire() -> None:
    chain = Chain(timed=True)  # at 1 Mbaud; a ping is 10 bytes, its answer 14
    chain.bus.receive(packet(1, wire.PING), 0)
    assert chain.bus.next_ns == (10 + 14) * 10_000 + 500_000
    chain.bus.due(MS)
    chain.motors[0].values["return_delay_time"] = 0
    chain.bus.receive(packet(1, wire.PING), 2 * MS)
    assert chain.bus.next_ns == 2 * MS + (10 + 14) * 10_000


@settings(max_examples=40)
@given(st.lists(st.one_of(st.binary(max_size=30), st.just(packet(1, wire.PING))), max_size=20))
def test_noise_changes_nothing(noise: list[bytes]) -> None:
    chain = Chain()
    before = [dict(motor.values) for motor in chain.motors]
    for each in noise:
        chain.send(each, MS)
    assert [dict(motor.values) for motor in chain.motors] == before
    pings = noise.count(packet(1, wire.PING))
    assert chain.bus.counters["received"] <= pings + 1


def test_trouble_is_the_same_for_the_same_seed() -> None:
    def stream(seed: int) -> list[int]:
        chain = Chain(trouble=Trouble(corrupt=0.2, late=0.2, drop=0.2, split=0.2), seed=seed)
        for _ in range(100):
            chain.send(packet(1, wire.PING), 50 * MS)
        return list(chain.bus.counters.values())

    assert stream(1) == stream(1) != stream(2)
    received, answered, *troubles = stream(1)
    assert received == answered == 100
    assert all(10 <= each <= 35 for each in troubles)


# The servo.


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
