"""One simulated motor of Dynamixel's X series: its control table and its watchdog.

It does what the e-manual says. Where that leaves something open it is the nastier one of what a
motor may do: turning torque on changes no goal, so an old one is driven to at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from safetypilot.bridge.devices.dynamixel_servo import Servo
from safetypilot.bridge.protocols import dynamixel as wire
from safetypilot.bridge.protocols import dynamixel_table as table
from safetypilot.bridge.protocols.dynamixel_table import Model, Register

FIRMWARE = 44
_GOALS = frozenset(("goal_pwm", "goal_current", "goal_velocity", "goal_position"))
_AMPERES = frozenset(("current_limit", "goal_current"))  # a motor without current has none of them
_REBOOT_NS = 200_000_000
_SHORTEST_NS = int(table.WATCHDOG_UNIT_S * 1e9)


class Refusal(NamedTuple):
    """Why an instruction was not done: the error of the status packet, and a word for it."""

    error: int
    cause: str


LOCKED = Refusal(wire.BAD_ACCESS, "eeprom locked")
UNDEFINED = Refusal(wire.BAD_ACCESS, "undefined address")
READ_ONLY = Refusal(wire.BAD_ACCESS, "read-only")
EXPIRED = Refusal(wire.BAD_RANGE, "watchdog expired")
RANGE = Refusal(wire.BAD_RANGE, "range")
LIMIT = Refusal(wire.BAD_LIMIT, "limit")
SHORT = Refusal(wire.BAD_LENGTH, "short data")
SHUT_DOWN = Refusal(wire.RESULT_FAIL, "shut down")


class Motor:
    """A motor; its horn moves when its servo is driven.

    Attributes:
        values: the control table, by name.
        servo: what turns goals into torque.
        broken: hardware errors that are there again after every reboot.
    """

    def __init__(self, number: int, model: Model, tell: Callable[..., None]) -> None:
        """Switch it on.

        Args:
            number: its id.
            tell: called with what happens to it: an event's name and details.
        """
        self.model, self._tell = model, tell
        missing = () if model.current else _AMPERES
        registers = [register for register in table.REGISTERS if register.name not in missing]
        self._at = {register.address: register for register in registers}
        self.values = {register.name: register.initial for register in registers}
        self.values.update(
            id=number, model_number=model.number, firmware_version=FIRMWARE, baud_rate=3,
            velocity_limit=int(model.no_load_speed / table.RADIANS_PER_S),
        )  # fmt: skip
        self._modes = [mode for mode in table.MODES if model.current or mode not in (0, 5)]
        self.broken = 0
        self._registered: tuple[int, bytes] | None = None
        self._heard_ns = self._deaf_until_ns = 0
        self.servo = Servo(self.values, model)

    @property
    def number(self) -> int:
        return self.values["id"]

    # The bus.

    def hears(self, now_ns: int) -> bool:
        """Whether it takes instructions; every good one on the bus, whoever it is for, is heard."""
        if now_ns < self._deaf_until_ns:
            return False
        self._heard_ns = now_ns
        return True

    def read(self, address: int, length: int) -> Refusal | bytes:
        """What registers hold; only whole ones can be read."""
        data = b""
        while len(data) < length:
            register = self._at.get(address + len(data))
            if register is None:
                return UNDEFINED
            data += (self.values[register.name] & (1 << 8 * register.size) - 1).to_bytes(
                register.size, "little"
            )
        return data if len(data) == length else UNDEFINED

    def check(self, address: int, data: bytes) -> Refusal | list[tuple[Register, int]]:
        """What a write would change, or why it cannot be done."""
        changes: list[tuple[Register, int]] = []
        while data:
            register = self._at.get(address)
            if register is None:
                return UNDEFINED
            if len(data) < register.size:
                return SHORT
            value = register.decode(data[: register.size])
            if refusal := self._refusal(register, value):
                return refusal
            changes.append((register, value))
            address, data = address + register.size, data[register.size :]
        return changes

    def write(self, address: int, data: bytes) -> Refusal | None:
        """All that the data cover is written, or nothing."""
        changes = self.check(address, data)
        if isinstance(changes, Refusal):
            return changes
        for register, value in changes:
            self._set(register.name, value)
        return None

    def register(self, address: int, data: bytes) -> Refusal | None:
        """Keeps a write until `act`."""
        changes = self.check(address, data)
        if isinstance(changes, Refusal):
            return changes
        self._registered, self.values["registered_instruction"] = (address, data), 1
        return None

    def act(self) -> Refusal | None:
        """Does what was kept."""
        if self._registered is None:
            return Refusal(wire.BAD_INSTRUCTION, "nothing registered")
        write, self._registered = self._registered, None
        self.values["registered_instruction"] = 0
        return self.write(*write)

    def reboot(self, now_ns: int) -> None:
        """Forgets all but the EEPROM, and hears nothing for a while."""
        self._release("reboot")
        for register in self._at.values():
            if register.address >= table.EEPROM_END:
                self.values[register.name] = register.initial
        self._registered = None
        self._deaf_until_ns = now_ns + _REBOOT_NS
        self.fail(self.broken)

    def _refusal(self, register: Register, value: int) -> Refusal | None:
        values, name = self.values, register.name
        if register.low is None or register.high is None:
            return READ_ONLY
        if register.address < table.EEPROM_END and values["torque_enable"]:
            return LOCKED
        if name in _GOALS and self.expired:
            return EXPIRED
        if not register.low <= value <= register.high:
            return RANGE
        if name == "operating_mode" and value not in self._modes:
            return RANGE
        if name == "bus_watchdog" and self.expired and value:
            return EXPIRED
        if name == "torque_enable" and value and self._shut_down:
            return SHUT_DOWN
        return LIMIT if not self._within_limits(name, value) else None

    def _within_limits(self, name: str, value: int) -> bool:
        values = self.values
        if name == "goal_position" and values["operating_mode"] == table.POSITION:
            return values["min_position_limit"] <= value <= values["max_position_limit"]
        if name in _GOALS and name != "goal_position":
            return abs(value) <= values[name.removeprefix("goal_") + "_limit"]
        return True

    def _set(self, name: str, value: int) -> None:
        values, before = self.values, self.values[name]
        recovered = name == "bus_watchdog" and self.expired
        values[name] = value
        if recovered:
            self._tell("recovered", motor=self.number)
        elif name == "bus_watchdog" and before and not value and values["torque_enable"]:
            self._tell("standing", motor=self.number, speed=values["present_velocity"])
        elif name == "operating_mode":
            values["profile_velocity"] = values["profile_acceleration"] = 0
            values["goal_pwm"] = values["pwm_limit"]
            if self.model.current:
                values["goal_current"] = values["current_limit"]
        elif name == "torque_enable" and value and not before:
            self.servo.stand()
            self._tell("active", motor=self.number, mode=values["operating_mode"])
        elif name == "torque_enable" and before and not value:
            values[name] = before
            self._release("torque off")

    # What stops it.

    @property
    def expired(self) -> bool:
        """Whether the watchdog has stopped it."""
        return self.values["bus_watchdog"] == table.WATCHDOG_EXPIRED

    @property
    def _shut_down(self) -> bool:
        return bool(self.values["hardware_error_status"] & self.values["shutdown"])

    def watch(self, now_ns: int) -> None:
        """Stops where it is, if nothing was heard for as long as bus_watchdog says."""
        values = self.values
        limit_ns = int(values["bus_watchdog"] * table.WATCHDOG_UNIT_S * 1e9)
        if not values["torque_enable"] or self.expired or not limit_ns:
            return
        if now_ns - self._heard_ns <= limit_ns:
            return
        values["bus_watchdog"] = table.WATCHDOG_EXPIRED
        values["goal_position"] = self.servo.stand()
        values["goal_velocity"] = 0
        if self.model.current and values["operating_mode"] == table.CURRENT:
            values["goal_current"] = 0
        if values["operating_mode"] == table.PWM:
            values["goal_pwm"] = 0
        # The shortest watchdog is no guard against silence: who sets it wants the motor to stop.
        cause = "stop" if limit_ns <= _SHORTEST_NS else "silence"
        silent_s = (now_ns - self._heard_ns) / 1e9
        self._tell("damping", cause=cause, motor=self.number, after_s=silent_s, how="holds")

    def fail(self, bits: int) -> None:
        """It notices a hardware error; those that `shutdown` names turn torque off."""
        self.values["hardware_error_status"] |= bits
        if self._shut_down:
            self._release("shutdown")

    def _release(self, cause: str) -> None:
        if self.values["torque_enable"]:
            self.values["torque_enable"] = 0
            self._tell("limp", cause=cause, motor=self.number)
