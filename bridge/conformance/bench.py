"""The bench: one driver and its simulated device, handed to one check after another."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from safetypilot.bridge import registry
from safetypilot.bridge.calibration import Calibration
from safetypilot.bridge.conformance import host
from safetypilot.bridge.conformance.device import Device
from safetypilot.bridge.conformance.session import Session, make_ready, preferred, settle
from safetypilot.bridge.conformance.verdict import Failed, Skipped
from safetypilot.bridge.contract import Description, Driver, DriverError, Mode

_SPARE_S = 0.02  # for a watchdog, beside its time
LONGEST_S = 15.0  # for any call but read and write


@dataclass(frozen=True)
class Subject:
    """What is checked, and how.

    Attributes:
        driver: a name of the registry, `module:Class` or `file.py:Class`.
        options: of the driver; `{name}` is filled in with what the device says when it is ready.
        device: the command that starts a simulated device; empty: the one the driver names.
        hardware: there is no simulated device, and what the options lead to may move and fall.
        calibration: of the device.
        still: what counts as no motion, rad or m.
        cycles: of the soak.
        thorough: takes its time: longer walks through the calls, a device killed in each of them.
    """

    driver: str
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = ""
    hardware: bool = False
    calibration: Calibration = field(default_factory=Calibration)
    still: float = 0.02
    cycles: int = 2000
    thorough: bool = False


class Bench:
    """A subject at work.

    Attributes:
        kind: the driver's class.
        description: what the driver declares while nothing is connected.
        calibration: of the device; None: not known yet.
    """

    def __init__(self, subject: Subject, folder: Path) -> None:
        """Looks the driver up; starts nothing yet.

        Args:
            folder: for what the device tells.

        Raises:
            DriverError: there is no such driver or option, or one leads past the simulated device.
        """
        self.subject = subject
        plain = {k: v for k, v in subject.options.items() if "{" not in str(v)}
        offline = registry.create(subject.driver, plain)
        self.kind: type[Any] = type(offline)
        self.description: Description = offline.description
        command, options = getattr(self.kind, "SIMULATED", ("", {}))
        self._command = subject.device or ("" if subject.hardware else command)
        self._options = {**({} if subject.hardware else options), **subject.options}
        if not (subject.device or subject.hardware):
            _refuse_other_robots(options, subject.options)
        file = Path(inspect.getfile(self.kind)).resolve()
        self._words = {"python": sys.executable, "file": str(file), "folder": str(file.parent)}
        self.identity: dict[str, str] = {}
        self.calibration: Calibration | None = None
        self._device: Device | None = None
        self._folder = folder
        self._drivers: list[Driver] = []
        self._shared: Session | None = None
        self._activated, self._left_until = False, 0.0

    # The device.

    def prepare(self) -> None:
        """Starts the device beforehand: a wrong command is told once, and not by every check.

        Raises:
            DriverError: it does not get ready, or does not say what the options need.
        """
        with suppress(Skipped):
            self.options()

    @property
    def device(self) -> Device | None:
        """The simulated device, running; None: there is none that the kit knows."""
        if not self._command:
            if self.subject.hardware or self.description.simulated:
                return None
            raise Skipped(
                "no device: name a simulated one with --device, or say --hardware if nothing "
                "that may fall or be hit is near"
            )
        if self._device is None:
            self._device = Device(_filled(self._command, self._words), self._folder)
        self._device.start()
        return self._device

    def need_device(self, what_for: str) -> Device:
        """The simulated device, running.

        Raises:
            Skipped: there is none.
        """
        device = self.device
        if device is None:
            raise Skipped(f"no simulated device {what_for}: name one with --device")
        return device

    def witness(self, what_for: str) -> Device:
        """The simulated device, if it tells what happens to it.

        Raises:
            Skipped: it does not.
        """
        device = self.need_device(what_for)
        if not device.events():
            raise Skipped(f"the device writes no --events, so nobody knows {what_for}")
        return device

    # Drivers.

    def options(self) -> dict[str, Any]:
        """The driver's options, with what the device said of itself."""
        device = self.device
        known = {**self._words, **(device.details if device else {})}
        return {key: _filled(value, known) for key, value in self._options.items()}

    def driver(self) -> Driver:
        """A new one, not connected; whatever was connected before is closed."""
        options = self.options()
        self.release()
        if self.calibration is None:
            self.calibration = self._calibration(options)
        made = registry.create(self.subject.driver, options)
        self._drivers.append(made)
        return made

    def connected(self) -> Driver:
        """A new one, connected; a device that was left while active has damped before."""
        driver = self.driver()
        sleep(max(0.0, self._left_until - monotonic()))
        with host.within(LONGEST_S, "connect"):
            self.identity = driver.connect()
        return driver

    def configured(self) -> Driver:
        """A new one, configured; if its device is still stopped from before, it is reset."""
        driver = self.connected()
        with host.within(LONGEST_S, "configure, or the reset before it,"):
            make_ready(driver, self.values)
        return driver

    def configure(self, driver: Driver) -> dict[str, Any]:
        """Hands it the calibration."""
        with host.within(LONGEST_S, "configure"):
            return driver.configure(self.values)

    @property
    def values(self) -> dict[str, Any]:
        """What `configure` is given."""
        return dict(self.calibration.values) if self.calibration is not None else {}

    def _calibration(self, options: dict[str, Any]) -> Calibration:
        """The subject's; if it has none and the driver needs one, what the device holds.

        Raises:
            Skipped: nobody knows it, or it is another device's.
            DriverError: no device answers.
        """
        own, fields = self.subject.calibration, self.description.calibration
        driver = registry.create(self.subject.driver, options)
        read = getattr(driver, "calibration", None)
        if not fields or (own == Calibration() and read is None):
            if fields:
                raise Skipped(f"it needs a calibration with {', '.join(fields)}: --calibration")
            return own
        try:
            identity = driver.connect()
            return _fitting(own, driver, identity, read)
        finally:
            driver.close()

    def activate(self, driver: Driver, mode: Mode | None = None) -> Session:
        """Makes a configured one active, once the robot has come to rest."""
        mode = mode or preferred(driver)
        settle(driver)
        self._activated = True
        with host.within(LONGEST_S, "activate"):
            start = driver.activate(mode)
        return Session(driver, mode, start)

    def session(self) -> Session:
        """A new driver, active."""
        return self.activate(self.configured())

    def shared(self) -> Session:
        """An active driver for checks that leave it as it was."""
        if self._shared is not None:
            with suppress(DriverError, Failed):  # the host may have been away for too long
                self._shared.cycle(2)
                self._shared.start = self._shared.last
                return self._shared
        session = self.session()
        self._drivers.remove(session.driver)
        self._shared = session
        session.cycle(2)
        return session

    def release(self) -> None:
        """Closes everything that is open."""
        if self._activated:
            watchdog_s = self.description.watchdog_s or 0.0
            self._activated, self._left_until = False, monotonic() + watchdog_s + _SPARE_S
        if self._shared is not None:
            self._drivers.append(self._shared.driver)
            self._shared = None
        while self._drivers:
            with host.within(LONGEST_S, "close"):
                self._drivers.pop().close()

    # Around a check.

    def tidy(self, keep: bool) -> str:
        """After a check: the device goes on, and what was connected for this check only is closed.

        Args:
            keep: the shared session, which the next check may go on with.
        """
        if self._device is not None:
            self._device.thaw()
        shared = None
        if keep:
            shared, self._shared = self._shared, None
        try:
            self.release()
        finally:
            self._shared = shared
        return ""

    def end(self) -> None:
        """Closes the drivers and stops the device."""
        try:
            self.tidy(keep=False)
        finally:
            if self._device is not None:
                self._device.stop()

    def starved(self) -> dict[int, float]:
        """Process -> how long it has been kept from a CPU by others, s: this and the device's."""
        device = self._device.pid() if self._device is not None else None
        processes = [os.getpid()] if device is None else [os.getpid(), device]
        return {process: host.starved_s(process) for process in processes}

    def starved_since(self, before: dict[int, float]) -> float:
        """How much longer those have been that are there still, s."""
        after = self.starved()
        return sum(after[process] - before[process] for process in before.keys() & after)


