"""The life of a driver: which call leads where, and what is told of it.

    disconnected -connect-> connected -configure-> configured -activate-> active
                                      <------------ deactivate ----------/
    fault and e-stopped are latched: only `reset`, by a person's intent and with a healthy device,
    leads out of them, to connected. Whoever resets still has to configure and activate by hand.

A call that fails on a connected device is a fault, and a fault stops the device; closing forgets
it, since all has to be done by hand again. An e-stop comes through from every state and never
fails; its latch is a file and outlives any process.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from safetypilot.bridge.contract import Driver, DriverError, Measurement, Mode


class State(StrEnum):
    DISCONNECTED = "disconnected"
    CONNECTED = "connected"
    CONFIGURED = "configured"
    ACTIVE = "active"
    FAULT = "fault"
    ESTOPPED = "e-stopped"


LATCHED = (State.FAULT, State.ESTOPPED)
_MAY: dict[str, tuple[State, ...]] = {
    "connect": (State.DISCONNECTED,),
    "configure": (State.CONNECTED, State.CONFIGURED),
    "check_watchdog": (State.CONFIGURED,),
    "activate": (State.CONFIGURED,),
    "deactivate": (State.ACTIVE,),
    "reset": LATCHED,
}


class Transition(NamedTuple):
    """One step of the life: what was before, what is now, and why."""

    at_ns: int
    before: State
    after: State
    cause: str


class Lifecycle:
    """Makes a driver's calls in the only order that is allowed.

    Attributes:
        state: where the driver is.
        identity: what the device said of itself when it was connected.
        tripped: why `trip` was called; whoever owns this calls `estop` with it when it can.
    """

    def __init__(
        self,
        driver: Driver,
        latch: Path,
        clock: Callable[[], int],
        publish: Callable[[Transition], None],
    ) -> None:
        """Begin disconnected, or e-stopped if the latch says so.

        Args:
            latch: the file that an e-stop leaves behind.
            publish: called with every transition, after it.
        """
        self.driver, self._latch, self._clock, self._publish = driver, latch, clock, publish
        self._connected = False
        self.identity: dict[str, str] = {}
        self.tripped = ""  # why somebody stopped the device, until `estop` has told of it
        self.state = State.ESTOPPED if latch.exists() else State.DISCONNECTED

    @property
    def connected(self) -> bool:
        """Whether the way to the device is open, in whatever state."""
        return self._connected

    def check(self, call: str) -> None:
        """Raises DriverError: not now."""
        if self.state not in _MAY[call]:
            states = " or ".join(_MAY[call])
            latched = self.state in LATCHED
            mend = "reset it first, and say why" if latched else f"it has to be {states}"
            raise DriverError(f"cannot {call} while {self.state}; {mend}")

    def connect(self, cause: str) -> None:
        """Opens the way to the device; a failure leaves everything as it was.

        Raises:
            DriverError: not now, or it failed.
        """
        self.check("connect")
        try:
            self.identity = self.driver.connect()
        except DriverError:
            self.driver.close()
            raise
        self._connected = True
        self._go(State.CONNECTED, cause)

    def configure(self, calibration: dict[str, Any], cause: str) -> dict[str, Any]:
        """Prepares the device; returns what is in effect.

        Raises:
            DriverError: not now, or it failed, which is a fault.
        """
        effective: dict[str, Any] = self._do(
            "configure", lambda: self.driver.configure(calibration), State.CONFIGURED, cause
        )
        return effective

    def check_watchdog(self) -> str:
        """What was seen when the device's own watchdog was provoked; empty: it cannot be.

        Raises:
            DriverError: not now, or it did not act, which is a fault.
        """
        seen: str = self._do("check_watchdog", self.driver.check_watchdog, State.CONFIGURED, "")
        return seen

    def activate(self, mode: Mode, cause: str) -> Measurement:
        """Lets the device be commanded; returns from where.

        Raises:
            DriverError: not now, or it failed, which is a fault.
        """
        start: Measurement = self._do(
            "activate", lambda: self.driver.activate(mode), State.ACTIVE, cause
        )
        return start

    def deactivate(self, cause: str) -> None:
        """Takes the device down gently.

        Raises:
            DriverError: not now, or it failed, which is a fault.
        """
        self._do("deactivate", self.driver.deactivate, State.CONFIGURED, cause)

    def fault(self, cause: str) -> None:
        """Something is wrong with the device or with who commands it: it stops, and stays so."""
        if self.state not in LATCHED:
            self._stop(cause)
            self._go(State.FAULT, cause)

    def trip(self, reason: str) -> None:
        """Stops the device and latches, from any thread or signal; `estop` is to follow."""
        self._stop(reason)  # first: nothing else is as urgent
        try:
            self._latch.write_text(json.dumps({"reason": reason, "at_ns": self._clock()}))
        except OSError as error:
            reason = f"{reason} (and the latch could not be written: {error.strerror})"
        self.tripped = self.tripped or reason or "no reason given"

    def estop(self, reason: str) -> None:
        """Stops the device, from any state and as often as called; never raises."""
        if not self.tripped:
            self.trip(reason)
        reason, self.tripped = self.tripped, ""
        if self.state is not State.ESTOPPED:
            self._go(State.ESTOPPED, reason)

    def reset(self, cause: str) -> None:
        """Leaves a latched state, by a person's intent; nothing moves by it.

        Raises:
            DriverError: not latched, nobody says why, the device is not healthy, or the latch
                cannot be removed.
        """
        self.check("reset")
        if not cause.strip():
            raise DriverError("reset needs a reason: who looked, and what was wrong")
        if self._connected:
            self.driver.reset()
        try:
            self._latch.unlink(missing_ok=True)
        except OSError as error:
            raise DriverError(f"the latch {self._latch} stays: {error.strerror}") from None
        self._go(State.CONNECTED if self._connected else State.DISCONNECTED, cause)

    def close(self, cause: str) -> None:
        """Ends everything, from any state; an active device is taken down first."""
        if self.state is State.ACTIVE:
            try:
                self.deactivate(cause)
            except DriverError:
                pass  # it has been stopped as a fault
        self.driver.close()
        self._connected = False
        if self.state not in (State.ESTOPPED, State.DISCONNECTED):
            self._go(State.DISCONNECTED, cause)

    def _do(self, call: str, work: Callable[[], Any], after: State, cause: str) -> Any:
        self.check(call)
        try:
            result = work()
        except DriverError as error:
            self.fault(f"{call} failed: {error}")
            raise
        if self.tripped:  # while it worked
            self._stop(self.tripped)
            self.estop(self.tripped)
            raise DriverError(f"{call} was cut short by an e-stop")
        self._go(after, cause)
        return result

    def _stop(self, reason: str) -> None:
        if self._connected:
            self.driver.estop(reason)

    def _go(self, after: State, cause: str) -> None:
        before, self.state = self.state, after
        if before is after and not cause:
            return  # a look
        self._publish(Transition(self._clock(), before, after, cause))
