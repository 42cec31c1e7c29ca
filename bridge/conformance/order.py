"""Calls in every order: each is refused where it makes no sense, and nothing moves by it."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, monotonic_ns
from typing import Any

from safetypilot.bridge.conformance import host
from safetypilot.bridge.conformance.bench import LONGEST_S, Bench
from safetypilot.bridge.conformance.session import AMPLE_NS, Session, preferred, staying
from safetypilot.bridge.conformance.verdict import Failed, refused
from safetypilot.bridge.contract import Driver, DriverError, Measurement
from safetypilot.bridge.lifecycle import Lifecycle, State

_Calls = dict[str, Callable[[], Any]]


def _calls(bench: Bench, driver: Driver) -> _Calls:
    """Every call that may be out of order, ready to be made."""
    mode = preferred(driver)
    return {
        "configure": lambda: driver.configure(bench.values),
        "check_watchdog": driver.check_watchdog,
        "activate": lambda: driver.activate(mode),
        "read": lambda: driver.read(monotonic_ns()),
        "write": lambda: driver.write(staying(driver), monotonic_ns() + AMPLE_NS),
        "deactivate": driver.deactivate,
        "reset": driver.reset,
    }


def _refuse(calls: _Calls, when: str, *names: str) -> int:
    for name in names:
        with host.within(LONGEST_S, name):
            refused(f"{name}, {when},", calls[name])
    return len(names)


def calls_without_a_device(bench: Bench) -> str:
    """Before connecting and after closing every call is a DriverError."""
    driver = bench.driver()
    calls = _calls(bench, driver)
    count = _refuse(calls, "before connect", *calls)
    driver.connect()
    driver.close()
    return f"{count + _refuse(calls, 'after close', *calls)} calls"


def calls_out_of_order(bench: Bench) -> str:
    """Whatever a state does not allow is a DriverError, and moves nothing."""
    driver = bench.connected()
    calls = _calls(bench, driver)
    count = _refuse(calls, "not configured", "check_watchdog", "activate", "write")
    bench.release()
    driver = bench.configured()
    calls = _calls(bench, driver)
    count += _refuse(calls, "not active", "write")
    with suppress(DriverError):
        driver.deactivate()  # what is not active may be deactivated, or not
    session = bench.activate(driver)
    session.start = session.cycle(session.cycles(0.1))
    for name in ("configure", "activate", "check_watchdog"):
        count += _refuse(calls, "while active", name)
        session.cycle(2)
    if session.moved() > bench.subject.still:
        raise Failed(f"calls that were refused moved a joint by {session.moved():.3f}")
    return f"{count} calls, moved {session.moved():.4f} at most"


_STEPS = ("connect", "configure", "activate", "deactivate", "fault", "estop", "reset", "close")
_WEIGHTS = (6, 6, 6, 3, 1, 1, 3, 1)  # so that it comes to stand, and not only to fall


def random_walk(bench: Bench) -> str:
    """A random walk through the life cycle: what is allowed works, and the rest is refused."""
    seconds, least, most = (60.0, 100, 5000) if bench.subject.thorough else (2.0, 16, 80)
    generator = random.Random(0)
    bench.configured()  # whatever the device was left in
    driver = bench.driver()
    with TemporaryDirectory() as folder:
        life = Lifecycle(driver, Path(folder) / "estop", monotonic_ns, lambda transition: None)
        walk = _Walk(bench, life)
        end = monotonic() + seconds
        while walk.made < least or (monotonic() < end and walk.made < most):
            walk.step(generator.choices(_STEPS, _WEIGHTS)[0])
        life.close("the walk ends")
    return f"{walk.made} calls, {walk.refused} of them refused, active {walk.active} times"


class _Walk:
    def __init__(self, bench: Bench, life: Lifecycle) -> None:
        self._bench, self._life = bench, life
        self._mode = preferred(life.driver)
        self._session: Session | None = None
        self._latched = False  # the device, which may have been left so by a close
        self.made = self.refused = self.active = 0

    def step(self, call: str) -> None:
        """One call; what it leads to is looked at."""
        life, before = self._life, self._life.state
        arguments: tuple[Any, ...] = ("a random walk",)
        if call == "configure":
            arguments = (self._bench.values, *arguments)
        elif call == "activate":
            arguments = (self._mode, *arguments)
        self.made += 1
        start = None
        try:
            with host.within(LONGEST_S, call):
                start = getattr(life, call)(*arguments)
        except DriverError as error:
            if not (str(error).startswith(f"cannot {call} while") or self._latched):
                raise Failed(f"{call} while {before}: {error}") from None
            self.refused += 1
        else:
            if life.connected and call in ("fault", "estop", "reset"):
                self._latched = call != "reset"
        self._look(start)

    def _look(self, start: Measurement | None) -> None:
        """Active, it can be moved; otherwise it cannot."""
        driver = self._life.driver
        if self._life.state is State.ACTIVE:
            if start is not None:
                self.active += 1
                self._session = Session(driver, self._mode, start)
            if self._session is not None:
                self._session.cycle(3)
        elif self._life.connected:
            setpoint = staying(driver)
            refused(
                f"a write while {self._life.state}",
                lambda: driver.write(setpoint, monotonic_ns() + AMPLE_NS),
            )
