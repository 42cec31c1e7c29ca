"""What the simulated quadruped obeys: it checks every command, and damps when there is none.

It begins damped, and each silence of a commander makes it so again. Then it obeys nobody until
somebody shakes hands: sends a command that it accepts and that asks for no stiffness and no effort
(every kp and effort 0, any kd). From then on the newest accepted command counts, until `timeout_s`
pass without one. While one commands, it takes nothing from others.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

from safetypilot.bridge.protocols.unitree import (
    LOW_LEVEL,
    NO_POSITION,
    NO_VELOCITY,
    SERVO,
    Commands,
    Told,
)
from safetypilot.bridge.protocols.unitree_image import Corrupted

_KP, _KD, _EFFORT, _POSITION, _VELOCITY = 500.0, 50.0, 100.0, 12.6, 100.0  # largest that make sense
_SENTINEL_Q, _SENTINEL_DQ = float(NO_POSITION), float(NO_VELOCITY)


class Refused(Exception):
    """A command that is not taken; says why in a word or two."""


class Guard:
    """Vets commands and watches the time.

    Attributes:
        damped: it damps by itself and waits for a handshake.
        told: the newest command that was accepted.
        accepted: how many were.
    """

    def __init__(self, commands: Commands, timeout_s: float, log: Callable[..., None]) -> None:
        self._commands, self._timeout_ns, self._log = commands, int(timeout_s * 1e9), log
        self.damped, self._stiff = True, False
        self.told: Told | None = None
        self.accepted = 0
        self._commander = self._heard_ns = 0

    def take(self, sample: bytes, writer: int, now_ns: int) -> Told:
        """Takes a command.

        Args:
            writer: who sent it; not 0.

        Raises:
            Refused: it does not.
        """
        try:
            told = self._commands.unpack(sample)
        except Corrupted as corrupted:
            raise Refused(corrupted.cause) from None
        _check(told)
        if writer != self._commander and not self.damped:
            raise Refused("second commander")
        stiff = any(told.kp) or any(told.effort)
        if self.damped and stiff:
            raise Refused("no handshake")
        if self.damped:
            self._log("recovered" if self.accepted else "taken over")
        elif stiff and not self._stiff:
            self._log("active")
        elif self._stiff and not stiff:
            self._log("damping", cause="commanded")
        self.damped, self._stiff, self._commander = False, stiff, writer
        self.told, self._heard_ns = told, now_ns
        self.accepted += 1
        return told

    def watch(self, now_ns: int) -> bool:
        """Whether the commander has just been given up."""
        if self.damped or now_ns - self._heard_ns <= self._timeout_ns:
            return False
        self.damped, self._stiff, self._commander = True, False, 0
        silent_ms = (now_ns - self._heard_ns) / 1e6
        self._log("damping", cause="silence", silent_ms=round(silent_ms, 3))
        return True


def _check(told: Told) -> None:
    if told.header != LOW_LEVEL:
        raise Refused("header")
    if set(told.modes) != {SERVO}:
        raise Refused("mode")
    if not all(isfinite(sum(numbers)) for numbers in told[2:]):
        raise Refused("not finite")
    good = (
        all(0.0 <= kp <= _KP for kp in told.kp)
        and all(0.0 <= kd <= _KD for kd in told.kd)
        and all(abs(effort) <= _EFFORT for effort in told.effort)
        and all(abs(q) <= _POSITION or q == _SENTINEL_Q for q in told.position)
        and all(abs(dq) <= _VELOCITY or dq == _SENTINEL_DQ for dq in told.velocity)
    )
    if not good:
        raise Refused("range")
