"""A Dynamixel chain before it moves: who it is, what its EEPROM says, whether it is healthy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import sleep
from typing import Any

from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.drivers.dynamixel_chain import Chain, Refused
from safetypilot.bridge.drivers.dynamixel_options import (
    CALIBRATION,
    SIMULATED,
    DynamixelOptions,
    Servo,
)
from safetypilot.bridge.protocols import dynamixel_table as table
from safetypilot.bridge.protocols.dynamixel_table import RADIANS_PER_S, TABLE

_REGISTERS = {  # field of a calibration -> register
    "ids": "id",
    "homing_offset": "homing_offset",
    "drive_mode": "drive_mode",
    "range_min": "min_position_limit",
    "range_max": "max_position_limit",
}
_QUARTER = table.TICKS // 4
_SILENT_S = 0.08  # enough for a watchdog of one unit, and the motors' grid


def identify(chain: Chain, motors: Sequence[Servo], serial: str) -> dict[str, str]:
    """Model, firmware and serial of the chain, if it is the declared one.

    Raises:
        DriverError: a motor does not answer, or is another.
    """
    answer_everything(chain)
    parts, versions = [], set()
    for servo in motors:
        found, firmware = chain.ping(servo.number)
        if found != servo.model.number:
            names = {model.number: name for name, model in table.MODELS.items()}
            raise DriverError(
                f"joint {servo.joint.name!r}: motor {servo.number} is a "
                f"{names.get(found, f'model {found}')}, not the declared {servo.model.name}"
            )
        if firmware < table.FIRST_FIRMWARE:
            raise DriverError(
                f"motor {servo.number} has firmware {firmware}, which has no bus watchdog: update "
                f"it to {table.FIRST_FIRMWARE} or newer"
            )
        versions.add(firmware)
        parts.append(f"{servo.number}:{found}:{chain.read(servo.number, 'homing_offset')}")
    models = list(dict.fromkeys(servo.model.name for servo in motors))
    return {
        "model": "+".join(models),
        "serial": serial or ",".join(parts),
        "firmware": ",".join(map(str, sorted(versions))),
    }


def answer_everything(chain: Chain) -> None:
    """Makes every motor answer every instruction, whatever it was told before."""
    chain.tell(TABLE["status_return_level"].address, [b"\2"] * len(chain.ids))


def read_calibration(chain: Chain, motors: Sequence[Servo]) -> dict[str, dict[str, int]]:
    """What a calibration file of this chain has to say, from its EEPROM."""
    return {
        field: {servo.joint.name: chain.read(servo.number, register) for servo in motors}
        for field, register in _REGISTERS.items()
    }


def configure(
    chain: Chain, motors: Sequence[Servo], options: DynamixelOptions, calibration: Mapping[str, Any]
) -> dict[str, Any]:
    """Checks the motors and sets what stays set; what is in effect.

    Raises:
        DriverError: the calibration is of another chain, or a motor cannot do what is declared.
    """
    answer_everything(chain)
    found = read_calibration(chain, motors)
    if calibration or not (options.simulated or options.port == SIMULATED):
        _compare(calibration, found)
    for servo in motors:
        _check_health(chain, servo)
        _check_mounting(servo, {field: found[field][servo.joint.name] for field in found}, options)
        _check_reach(chain, servo, options)
    released = [servo.joint.name for servo in motors if _set_up(chain, servo.number)]
    return {
        "calibration": found,
        "watchdog_s": options.watchdog_s,
        "failsafe": options.failsafe,
        "baud": options.baud,
        "low_latency": chain.low_latency,
        "released": released,
    }


def _compare(given: Mapping[str, Any], found: Mapping[str, Mapping[str, int]]) -> None:
    wrong = []
    for field in CALIBRATION:
        rows = given.get(field)
        if not isinstance(rows, Mapping):
            raise DriverError(f"the calibration has no {field}: joint -> number for every joint")
        if set(rows) != set(found[field]):
            raise DriverError(f"{field} in the calibration is of the joints {', '.join(rows)}")
        for name, value in found[field].items():
            if rows[name] != value:
                wrong.append(f"{field} of {name} is {value}, not {rows[name]}")
    if wrong:
        raise DriverError(
            "the motors are not as the calibration says, so angles would be wrong: "
            f"{'; '.join(wrong)}. Calibrate again, or restore the motors' registers"
        )


def _check_health(chain: Chain, servo: Servo) -> None:
    bits = chain.read(servo.number, "hardware_error_status")
    if bits:
        raise DriverError(
            f"joint {servo.joint.name!r}: {table.describe_errors(bits)}; find out why, then reset, "
            "which reboots the motor"
        )


def _check_mounting(servo: Servo, found: Mapping[str, int], options: DynamixelOptions) -> None:
    """Whether goals within the joint's limits are goals that the motor takes, and no others."""
    joint, mode = servo.joint, found["drive_mode"]
    if mode & table.TORQUE_BY_GOAL:
        raise DriverError(f"joint {joint.name!r}: in this drive_mode every goal turns torque on")
    if mode & table.TIME_PROFILE:
        raise DriverError(f"joint {joint.name!r}: its drive_mode has the profile by time")
    if options.extended:
        return
    if abs(found["homing_offset"]) > _QUARTER:
        raise DriverError(
            f"joint {joint.name!r}: a homing_offset of {found['homing_offset']} is not used in "
            f"position mode; it is within {_QUARTER}"
        )
    least, most = found["range_min"], found["range_max"]
    if servo.goal_position(joint.low) < least or servo.goal_position(joint.high) > most:
        low, high = servo.position(least), servo.position(most)
        raise DriverError(
            f"joint {joint.name!r} goes from {joint.low:.3f} to {joint.high:.3f} rad, but its "
            f"motor only takes goals from {low:.3f} to {high:.3f}: they have to fit"
        )


