"""One joint's limits at work: what it is asked for, cut to what may follow what it did last.

The arithmetic of the limiter, for one joint and plain numbers. Limits that contradict each other
rank: position, velocity, acceleration, jerk. The way to the end of a joint's range is braked in
time, so acceleration is kept there too.
"""

from __future__ import annotations

from enum import IntFlag
from math import sqrt

from safetypilot.bridge.contract import Joint

ENDLESS = 1e9  # stands for inf, so that no sum or product ever is


class Cut(IntFlag):
    """Why what goes out is not what was asked for; the first six are refusals."""

    NONE = 0
    NOT_FINITE = 1
    WRONG_LENGTH = 2
    WRONG_MODE = 4
    NO_TIME = 8  # has passed since the last setpoint
    TIME_REVERSED = 16
    UNKNOWN_STATE = 32  # what was measured is not finite, or has another length
    POSITION = 64
    VELOCITY = 128
    ACCELERATION = 256
    JERK = 512
    EFFORT = 1024
    GAIN = 2048
    LEAD = 4096  # the robot does not follow
    OUTSIDE = 8192  # measured beyond a limit: only back inside

    @property
    def refused(self) -> bool:
        return self & 63 != 0


# Plain integers: the flags' own arithmetic takes a microsecond for each.
POSITION, VELOCITY, ACCELERATION = int(Cut.POSITION), int(Cut.VELOCITY), int(Cut.ACCELERATION)
JERK, EFFORT, GAIN, LEAD = int(Cut.JERK), int(Cut.EFFORT), int(Cut.GAIN), int(Cut.LEAD)
OUTSIDE = int(Cut.OUTSIDE)


