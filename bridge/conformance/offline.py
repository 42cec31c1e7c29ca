"""What can be checked while nothing is connected: what a driver declares."""

from __future__ import annotations

import dataclasses
import inspect
import re
from math import inf, isfinite

from safetypilot.bridge import registry
from safetypilot.bridge.conformance.bench import Bench
from safetypilot.bridge.conformance.verdict import Failed
from safetypilot.bridge.contract import Failsafe, Joint, Mode

_LONGEST_S = 2.0  # that a robot may do as it likes without commands
_TURNS_RAD, _LENGTH_M = 100.0, 100.0  # more than that is no radian, no metre
_NEEDED = {  # mode -> what the limiter cuts in it
    Mode.POSITION: ("velocity",),
    Mode.VELOCITY: ("velocity",),
    Mode.EFFORT: ("effort",),
    Mode.PD: ("velocity", "effort", "kp", "kd"),
}


def description_is_readable(bench: Bench) -> str:
    """What the driver declares can be read while nothing is connected."""
    plain = {k: v for k, v in bench.subject.options.items() if "{" not in str(v)}
    first, again = (registry.create(bench.subject.driver, plain) for _ in range(2))
    if first.description != again.description:
        raise Failed("two drivers with the same options declare different things")
    if not all(type(count) is int for count in first.counters.values()):
        raise Failed(f"counters are numbers by name, not {first.counters!r}")
    first.close()
    joints, modes = len(first.description.joints), ", ".join(first.description.modes)
    return f"{first.description.name}: {joints} joints, {modes}"


def numbers_fit(bench: Bench) -> str:
    """Rates, time-outs and failsafes fit one another."""
    told = bench.description
    shortest = 2.0 / told.rate_hz
    for name in ("command_timeout_s", "watchdog_s"):
        value = getattr(told, name)
        if value is not None and not shortest <= value <= _LONGEST_S:
            raise Failed(
                f"{name} is {value} s; at {told.rate_hz:g} Hz it is at least two periods, "
                f"{shortest:g} s, and at most {_LONGEST_S:g} s"
            )
    order = [list(Failsafe).index(failsafe) for failsafe in told.failsafes]
    if order != sorted(set(order)):
        raise Failed(f"failsafes are each named once, the gentlest first: {told.failsafes}")
    for sensor, unit in told.sensors.items():
        if not sensor or not unit:
            raise Failed(f"sensor {sensor!r} has the unit {unit!r}; it needs a name and a unit")
    watchdog = f"{told.watchdog_s:g} s" if told.watchdog_s else "none"
    return f"{told.rate_hz:g} Hz, watchdog {watchdog}, failsafe {', '.join(told.failsafes)}"


def joints_are_limited(bench: Bench) -> str:
    """Every joint has the limits that its modes need, in rad or m."""
    for joint in bench.description.joints:
        for mode in bench.description.modes:
            for name in _NEEDED[mode]:
                if getattr(joint, name) == inf:
                    raise Failed(f"joint {joint.name!r} has no limit of {name}; {mode} needs one")
        largest = max((abs(its) for its in (joint.low, joint.high) if isfinite(its)), default=0.0)
        if largest > (_TURNS_RAD if joint.unit == "rad" else _LENGTH_M):
            raise Failed(
                f"joint {joint.name!r} goes to {largest:g} {joint.unit}: which unit is it?"
            )
    return "; ".join(map(_range, bench.description.joints[:3])) + (
        "; ..." if len(bench.description.joints) > 3 else ""
    )


def _range(joint: Joint) -> str:
    return f"{joint.name} {joint.low:g} to {joint.high:g} {joint.unit}"


def options_are_explained(bench: Bench) -> str:
    """Every option has a default and is explained."""
    if not inspect.getdoc(bench.kind):
        raise Failed(f"{bench.kind.__name__} has no docstring")
    fields = dataclasses.fields(bench.kind.Options)
    text = inspect.getdoc(bench.kind.Options) or ""
    for field in fields:
        missing = dataclasses.MISSING
        if field.default is missing and field.default_factory is missing:
            raise Failed(f"option {field.name!r} has no default")
        if not re.search(rf"\b{re.escape(field.name)}\b.*:", text):
            raise Failed(f"option {field.name!r} is not explained in the docstring of Options")
    return ", ".join(field.name for field in fields) or "none"
