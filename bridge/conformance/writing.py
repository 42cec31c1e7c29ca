"""Writing: what cannot be right is refused, and nothing moves by it."""

from __future__ import annotations

from math import inf, nan
from time import monotonic_ns
from typing import Any

from safetypilot.bridge.conformance.bench import Bench
from safetypilot.bridge.conformance.session import AMPLE_NS, Session
from safetypilot.bridge.conformance.verdict import Failed, Skipped, refused
from safetypilot.bridge.contract import DriverError, Mode, Setpoint, Vector
from safetypilot.bridge.limits import Cut, Limiter

_NAMED = ("position", "velocity", "effort", "kp", "kd")


def _meant(mode: Mode) -> tuple[str, ...]:
    """The numbers of a setpoint that a mode goes by."""
    return _NAMED if mode is Mode.PD else (mode.value,)


def _spoilt(session: Session, name: str, numbers: Vector) -> Setpoint:
    changed: dict[str, Any] = {name: numbers}
    return session.hold._replace(**changed)


def _with(numbers: Vector, last: float) -> Vector:
    return (*numbers[:-1], last)


def _refuse(session: Session, what: str, setpoint: Setpoint, in_ns: int = AMPLE_NS) -> None:
    refused(what, lambda: session.driver.write(setpoint, monotonic_ns() + in_ns))
    session.cycle()


def _unmoved(bench: Bench, session: Session) -> str:
    session.cycle(session.cycles(0.05))
    if session.moved() > bench.subject.still:
        raise Failed(f"a joint moved by {session.moved():.3f}")
    return f"moved {session.moved():.4f} at most"


def _need_simulated(bench: Bench) -> None:
    """A driver that takes what it must refuse is found out where nothing can break.

    Raises:
        Skipped: something can.
    """
    if bench.subject.hardware:
        raise Skipped("a driver that took it would move the robot: only of a simulated device")


def not_finite_is_refused(bench: Bench) -> str:
    """NaN and infinity are refused wherever the mode looks, and nothing moves."""
    _need_simulated(bench)
    session = bench.shared()
    for name in _meant(session.mode):
        for number in (nan, inf, -inf):
            spoilt = _spoilt(session, name, _with(getattr(session.hold, name), number))
            _refuse(session, f"a {name} of {number}", spoilt)
    return _unmoved(bench, session)


def huge_has_no_effect(bench: Bench) -> str:
    """Numbers that no limiter lets through are refused, or change nothing."""
    _need_simulated(bench)
    session, accepted = bench.shared(), 0
    name = _meant(session.mode)[0]
    for number in (1e300, -1e300, 1e12):
        spoilt = _spoilt(session, name, _with(getattr(session.hold, name), number))
        try:
            session.driver.write(spoilt, monotonic_ns() + AMPLE_NS)
            accepted += 1
        except DriverError:
            pass
        session.cycle(2)
    return f"{3 - accepted} of 3 refused, {_unmoved(bench, session)}"


def wrong_length_is_refused(bench: Bench) -> str:
    """Too few and too many numbers are refused."""
    _need_simulated(bench)
    session = bench.shared()
    for name in _meant(session.mode):
        whole = getattr(session.hold, name)
        for numbers in ((), whole[:-1], (*whole, 0.0)):
            text = f"a {name} of {len(numbers)} numbers for {len(whole)} joints"
            _refuse(session, text, _spoilt(session, name, numbers))
    return _unmoved(bench, session)


def wrong_mode_is_refused(bench: Bench) -> str:
    """A setpoint in another mode than the active one is refused."""
    _need_simulated(bench)
    session = bench.shared()
    others = [mode for mode in Mode if mode is not session.mode]
    for mode in others:
        _refuse(session, f"a setpoint in {mode}", session.hold._replace(mode=mode))
    return f"active {session.mode}, refused {', '.join(others)}; {_unmoved(bench, session)}"


def too_late_is_refused(bench: Bench) -> str:
    """A setpoint whose deadline has passed is refused."""
    session = bench.shared()
    for late_ns in (1, 10**6, 10**9):
        text = f"a setpoint that came {late_ns / 1e6:g} ms after its deadline"
        _refuse(session, text, session.hold, -late_ns)
    return _unmoved(bench, session)


def duplicates_are_harmless(bench: Bench) -> str:
    """The same setpoint many times at once is as good as once."""
    session = bench.shared()
    for _ in range(10):
        for _ in range(10):
            session.driver.write(session.hold, monotonic_ns() + AMPLE_NS)
        session.cycle()
    return f"10 times 10; {_unmoved(bench, session)}"


def time_that_stands_moves_nothing(bench: Bench) -> str:
    """Behind the limiter, time that stands or goes back moves nothing."""
    session = bench.shared()
    joints, period_s = bench.description.joints, session.period_ns / 1e9
    limiter = Limiter(joints, session.mode, period_s)
    limiter.start(session.hold.position, monotonic_ns() - session.period_ns)
    now_ns, last = monotonic_ns(), session.last
    limiter.limit(session.hold, session.hold.position, last.velocity, now_ns)
    for expected, at_ns in ((Cut.NO_TIME, now_ns), (Cut.TIME_REVERSED, now_ns - 10**9)):
        far = tuple(its + 1.0 for its in last.position)
        cut = limiter.limit(
            session.hold._replace(position=far), last.position, last.velocity, at_ns
        )
        if not cut & expected:
            raise Failed(f"the limiter says {cut!r}, not {expected!r}")
        session.cycle(session.cycles(0.05), limiter.sent)
    return _unmoved(bench, session)