class Axis:
    """The limits of one joint, and what it was last told.

    Attributes:
        position, velocity: last commanded.
        rising: the acceleration of that.
        cut: why the last answer is not what was asked for; a sum of `Cut`.
    """

    __slots__ = (
        "_acceleration", "_effort", "_hard_high", "_hard_low", "_high", "_jerk", "_kd", "_kp",
        "_lead", "_low", "_speed", "cut", "position", "rising", "velocity",
    )  # fmt: skip

    def __init__(self, joint: Joint) -> None:
        self._hard_low, self._hard_high = max(joint.low, -ENDLESS), min(joint.high, ENDLESS)
        self._low, self._high = self._hard_low + joint.margin, self._hard_high - joint.margin
        self._speed, self._effort = min(joint.velocity, ENDLESS), min(joint.effort, ENDLESS)
        self._acceleration, self._jerk = min(joint.acceleration, ENDLESS), min(joint.jerk, ENDLESS)
        self._kp, self._kd = min(joint.kp, ENDLESS), min(joint.kd, ENDLESS)
        self._lead = min(joint.lead, ENDLESS)
        self.start(0.0)

    def start(self, position: float) -> None:
        """At rest there."""
        self.position, self.velocity, self.rising, self.cut = position, 0.0, 0.0, 0

    def slow_down(self, dt: float) -> float:
        """Nobody says how fast to go on, so ever slower; the velocity."""
        step = self._acceleration * dt
        self.velocity -= _within(self.velocity, -step, step)
        self.rising = 0.0
        return self.velocity

    def is_outside(self, measured: float) -> bool:
        return not self._hard_low <= measured <= self._hard_high

    def move(self, wanted: float, measured: float, dt: float) -> float:
        """The position to be commanded, on the way to the wanted one."""
        before, speed_before = self.position, self.velocity
        self.cut = 0
        target = wanted
        if not self._low <= wanted <= self._high:
            self.cut = POSITION
            target = _within(wanted, self._low, self._high)
        asked = (target - before) / dt
        velocity = self._shaped(asked, before, dt)
        shaped = after = target if velocity == asked else before + velocity * dt
        if abs(after - measured) > self._lead < ENDLESS:
            self.cut |= LEAD
            after = _within(after, measured - self._lead, measured + self._lead)
            # It may stop at once, but gets no faster than it may.
            step = self._acceleration * dt
            least = max(-self._speed, min(0.0, speed_before - step))
            most = min(self._speed, max(0.0, speed_before + step))
            after = _within(after, before + least * dt, before + most * dt)
        # The clamp comes last; from outside the limits, where it may have started, only inwards.
        low = self._low if self._low < before else before
        high = self._high if self._high > before else before
        self.position = after = _within(after, low, high)
        if after != shaped:  # the next step goes on from what went out
            self.velocity, self.rising = (after - before) / dt, 0.0
        return after

    def turn(self, wanted: float, measured: float, dt: float) -> float:
        """The velocity to be commanded."""
        self.cut = 0
        return self._shaped(wanted, measured, dt)

    def allows(self, wanted: float, position: float, dt: float) -> bool:
        """Whether a velocity may follow the last as it is; of a sound policy nearly every one may.

        It only saves time: what it does not allow is cut, and then perhaps by nothing.
        """
        room = (self._high - position) if wanted > 0.0 else (position - self._low)
        rate, change, speed = self._acceleration, wanted - self.velocity, abs(wanted)
        return (
            speed <= self._speed
            and abs(change) <= rate * dt
            and abs(change / dt - self.rising) <= self._jerk * dt
            and speed * (dt + speed / (2.0 * rate)) <= room
        )

    def _shaped(self, wanted: float, position: float, dt: float) -> float:
        """A velocity near the wanted one that may follow the last."""
        before = self.velocity
        if self.allows(wanted, position, dt):
            self.velocity, self.rising = wanted, (wanted - before) / dt
            return wanted
        step = self._acceleration * dt
        low = -self._fastest(position - self._low, dt)
        high = self._fastest(self._high - position, dt)
        velocity = _within(wanted, low, high)
        cut = VELOCITY if velocity != wanted else 0
        # What is nearest to the window of the next limit, where the limits before leave none of it.
        low, high = _within(before - step, low, high), _within(before + step, low, high)
        slower = _within(wanted, low, high)
        cut |= ACCELERATION if slower != velocity else 0
        least, most = self.rising - self._jerk * dt, self.rising + self._jerk * dt
        low, high = _within(before + least * dt, low, high), _within(before + most * dt, low, high)
        smoother = _within(wanted, low, high)
        cut |= JERK if smoother != slower else 0
        self.cut |= cut
        self.velocity, self.rising = smoother, (smoother - before) / dt
        return smoother

    def _fastest(self, room: float, dt: float) -> float:
        """The largest speed from which there is room to stop, after one more step at it.

        v dt + v^2 / 2a = room, solved without loss of precision.
        """
        if room <= 0.0:
            return 0.0
        return min(self._speed, 2.0 * room / (dt + sqrt(dt * dt + 2.0 * room / self._acceleration)))

    def push(self, wanted: float, position: float, velocity: float) -> float:
        """The effort to be commanded: none outwards at a limit, none forwards at full speed."""
        low, high = self._efforts(position, velocity)
        self.cut = 0 if low <= wanted <= high else EFFORT
        return _within(wanted, low, high)

    def _efforts(self, position: float, velocity: float) -> tuple[float, float]:
        low = 0.0 if position <= self._low or velocity <= -self._speed else -self._effort
        high = 0.0 if position >= self._high or velocity >= self._speed else self._effort
        return low, high

    def drive(
        self, velocity: float, effort: float, kp: float, kd: float, position: float, speed: float
    ) -> tuple[float, float, float, float, float]:
        """What goes with the position of the last `move`, by the effort that the device makes.

        Args:
            velocity, effort, kp, kd: asked for; negative gains would drive the joint away.
            position, speed: measured.

        Returns:
            Position, velocity, effort, kp and kd: each within its own limit too, since the device
            may go on with them for a while, elsewhere than where it was measured.
        """
        if not (0.0 <= kp <= self._kp and 0.0 <= kd <= self._kd):
            self.cut |= GAIN
            kp, kd = _within(kp, 0.0, self._kp), _within(kd, 0.0, self._kd)
        if abs(velocity) > self._speed:
            self.cut |= VELOCITY
            velocity = _within(velocity, -self._speed, self._speed)
        own = kp * (self.position - position) + kd * (velocity - speed)
        low, high = self._efforts(position, speed)
        if abs(effort) > self._effort:
            self.cut |= EFFORT
            effort = _within(effort, -self._effort, self._effort)
        if not low <= own + effort <= high:
            self.cut |= EFFORT
            rest = _within(own + effort, low, high) - own
            effort = _within(rest, min(0.0, effort), max(0.0, effort))  # less of it, then softer
            softer = _within(own, low - effort, high - effort) / own if own else 1.0
            kp, kd = kp * softer, kd * softer
        return self.position, velocity, effort, kp, kd


def _within(value: float, low: float, high: float) -> float:
    return low if value < low else high if value > high else value
