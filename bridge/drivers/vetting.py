"""What every `write` refuses, and joints as options give them: shared by drivers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from math import isfinite
from time import monotonic_ns

from safetypilot.bridge.contract import DriverError, Joint, Mode, Setpoint, Vector

_FIELDS = {each.name for each in fields(Joint)} - {"name"}
_FARTHEST = 1e6  # rad, m, N m, ... of what no robot does


def vet(driver: str, setpoint: Setpoint, mode: Mode | None, size: int, deadline_ns: int) -> Vector:
    """The numbers that the mode names, if they may go out; of mode `pd` the positions.

    Args:
        mode: the active one; None: the driver is not active.

    Raises:
        DriverError: another mode, a wrong length, a number that is not finite, or too late.
    """
    if mode is None:
        raise DriverError(f"{driver} is not active; activate it first")
    if setpoint.mode is not mode:
        raise DriverError(f"{driver} got a setpoint in {setpoint.mode!s}, but {mode} is active")
    named: tuple[Vector, ...] = setpoint[1:] if mode is Mode.PD else (getattr(setpoint, mode),)
    for numbers in named:
        good = len(numbers) == size and isfinite(sum(numbers))
        if not good or max(map(abs, numbers), default=0.0) > _FARTHEST:
            raise DriverError(
                f"{driver}: {mode} is {size} numbers of a robot each, not {numbers!r}"
            )
    if deadline_ns <= monotonic_ns():
        raise DriverError(f"{driver}: the setpoint came after its deadline")
    return named[0]


def joints(driver: str, given: object, others: frozenset[str] = frozenset()) -> tuple[Joint, ...]:
    """Joints from options: name -> limits, in the order in which they stand.

    Args:
        others: keys that are no limits, but mean something to the driver.

    Raises:
        DriverError: not of that form, or a limit that is none.
    """
    if not isinstance(given, Mapping) or not given:
        raise DriverError(f"{driver}: joints is {given!r}; it is name -> limits (low, high, ...)")
    made = []
    for name, limits in given.items():
        if not isinstance(limits, Mapping):
            raise DriverError(f"{driver}: joint {name!r} is {limits!r}; it is limit -> number")
        unknown = sorted(set(limits) - _FIELDS - others)
        if unknown:
            known = ", ".join(sorted(_FIELDS | others))
            raise DriverError(f"{driver}: joint {name!r} has no {unknown[0]!r}; it has {known}")
        own = {key: value for key, value in limits.items() if key in _FIELDS}
        try:
            made.append(Joint(str(name), **own))
        except (TypeError, ValueError) as error:
            raise DriverError(f"{driver}: {error}") from None
    return tuple(made)


def number(driver: str, name: str, value: object, least: float = 0.0) -> float:
    """An option that has to be a finite number above `least`.

    Raises:
        DriverError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DriverError(f"{driver}: {name} is {value!r}; it is a number")
    if not (isfinite(value) and value > least):
        raise DriverError(f"{driver}: {name} is {value}; it is finite and above {least:g}")
    return float(value)
