"""The life of a driver: which call leads where, and what is told of it.

    disconnected -connect-> connected -configure-> configured -activate-> active
                                      <------------ deactivate ----------/
    fault and e-stopped are latched: only `reset`, by a person's intent and with a healthy device,
    leads out of them, to connected. Whoever resets still has to configure and activate by hand.

A call that fails on a connected device is a fault, and a fault stops the device; closing forgets
it, since all has to be done by hand again. Whatever a driver raises is a failure, also what is no
DriverError: a bug must not leave a device active that nobody guards. An e-stop comes through from
every state and never fails; its latch is a file and outlives any process.
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


def words(error: BaseException) -> str:
    """What an error says; with its kind, where no driver meant it."""
    return str(error) if isinstance(error, DriverError) else f"{type(error).__name__}: {error}"


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
        self._trouble = ""  # what went wrong with an e-stop, until `estop` has told of it
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
        """Opens the way to the device; where that is not there, everything is as it was.

        Raises:
            DriverError: not now, or it failed; what no driver should raise is a fault.
        """
        self.check("connect")
        try:
            self.identity = self.driver.connect()
        except DriverError:
            self._close_driver()
            raise
        except Exception as error:
            cause = f"connect failed: {words(error)}"
            self.fault(cause + self._close_driver())
            raise DriverError(cause) from error
        self._connected = True
        self._heed_trip("connect", State.DISCONNECTED)
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
            self._go(State.FAULT, cause + self._stop(cause))

    def trip(self, reason: str) -> None:
        """Stops the device and latches, from any thread or signal; `estop` is to follow."""
        reason = reason or "no reason given"
        self.tripped = self.tripped or reason  # nothing is sent from here on
        self._trouble += self._stop(reason)  # before the disk, which may be slow
        self._trouble += self._write_latch(reason)
        if self._trouble:
            self.tripped = self.tripped or reason  # also if its reason has been told meanwhile

    def estop(self, reason: str) -> None:
        """Stops the device, from any state and as often as called; never raises."""
        if not self.tripped:
            self.trip(reason)
        trouble, self._trouble = self._trouble, ""
        reason, self.tripped = self.tripped + trouble, ""
        if trouble or self.state is not State.ESTOPPED:
            self._go(State.ESTOPPED, reason)

    def reset(self, cause: str) -> None:
        """Leaves a latched state, by a person's intent; nothing moves by it.

        Raises:
            DriverError: not latched, nobody says why, the device is not healthy, or the latch
                cannot be removed.
        """
        self.check("reset")
        before = self.state
        if not cause.strip():
            raise DriverError("reset needs a reason: who looked, and what was wrong")
        if self._connected:
            try:
                self.driver.reset()
            except DriverError:
                raise
            except Exception as error:
                raise DriverError(f"reset failed: {words(error)}") from error
        self._heed_trip("reset", before)
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
        cause += self._close_driver()
        self._connected = False
        if self.state not in (State.ESTOPPED, State.DISCONNECTED):
            self._go(State.DISCONNECTED, cause)

    def _do(self, call: str, work: Callable[[], Any], after: State, cause: str) -> Any:
        self.check(call)
        before = self.state
        try:
            result = work()
        except Exception as error:
            cause = f"{call} failed: {words(error)}"
            self.fault(cause)
            if isinstance(error, DriverError):
                raise
            raise DriverError(cause) from error
        self._heed_trip(call, before)
        self._go(after, cause)
        return result

    def _heed_trip(self, call: str, before: State) -> None:
        """What somebody stopped while a call was at work stays stopped, whatever that has done."""
        if self.tripped or self.state is not before:
            reason = self.tripped or f"{call} came back after an e-stop"
            self._trouble += self._stop(reason)
            self.estop(reason)
            raise DriverError(f"{call} was cut short by an e-stop")

    # What has to go on whatever the driver or the disk says returns the trouble as words.

    def _stop(self, reason: str) -> str:
        if self._connected:
            try:
                self.driver.estop(reason)
            except Exception as error:  # noqa: BLE001
                return f" (and the device could not be stopped: {words(error)})"
        return ""

    def _write_latch(self, reason: str) -> str:
        try:
            self._latch.write_text(json.dumps({"reason": reason, "at_ns": self._clock()}))
        except OSError as error:
            return f" (and the latch could not be written: {error.strerror})"
        return ""

    def _close_driver(self) -> str:
        try:
            self.driver.close()
        except Exception as error:  # noqa: BLE001
            return f" (and the driver could not be closed: {words(error)})"
        return ""

    def _go(self, after: State, cause: str) -> None:
        before, self.state = self.state, after
        if before is after and not cause:
            return  # a look
        self._publish(Transition(self._clock(), before, after, cause))
