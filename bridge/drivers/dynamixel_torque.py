"""Torque of a Dynamixel chain: how it comes, what goals it follows, and how it ends in standing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic_ns, sleep

from safetypilot.bridge.contract import DriverError, Mode, Vector
from safetypilot.bridge.drivers.dynamixel_chain import Chain
from safetypilot.bridge.drivers.dynamixel_options import NAME, Servo
from safetypilot.bridge.drivers.dynamixel_setup import revive, stand
from safetypilot.bridge.protocols import dynamixel_table as table
from safetypilot.bridge.protocols.dynamixel_table import RADIANS, RADIANS_PER_S, TABLE

_STEP_S = 0.02
_BRAKE = 40.0  # rad/s^2
_TRIES = 3
_LAG_S = 0.05  # of the position servo
_REST = 5  # ticks of velocity, 0.12 rad/s: slower is standing
_PATIENCE_NS = 1_000_000_000
_GOAL = {
    Mode.POSITION: "goal_position",
    Mode.VELOCITY: "goal_velocity",
    Mode.EFFORT: "goal_current",
}


def code_of(mode: Mode, extended: bool) -> int:
    """The operating mode of the control table."""
    if mode is Mode.POSITION:
        return table.EXTENDED if extended else table.POSITION
    return table.VELOCITY if mode is Mode.VELOCITY else table.CURRENT


def goals(motors: Sequence[Servo], mode: Mode, numbers: Vector) -> tuple[int, list[bytes]]:
    """The register that a mode's goals go to, and its bytes for each motor.

    Raises:
        DriverError: a number that no register holds.
    """
    register = TABLE[_GOAL[mode]]
    size, most = register.size, register.high or 0
    data = []
    for servo, number in zip(motors, numbers, strict=True):
        if mode is Mode.POSITION:
            ticks = servo.goal_position(number)
        elif mode is Mode.VELOCITY:
            ticks = round(number / RADIANS_PER_S)
        else:
            ticks = round(number / servo.model.torque)
        if not -most <= ticks <= most:
            raise DriverError(f"{NAME}: {number:g} for {servo.joint.name} is more than it can do")
        data.append(ticks.to_bytes(size, "little", signed=True))
    return register.address, data


def engage(chain: Chain, motors: Sequence[Servo], code: int, watchdog: int, ramp_s: float) -> None:
    """Torque on, standing where it is, with the watchdogs armed at last.

    Until then a driver that dies leaves motors that stand. Those that hold in that operating mode
    already go on holding; the others let go, if they held, change over, and get their torque back
    little by little.

    Raises:
        DriverError: a motor does not do it.
    """
    loose = [servo.number for servo in motors if not _holds(chain, servo.number, code)]
    for servo in motors:
        number = servo.number
        if number in loose:
            chain.write(number, "torque_enable", 0)
            chain.write(number, "bus_watchdog", 0)
            chain.write(number, "operating_mode", code)
            chain.write(number, "profile_acceleration", 0)
            fastest = -int(-servo.joint.velocity // RADIANS_PER_S)
            chain.write(number, "profile_velocity", fastest)
            chain.write(number, "goal_pwm", 0)
        stand(chain, number)
        if number in loose:
            chain.write(number, "torque_enable", 1)
            stand(chain, number)  # it may have been turned by hand in between
    limits = [chain.read(number, "pwm_limit") for number in chain.ids]

    def rise(share: float) -> None:
        rows = zip(chain.ids, limits, strict=True)
        ticks = [round(limit * (share if number in loose else 1.0)) for number, limit in rows]
        chain.tell(TABLE["goal_pwm"].address, [tick.to_bytes(2, "little") for tick in ticks])

    _over(ramp_s if loose else 0.0, rise)
    _arm(chain, watchdog)


def _arm(chain: Chain, watchdog: int) -> None:
    """Sets the watchdogs; on a host that stalls they may expire at once, and are set again."""
    for _ in range(_TRIES):
        chain.tell(TABLE["bus_watchdog"].address, [bytes((watchdog,))] * len(chain.ids))
        expired = [n for n in chain.ids if chain.read(n, "bus_watchdog") != watchdog]
        if not expired:
            return
        for number in expired:
            revive(chain, number)
    raise DriverError(f"{NAME}: watchdogs of {watchdog * 20} ms expire while they are being set")


def _holds(chain: Chain, number: int, code: int) -> bool:
    return (
        chain.read(number, "torque_enable") == 1
        and chain.read(number, "operating_mode") == code
        and chain.read(number, "bus_watchdog") != table.WATCHDOG_EXPIRED
    )


def _over(seconds: float, change: Callable[[float], None]) -> None:
    """Calls with the share of the time that has passed, in steps; the last time with 1."""
    steps = round(seconds / _STEP_S)
    for step in range(1, steps):
        change(step / steps)
        sleep(_STEP_S)
    change(1.0)


def settle(chain: Chain, motors: Sequence[Servo], mode: Mode | None, ramp_s: float) -> None:
    """Ends motion and stands, without a watchdog: nobody needs to be heard any more.

    Raises:
        DriverError: it goes on moving.
    """
    rates = [chain.read(servo.number, "present_velocity") for servo in motors]
    fastest = max(map(abs, rates)) * RADIANS_PER_S
    seconds = min(ramp_s, fastest / _BRAKE)
    if mode is Mode.POSITION:
        starts = [
            _underway(chain, number, rate) for number, rate in zip(chain.ids, rates, strict=True)
        ]

        def slow_down(share: float) -> None:
            time_s = seconds * (share - share**2 / 2)
            rows = zip(motors, starts, rates, strict=True)
            ways = [(s, s.position(at) + rate * RADIANS_PER_S * time_s) for s, at, rate in rows]
            ends = tuple([min(max(way, s.joint.low), s.joint.high) for s, way in ways])
            chain.tell(*goals(motors, Mode.POSITION, ends))

        _over(seconds, slow_down)
    elif mode is Mode.VELOCITY:

        def slower(share: float) -> None:
            speeds = tuple([rate * RADIANS_PER_S * (1 - share) for rate in rates])
            chain.tell(*goals(motors, Mode.VELOCITY, speeds))

        _over(seconds, slower)
    else:
        engage(chain, motors, table.POSITION, 0, 0.0)
    for servo in motors:
        _wait_until_still(chain, servo)
        chain.write(servo.number, "bus_watchdog", 0)


def _underway(chain: Chain, number: int, rate: int) -> int:
    """Where a motor that turns so fast has its goal, as far as the servo's lag explains it."""
    here = chain.read(number, "present_position")
    ahead = chain.read(number, "goal_position") - here
    most = round(abs(rate) * RADIANS_PER_S * _LAG_S / RADIANS)
    return here + min(max(ahead, -most), most)


def _wait_until_still(chain: Chain, servo: Servo) -> None:
    end_ns = monotonic_ns() + _PATIENCE_NS
    while abs(rate := chain.read(servo.number, "present_velocity")) > _REST:
        if monotonic_ns() > end_ns:
            raise DriverError(
                f"joint {servo.joint.name!r} still turns at {rate * RADIANS_PER_S:.2f} rad/s"
            )


def let_go(chain: Chain) -> None:
    """Torque off.

    Raises:
        DriverError: a motor keeps it.
    """
    for number in chain.ids:
        chain.write(number, "torque_enable", 0)