def _fitting(
    own: Calibration, driver: Driver, identity: dict[str, str], read: Callable[[], Any] | None
) -> Calibration:
    """The given one, or where there is none what the device holds."""
    try:
        if own == Calibration() and read is not None:
            own = Calibration({"serial": identity["serial"]}, read())
        own.check(driver.description, identity)
    except DriverError as error:
        raise Skipped(f"{error}; give it with --calibration") from None
    return own


def _refuse_other_robots(own: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """What leads to the driver's own device cannot lead elsewhere: there a robot might move."""
    for name in given:
        if "{" in str(own.get(name, "")) and "{" not in str(given[name]):
            raise DriverError(
                f"{name}={given[name]} leads past the simulated device that is started; say "
                "--hardware if a robot is there that may move and fall, or name its --device"
            )


def _filled(value: Any, known: Mapping[str, Any]) -> Any:
    """The value with its {names} filled in; one that is nothing but a name keeps its type."""
    if not isinstance(value, str) or "{" not in value:
        return value
    try:
        whole = known.get(value[1:-1]) if value[0] + value[-1] == "{}" else None
        return value.format_map(known) if whole is None else whole
    except (KeyError, ValueError, IndexError):
        told = ", ".join(known)
        raise DriverError(f"{value!r}: the device has told only {told}") from None
