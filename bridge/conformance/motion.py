"""Whether a robot moves, and moving it a little, through the limiter as the bridge does."""

from __future__ import annotations

from math import isfinite, sqrt
from time import monotonic, monotonic_ns
from typing import NamedTuple

from safetypilot.bridge.conformance.session import Session, farthest, held
from safetypilot.bridge.conformance.verdict import Skipped
from safetypilot.bridge.contract import Driver, Joint, Measurement, Mode, Vector
from safetypilot.bridge.limits import Limiter

_NUDGE = 0.3  # rad or m; less where there is less room
_SETTLING_S = 0.1  # until it is at rest there
_GLANCE_NS = 10**7  # a read waits so long


def at_rest(driver: Driver, still: float) -> Measurement:
    """Waits until nothing moves any more.

    Raises:
        Skipped: something always does.
    """
    end = monotonic() + 5.0
    while monotonic() < end:
        before = driver.read(monotonic_ns() + _GLANCE_NS)
        if watched(driver, before.position, 0.1) < still / 4:
            return before
    raise Skipped("the robot moves by itself, so that nothing can be told of the driver")


def watched(driver: Driver, position: Vector, seconds: float) -> float:
    """The farthest that a joint gets from there, rad or m."""
    end, moved = monotonic() + seconds, 0.0
    while monotonic() < end:
        now = driver.read(monotonic_ns() + _GLANCE_NS)
        moved = max(moved, farthest(now.position, position))
    return moved


def fastest(driver: Driver, since: Measurement, seconds: float) -> float:
    """The largest speed of a joint, from one look to one 20 ms later at least; per second."""
    end, speed = monotonic() + seconds, 0.0
    while monotonic() < end:
        now = driver.read(monotonic_ns() + _GLANCE_NS)
        elapsed = (now.received_ns - since.received_ns) / 1e9
        if elapsed >= 0.02:
            speed = max(speed, farthest(now.position, since.position) / elapsed)
            since = now
    return speed


class Nudge(NamedTuple):
    """What came of moving one joint; rad or m, N m or N.

    Attributes:
        moved, pushed: how far it came, and how its effort changed.
        others_moved, others_pushed: the same of whichever other did most.
    """

    asked: float
    moved: float
    others_moved: float
    pushed: float
    others_pushed: float


class Mover:
    """Moves the joints of a session, smoothly, so that the limiter has nothing to cut."""

    def __init__(self, session: Session) -> None:
        joints = session.driver.description.joints
        self._session, self._joints = session, joints
        self._limiter = Limiter(joints, session.mode, session.period_ns / 1e9)
        self._now_ns = 0  # a period later with each cycle: when the host stalls, so does the curve
        self._limiter.start(session.last.position, self._now_ns)
        self._at = session.last.position

    def nudge(self, index: int) -> Nudge:
        """Moves one joint there and back."""
        session, home, before = self._session, self._at, self._session.last.effort
        asked = _room(self._joints[index], home[index])
        self._go(tuple(its + asked * (i == index) for i, its in enumerate(home)))
        moved = _change(home, session.last.position)
        pushed = _change(before, session.last.effort)
        self._go(home)
        return Nudge(
            asked, moved[index], _others(moved, index), pushed[index], _others(pushed, index)
        )

    def lift(self) -> None:
        """Moves all joints away from where they rest."""
        rows = zip(self._joints, self._at, strict=True)
        self._go(tuple(its + _room(joint, its) for joint, its in rows))

    def _go(self, goal: Vector) -> None:
        """Goes there in a fifth-order curve, and holds for a while."""
        start, self._at = self._at, goal
        cycles = self._session.cycles(self._seconds(farthest(start, goal)))
        for cycle in range(1, cycles + 1):
            part = cycle / cycles
            whole = part**3 * (10.0 + part * (6.0 * part - 15.0))
            self._step(tuple(a + whole * (b - a) for a, b in zip(start, goal, strict=True)))
        for _ in range(self._session.cycles(_SETTLING_S)):
            self._step(goal)

    def _seconds(self, way: float) -> float:
        """For a way that any joint can go in half of its speed and acceleration."""
        speed = min(joint.velocity for joint in self._joints)
        rising = min(joint.acceleration for joint in self._joints)
        return max(0.4, 2 * 1.875 * way / speed, sqrt(2 * 5.78 * way / rising))

    def _step(self, goal: Vector) -> None:
        session, limiter, last = self._session, self._limiter, self._session.last
        asked = held(session.driver, session.mode, goal)
        if session.mode is Mode.VELOCITY:
            rows = zip(goal, last.position, strict=True)
            asked = asked._replace(velocity=tuple(5.0 * (to - at) for to, at in rows))
        self._now_ns += session.period_ns
        limiter.limit(asked, last.position, last.velocity, self._now_ns)
        session.cycle(setpoint=limiter.sent)


def _change(before: Vector, after: Vector) -> Vector:
    return tuple(now - then for then, now in zip(before, after, strict=True))


def _others(numbers: Vector, index: int) -> float:
    return max((abs(its) for i, its in enumerate(numbers) if i != index), default=0.0)


def _room(joint: Joint, position: float) -> float:
    """A little towards the middle of its range."""
    if not (isfinite(joint.low) and isfinite(joint.high)):
        return _NUDGE
    amount = min(_NUDGE, (joint.high - joint.low) / 4)
    return amount if position < (joint.low + joint.high) / 2 else -amount
