"""From what was commanded to damping, little by little."""

from __future__ import annotations

from safetypilot.bridge.contract import Mode, Setpoint, Vector


def as_pd(setpoint: Setpoint, zeros: Vector) -> Setpoint:
    """The same in mode pd."""
    if setpoint.mode is Mode.PD:
        return setpoint
    return Setpoint(Mode.PD, zeros, zeros, setpoint.effort, zeros, zeros)


def damped(first: Setpoint, share: float, damping: float) -> Setpoint:
    """A setpoint of mode pd on the way to damping, by a share from 0 to 1."""
    left = 1.0 - share
    return first._replace(
        velocity=tuple([left * number for number in first.velocity]),
        effort=tuple([left * number for number in first.effort]),
        kp=tuple([left * number for number in first.kp]),
        kd=tuple([left * number + share * damping for number in first.kd]),
    )
