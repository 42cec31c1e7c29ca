"""The control table of Dynamixel's X series, its models, and what its numbers are in SI units.

Addresses, sizes, ranges and defaults are those of ROBOTIS' e-manual. Registers below 64 are EEPROM:
they stay without power and are locked while torque is on.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import NamedTuple


class Register(NamedTuple):
    """One item of the control table; a motor takes it whole or not at all.

    Attributes:
        low, high: what may be written; None: it is read-only.
        initial: its value when power comes on, or as delivered.
    """

    name: str
    address: int
    size: int
    initial: int = 0
    low: int | None = None
    high: int | None = None

    @property
    def signed(self) -> bool:
        return self.name in _SIGNED

    def encode(self, value: int) -> bytes:
        return value.to_bytes(self.size, "little", signed=value < 0)

    def decode(self, data: bytes) -> int:
        return int.from_bytes(data, "little", signed=self.signed)


_SIGNED = frozenset(
    "homing_offset goal_pwm goal_current goal_velocity goal_position present_pwm present_current"
    " present_velocity present_position velocity_trajectory position_trajectory".split()
)
EEPROM_END = 64
CENTRE = 2048  # the position, in ticks, that is angle 0
TICKS = 4096  # per revolution
FULL_PWM = 885
WATCHDOG_UNIT_S = 0.02
WATCHDOG_EXPIRED = 0xFF
FIRST_FIRMWARE = 38  # that has the watchdog

REGISTERS = (
    Register("model_number", 0, 2),
    Register("model_information", 2, 4),
    Register("firmware_version", 6, 1),
    Register("id", 7, 1, 1, 0, 252),
    Register("baud_rate", 8, 1, 1, 0, 7),
    Register("return_delay_time", 9, 1, 250, 0, 254),
    Register("drive_mode", 10, 1, 0, 0, 13),
    Register("operating_mode", 11, 1, 3, 0, 16),
    Register("secondary_id", 12, 1, 255, 0, 255),
    Register("protocol_type", 13, 1, 2, 2, 2),
    Register("homing_offset", 20, 4, 0, -1_044_479, 1_044_479),
    Register("moving_threshold", 24, 4, 10, 0, 1023),
    Register("temperature_limit", 31, 1, 80, 0, 100),
    Register("max_voltage_limit", 32, 2, 160, 95, 160),
    Register("min_voltage_limit", 34, 2, 95, 95, 160),
    Register("pwm_limit", 36, 2, FULL_PWM, 0, FULL_PWM),
    Register("current_limit", 38, 2, 1193, 0, 2047),
    Register("acceleration_limit", 40, 4, 32767, 0, 32767),
    Register("velocity_limit", 44, 4, 350, 0, 1023),
    Register("max_position_limit", 48, 4, TICKS - 1, 0, TICKS - 1),
    Register("min_position_limit", 52, 4, 0, 0, TICKS - 1),
    Register("shutdown", 63, 1, 0x34, 0, 0x3D),
    Register("torque_enable", 64, 1, 0, 0, 1),
    Register("led", 65, 1, 0, 0, 1),
    Register("status_return_level", 68, 1, 2, 0, 2),
    Register("registered_instruction", 69, 1),
    Register("hardware_error_status", 70, 1),
    Register("velocity_i_gain", 76, 2, 1920, 0, 16383),
    Register("velocity_p_gain", 78, 2, 100, 0, 16383),
    Register("position_d_gain", 80, 2, 0, 0, 16383),
    Register("position_i_gain", 82, 2, 0, 0, 16383),
    Register("position_p_gain", 84, 2, 800, 0, 16383),
    Register("feedforward_2nd_gain", 88, 2, 0, 0, 16383),
    Register("feedforward_1st_gain", 90, 2, 0, 0, 16383),
    Register("bus_watchdog", 98, 1, 0, 0, 127),
    Register("goal_pwm", 100, 2, FULL_PWM, -FULL_PWM, FULL_PWM),
    Register("goal_current", 102, 2, 0, -2047, 2047),
    Register("goal_velocity", 104, 4, 0, -1023, 1023),
    Register("profile_acceleration", 108, 4, 0, 0, 32767),
    Register("profile_velocity", 112, 4, 0, 0, 32767),
    Register("goal_position", 116, 4, CENTRE, -1_048_575, 1_048_575),
    Register("realtime_tick", 120, 2),
    Register("moving", 122, 1),
    Register("moving_status", 123, 1),
    Register("present_pwm", 124, 2),
    Register("present_current", 126, 2),  # a motor without: load, in 0.1 %
    Register("present_velocity", 128, 4),
    Register("present_position", 132, 4),
    Register("velocity_trajectory", 136, 4),
    Register("position_trajectory", 140, 4),
    Register("present_input_voltage", 144, 2, 120),
    Register("present_temperature", 146, 1, 30),
)
TABLE = {register.name: register for register in REGISTERS}

# Operating modes, and what a motor cannot do in them without commands.
CURRENT, VELOCITY, POSITION, EXTENDED = 0, 1, 3, 4
PWM = 16
MODES = (CURRENT, VELOCITY, POSITION, EXTENDED, 5, PWM)

REVERSED, TIME_PROFILE, TORQUE_BY_GOAL = 0x01, 0x04, 0x08  # bits of drive_mode

BAUD_RATES = (9600, 57600, 115200, 1_000_000, 2_000_000, 3_000_000, 4_000_000)  # by code

HARDWARE_ERRORS = {
    0x01: "input voltage",
    0x04: "overheating",
    0x08: "encoder",
    0x10: "electrical shock",
    0x20: "overload",
}

RADIANS = 2 * pi / TICKS  # per tick of a position
RADIANS_PER_S = 0.229 * 2 * pi / 60  # per tick of a velocity


@dataclass(frozen=True, slots=True)
class Model:
    """A motor of the series, at its recommended voltage.

    Attributes:
        number: in register 0.
        stall_torque: N m.
        no_load_speed: rad/s.
        current: A per tick; 0: it neither measures nor controls current.
        torque_constant: N m/A, stall torque by stall current.
    """

    name: str
    number: int
    stall_torque: float
    no_load_speed: float
    current: float = 0.0
    torque_constant: float = 0.0

    @property
    def torque(self) -> float:
        """N m per tick of present_current: from current, or roughly from load."""
        return self.current * self.torque_constant or self.stall_torque / 1000


def _model(name: str, number: int, torque: float, rpm: float, amps: float, unit: float) -> Model:
    return Model(name, number, torque, rpm * 2 * pi / 60, unit, torque / amps if unit else 0.0)


MODELS = {
    model.name: model
    for model in (
        _model("xm430-w350", 1020, 4.1, 46, 2.3, 2.69e-3),
        _model("xm430-w210", 1030, 3.0, 77, 2.3, 2.69e-3),
        _model("xm540-w270", 1120, 10.6, 30, 4.4, 2.69e-3),
        _model("xm540-w150", 1130, 7.3, 53, 4.4, 2.69e-3),
        _model("xl430-w250", 1060, 1.5, 61, 1.4, 0.0),
        _model("xl330-m288", 1200, 0.52, 103, 1.47, 1e-3),
    )
}


def describe_errors(bits: int) -> str:
    """What a hardware_error_status says."""
    named = [name for bit, name in HARDWARE_ERRORS.items() if bits & bit]
    return ", ".join(named) or f"unknown hardware error {bits:#04x}"
