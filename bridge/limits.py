"""The last thing between a number and a motor: every setpoint is cut to what the joints may do.

It trusts nobody. Whatever cannot be vetted (not finite, another length or mode, no time passed, an
unknown state of the robot) is refused, and the safe alternative goes out: the position vetted last,
ever less speed, or no effort. It never raises, since nobody would be there to catch that. Time is
what the clock says and nothing else, so a flood of messages moves the robot no faster than a few of
them. What one joint does is in axis.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, inf

from safetypilot.bridge.axis import OUTSIDE, Axis, Cut
from safetypilot.bridge.contract import Joint, Mode, Setpoint, Vector

__all__ = ["WORST", "Cut", "Escalation", "Limiter"]

WORST = 2  # level at which a robot is taken down
_LONGEST = 2.0  # nominal periods that a setpoint may move for, however long nothing came
_FAR = 1e12  # no joint is there or goes so fast; what is measured as more is not known


@dataclass(frozen=True, slots=True)
class Escalation:
    """Cuts are to be rare: with `most` of them within `window` setpoints the level rises by one."""

    most: int = 50
    window: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.most <= self.window:
            raise ValueError(f"most is {self.most}; it goes from 1 to the window, {self.window}")


class Limiter:
    """Cuts setpoints to the limits of the joints; one for each activation.

    Attributes:
        sent: what may go out.
        cut: why it differs from what was asked for.
        joints: the same for each joint; refusals concern all of them.
        level: how often cuts have been too many; it never falls by itself.
    """

    def __init__(
        self,
        joints: Sequence[Joint],
        mode: Mode,
        period_s: float,
        escalation: Escalation | None = None,
    ) -> None:
        """Prepare for one mode; `start` says from where.

        Raises:
            ValueError: the period is no time.
        """
        if not 0 < period_s < inf:
            raise ValueError(f"the period is {period_s} s; it is a time above 0")
        self._mode, self._size = mode, len(joints)
        self._period_s, self._longest_s = period_s, _LONGEST * period_s
        self._axes = tuple(map(Axis, joints))
        self._zeros: Vector = (0.0,) * len(joints)
        self._last_ns: int | None = None
        self.sent = Setpoint(mode)
        self.cut, self.level = Cut.NONE, 0
        self.joints: tuple[int, ...] = (0,) * len(joints)
        self._counts = {int(cause): 0 for cause in Cut}
        self._escalation = escalation or Escalation()
        self._recent = bytearray(self._escalation.window)
        self._steps = self._cuts = 0

    def start(self, position: Vector, now_ns: int) -> None:
        """Begin where the robot is, at rest, without effort and gains.

        Raises:
            ValueError: that is not known.
        """
        if not self._is_vector(position, _FAR):
            raise ValueError(f"the limiter cannot start from the position {position!r}")
        for axis, its in zip(self._axes, position, strict=True):
            axis.start(its)
        zeros = self._zeros
        self.sent = Setpoint(self._mode, position, zeros, zeros, zeros, zeros)
        self._last_ns = now_ns

    def limit(self, setpoint: Setpoint, position: Vector, velocity: Vector, now_ns: int) -> Cut:
        """Cuts a setpoint; what may go out is in `sent`.

        Args:
            position, velocity: as measured.
            now_ns: of a clock that never goes back.
        """
        dt, fault = self._elapsed(now_ns)
        if not (self._is_vector(position, _FAR) and self._is_vector(velocity, _FAR)):
            fault |= Cut.UNKNOWN_STATE
        if wrong := self._fault(setpoint):  # or-ing flags takes half a microsecond
            fault |= wrong
        cut = fault
        if not fault:
            try:
                cut = self._cut(setpoint, position, velocity, dt)
            except (ArithmeticError, TypeError, ValueError):  # numbers of another kind than float
                cut = fault = Cut.NOT_FINITE
        if fault:
            self.joints = (int(fault),) * self._size
            self._stand(dt)
        self.cut = cut
        self._count(cut)
        return cut

    @property
    def counts(self) -> dict[str, int]:
        """Cause -> how many setpoints, since the start."""
        named = ((Cut(bit).name, count) for bit, count in self._counts.items())
        return {str(name).lower(): count for name, count in named if count}

    # What is refused.

    def _is_vector(self, numbers: object, end: float = inf) -> bool:
        """Whether it has a number below the end for each joint."""
        if type(numbers) is not tuple or len(numbers) != self._size:
            return False
        try:
            return hypot(*numbers) < end  # false for nan; the quickest that looks at each of them
        except (ArithmeticError, TypeError, ValueError):
            return False

    def _fault(self, setpoint: Setpoint) -> Cut:
        if type(setpoint) is not Setpoint or setpoint.mode is not self._mode:
            return Cut.WRONG_MODE
        named = setpoint[1:] if self._mode is Mode.PD else (getattr(setpoint, self._mode),)
        for numbers in named:
            if not self._is_vector(numbers):
                whole = type(numbers) is tuple and len(numbers) == self._size
                return Cut.NOT_FINITE if whole else Cut.WRONG_LENGTH
        return Cut.NONE

    def _elapsed(self, now_ns: int) -> tuple[float, Cut]:
        """Seconds since the last setpoint, or to slow down for, and what is wrong with them."""
        if self._last_ns is None or now_ns == self._last_ns:
            return self._period_s, Cut.NO_TIME
        if now_ns < self._last_ns:
            return self._period_s, Cut.TIME_REVERSED
        dt = min((now_ns - self._last_ns) / 1e9, self._longest_s)
        self._last_ns = now_ns
        return dt, Cut.NONE

    def _stand(self, dt: float) -> None:
        """Ever slower, or where it was sent last."""
        if self._last_ns is None:  # nowhere yet
            return
        if self._mode is Mode.VELOCITY:
            self.sent = self.sent._replace(velocity=tuple([a.slow_down(dt) for a in self._axes]))
            return
        for axis, its in zip(self._axes, self.sent.position, strict=True):
            axis.start(its)
        self.sent = self.sent._replace(velocity=self._zeros, effort=self._zeros)

    # What is cut.

    def _cut(self, setpoint: Setpoint, position: Vector, velocity: Vector, dt: float) -> Cut:
        axes, mode, sent = self._axes, self._mode, self.sent
        if mode is Mode.POSITION:
            rows = zip(axes, setpoint.position, position, strict=True)
            sent = sent._replace(position=tuple([a.move(w, p, dt) for a, w, p in rows]))
        elif mode is Mode.VELOCITY:
            rows = zip(axes, setpoint.velocity, position, strict=True)
            sent = sent._replace(velocity=tuple([a.turn(w, p, dt) for a, w, p in rows]))
        elif mode is Mode.EFFORT:
            pushed = zip(axes, setpoint.effort, position, velocity, strict=True)
            sent = sent._replace(effort=tuple([a.push(w, p, v) for a, w, p, v in pushed]))
        else:
            columns = zip(*self._drive(setpoint, position, velocity, dt), strict=True)
            sent = Setpoint(mode, *columns)
        self.sent = sent
        cut, joints = 0, []
        for axis, measured in zip(axes, position, strict=True):
            own = axis.cut | (OUTSIDE if axis.is_outside(measured) else 0)
            joints.append(own)
            cut |= own
        self.joints = tuple(joints)
        return Cut(cut)

    def _drive(
        self, setpoint: Setpoint, position: Vector, velocity: Vector, dt: float
    ) -> list[tuple[float, ...]]:
        """Per joint: position, velocity, effort, kp, kd."""
        driven = []
        rows = zip(self._axes, position, velocity, *setpoint[1:], strict=True)
        for axis, p, v, wanted, speed, effort, kp, kd in rows:
            axis.move(wanted, p, dt)
            driven.append(axis.drive(speed, effort, kp, kd, p, v))
        return driven

    def _count(self, cut: Cut) -> None:
        if cut:
            whole, counts = int(cut), self._counts
            for bit in counts:
                if whole & bit:
                    counts[bit] += 1
        at = self._steps % len(self._recent)
        self._steps += 1
        self._cuts += bool(cut) - self._recent[at]
        self._recent[at] = bool(cut)
        if self._cuts >= self._escalation.most:
            self.level += 1
            self._cuts = 0
            self._recent[:] = bytes(len(self._recent))