def _check_reach(chain: Chain, servo: Servo, options: DynamixelOptions) -> None:
    """Whether the motor takes goals as large as the joint's limits; beyond it ignores them."""
    name, most = servo.joint.name, chain.read(servo.number, "velocity_limit")
    if round(servo.joint.velocity / RADIANS_PER_S) > most:
        raise DriverError(
            f"joint {name!r} may turn at {servo.joint.velocity:.2f} rad/s, its motor only at "
            f"{most * RADIANS_PER_S:.2f}: raise its velocity_limit, or declare less"
        )
    if not options.effort:
        return
    most = chain.read(servo.number, "current_limit")
    if round(servo.joint.effort / servo.model.torque) > most:
        raise DriverError(
            f"joint {name!r} may exert {servo.joint.effort:.2f} N m, its motor only "
            f"{most * servo.model.torque:.2f}: raise its current_limit, or declare less"
        )


def _set_up(chain: Chain, number: int) -> bool:
    """Answers without delay, and no watchdog; whether torque had to be turned off for it."""
    if chain.read(number, "bus_watchdog"):
        revive(chain, number)
    if not chain.read(number, "return_delay_time"):
        return False
    released = bool(chain.read(number, "torque_enable"))
    if released:
        chain.write(number, "torque_enable", 0)
    chain.write(number, "return_delay_time", 0)
    return released


def revive(chain: Chain, number: int) -> None:
    """Ends the watchdog of a motor, which goes on standing where it is."""
    chain.write(number, "bus_watchdog", 0)
    if chain.read(number, "torque_enable"):
        stand(chain, number)


def stand(chain: Chain, number: int) -> None:
    """The goals of a motor's operating mode become what it measures, at rest.

    Raises:
        DriverError: it is where it may not be sent to.
    """
    mode = chain.read(number, "operating_mode")
    if mode in (table.POSITION, table.EXTENDED):
        goal = chain.read(number, "present_position")
        if mode == table.POSITION:
            low = chain.read(number, "min_position_limit")
            high = chain.read(number, "max_position_limit")
            if not low <= goal <= high:
                raise DriverError(
                    f"motor {number} is at {goal}, outside of its own limits {low} to {high}: "
                    "turn it back by hand"
                )
        chain.write(number, "goal_position", goal)
    elif mode == table.VELOCITY:
        chain.write(number, "goal_velocity", 0)
    elif mode == table.CURRENT:
        chain.write(number, "goal_current", 0)


def reset(chain: Chain, motors: Sequence[Servo]) -> None:
    """Reboots motors that have shut down, and ends expired watchdogs; what stands goes on standing.

    Raises:
        DriverError: a motor still has its hardware error.
    """
    answer_everything(chain)
    for servo in motors:
        if chain.read(servo.number, "hardware_error_status"):
            chain.reboot(servo.number)
            answer_everything(chain)
            bits = chain.read(servo.number, "hardware_error_status")
            if bits:
                raise DriverError(
                    f"joint {servo.joint.name!r}: {table.describe_errors(bits)}, also after a "
                    "reboot of its motor"
                )
        if chain.read(servo.number, "bus_watchdog"):
            revive(chain, servo.number)


def provoke_watchdog(chain: Chain, motors: Sequence[Servo]) -> str:
    """Lets the watchdogs expire and looks whether the motors stopped and refuse goals.

    A motor watches only while torque is on. One that does not hold anything gets it for this with
    its output limited to 0 %, so that it cannot move; one that does hold goes on holding, which is
    what an expired watchdog makes it do.

    Raises:
        DriverError: one did not act.
    """
    idle = [s.number for s in motors if not chain.read(s.number, "torque_enable")]
    try:
        for number in idle:
            chain.write(number, "goal_pwm", 0)
            stand(chain, number)
            chain.write(number, "torque_enable", 1)
        chain.tell(TABLE["bus_watchdog"].address, [b"\1"] * len(chain.ids))
        sleep(_SILENT_S)
        for servo in motors:
            _check_expired(chain, servo)
    finally:
        for number in chain.ids:
            if number in idle:
                chain.write(number, "torque_enable", 0)
            revive(chain, number)
            if number in idle:
                chain.write(number, "goal_pwm", chain.read(number, "pwm_limit"))
    return (
        f"after {_SILENT_S} s of silence the bus watchdog of every motor had expired, and goals "
        "were refused"
    )


def _check_expired(chain: Chain, servo: Servo) -> None:
    found = chain.read(servo.number, "bus_watchdog")
    if found != table.WATCHDOG_EXPIRED:
        raise DriverError(
            f"joint {servo.joint.name!r}: the watchdog of its motor did not expire within "
            f"{_SILENT_S} s of silence; it reads {found}"
        )
    try:
        stand(chain, servo.number)
    except Refused:
        chain.counters["refused"] -= 1  # as it should
        return
    raise DriverError(f"joint {servo.joint.name!r}: its motor takes goals after its watchdog acted")
