"""The servo inside a simulated Dynamixel: what it makes of goals, gains and profiles.

A direct-current motor behind the position, velocity, current or PWM controller of the e-manual;
gains and profiles have the e-manual's units. The profile is the one by velocity; that by time, the
feed-forward gains and the integral of the position controller are not simulated.
"""

from __future__ import annotations

from math import copysign, sqrt

from safetypilot.bridge.protocols import dynamixel_table as table
from safetypilot.bridge.protocols.dynamixel_table import RADIANS, RADIANS_PER_S, Model

_ACCELERATION = 214.577 / 0.229 / 60  # ticks of velocity per s, per tick of profile_acceleration
_TICKS_PER_S = RADIANS_PER_S / RADIANS  # of position, per tick of velocity


class Servo:
    """Reads goals from a control table and writes there what it measures."""

    def __init__(self, values: dict[str, int], model: Model) -> None:
        """At rest at angle 0.

        Args:
            values: the control table, by name; shared with the motor.
        """
        self._values, self._model = values, model
        self._angle = 0.0  # of the horn, ticks; never reversed, never offset
        self._target, self._rate = float(table.CENTRE), 0.0  # where the profile is, and how fast
        self._sum = 0.0
        self._measure(0.0, 0.0, 0.0)

    def stand(self) -> int:
        """Profile and integral begin anew, at the position that is returned."""
        self._target, self._rate, self._sum = self._shown(), 0.0, 0.0
        return round(self._target)

    def drive(self, angle: float, speed: float, dt_s: float) -> float:
        """The torque that it makes, N m, for the next `dt_s`.

        Args:
            angle, speed: of its horn, rad and rad/s; at angle 0 the encoder is at its centre.
        """
        values, model = self._values, self._model
        self._angle = angle / RADIANS
        sign = -1.0 if values["drive_mode"] & table.REVERSED else 1.0
        rate = sign * speed / RADIANS_PER_S
        torque = pwm = 0.0
        if not values["torque_enable"]:
            pass
        elif values["operating_mode"] == table.CURRENT:
            room = model.stall_torque * max(0.0, 1.0 - abs(speed) / model.no_load_speed)
            wanted = values["goal_current"] * model.torque
            torque = max(-room, min(room, wanted))
            pwm = torque / model.stall_torque * table.FULL_PWM
        else:
            most = abs(values["goal_pwm"])
            pwm = max(-most, min(most, self._pwm(rate, dt_s)))
            emf = sign * speed / model.no_load_speed
            torque = model.stall_torque * (pwm / table.FULL_PWM - emf)
        values["realtime_tick"] = (values["realtime_tick"] + round(dt_s * 1e3)) & 0x7FFF
        self._measure(rate, pwm, torque)
        return sign * torque

    def _measure(self, rate: float, pwm: float, torque: float) -> None:
        values = self._values
        values["present_pwm"] = round(pwm)
        values["present_current"] = round(torque / self._model.torque)
        values["present_velocity"] = round(rate)
        values["present_position"] = round(self._shown())
        values["moving"] = int(abs(rate) > values["moving_threshold"])
        values["velocity_trajectory"] = round(self._rate)
        values["position_trajectory"] = round(self._target)

    def _pwm(self, rate: float, dt_s: float) -> float:
        """What the controller of the operating mode asks for, in ticks of PWM."""
        values, mode = self._values, self._values["operating_mode"]
        if mode == table.PWM:
            return float(values["goal_pwm"])
        if mode == table.VELOCITY:
            self._rate = self._accelerated(values["goal_velocity"], dt_s)
            error, limit = self._rate - rate, float(values["pwm_limit"])
            self._sum += values["velocity_i_gain"] / 65536 * error * dt_s * 1e3
            self._sum = max(-limit, min(limit, self._sum))
            return values["velocity_p_gain"] / 128 * error + self._sum
        self._follow(values["goal_position"], dt_s)
        per_ms = (self._rate - rate) * _TICKS_PER_S / 1e3  # by which the error grows
        pwm = values["position_p_gain"] / 128 * (self._target - self._shown())
        return pwm + values["position_d_gain"] / 16 * per_ms

    def _follow(self, goal: int, dt_s: float) -> None:
        """The profile goes on towards the goal, at most at profile_velocity."""
        fastest = self._values["profile_velocity"]
        if not fastest:
            self._target, self._rate = float(goal), 0.0
            return
        left = (goal - self._target) / _TICKS_PER_S
        slope = self._values["profile_acceleration"] * _ACCELERATION
        wanted = min(fastest, abs(left) / dt_s, sqrt(2 * slope * abs(left)) if slope else fastest)
        self._rate = self._accelerated(copysign(wanted, left), dt_s)
        self._target += self._rate * _TICKS_PER_S * dt_s

    def _accelerated(self, wanted: float, dt_s: float) -> float:
        step = self._values["profile_acceleration"] * _ACCELERATION * dt_s
        return max(self._rate - step, min(self._rate + step, wanted)) if step else float(wanted)

    def _shown(self) -> float:
        """The position that the control table has for the angle of the horn, in ticks."""
        values = self._values
        offset = values["homing_offset"]
        if values["operating_mode"] == table.POSITION and abs(offset) > table.TICKS // 4:
            offset = 0  # the e-manual: in this mode ignored
        reverse = values["drive_mode"] & table.REVERSED
        return table.CENTRE + (-self._angle if reverse else self._angle) + offset
