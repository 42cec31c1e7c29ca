"""Faults: whenever the device hangs or dies, the driver says so in time and can be closed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import monotonic, monotonic_ns
from typing import Any

from safetypilot.bridge.conformance import host
from safetypilot.bridge.conformance.bench import LONGEST_S, Bench
from safetypilot.bridge.conformance.session import AMPLE_NS, Session, preferred
from safetypilot.bridge.conformance.verdict import Failed, refused
from safetypilot.bridge.contract import Driver, DriverError

_PROMPT_S = 0.1  # for a call of every cycle
_MUST_FAIL = ("connect", "activate", "deactivate", "reset")  # they say what the device has done
_ALL = ("connect", "configure", "check_watchdog", "activate", "read", "write", "deactivate")


def connect_to_nothing(bench: Bench) -> str:
    """Connecting to nothing fails in time, with a DriverError."""
    device, driver = bench.need_device("to be away"), bench.driver()
    device.kill()
    since = monotonic()
    with host.within(LONGEST_S, "connect"):
        error = refused("connecting to nothing", driver.connect)
    took = monotonic() - since
    driver.close()
    driver.close()
    return f"after {took:.2f} s: {error}"


def device_that_hangs(bench: Bench) -> str:
    """Whatever is called while the device hangs ends in time; stopping and closing are safe."""
    device = bench.need_device("to hang")
    names = _ALL if bench.subject.thorough else ("read", "write", "deactivate")
    longest = 0.0
    for name in names:
        driver, call = _before(bench, name)
        device.freeze()
        longest = max(longest, _fails(name, driver, call, "the device hangs"))
        device.thaw()
        bench.release()
    return f"{', '.join(names)}: {longest:.2f} s at most"


def device_that_dies(bench: Bench) -> str:
    """Whatever is called when the device is gone ends in time; stopping and closing are safe."""
    names = _ALL[1:] if bench.subject.thorough else ("read",)
    longest = 0.0
    for name in names:
        device = bench.need_device("to be away")
        driver, call = _before(bench, name)
        device.kill()
        longest = max(longest, _fails(name, driver, call, "the device is gone"))
        bench.release()
    return f"{', '.join(names)}: {longest:.2f} s at most"


def _before(bench: Bench, name: str) -> tuple[Driver, Callable[[], Any]]:
    """A driver in the state in which a call is allowed, and the call."""
    values = bench.values
    if name == "connect":
        driver = bench.driver()
        return driver, driver.connect
    if name == "configure":
        driver = bench.connected()
        return driver, lambda: driver.configure(values)
    if name in ("check_watchdog", "activate"):
        driver = bench.configured()
        if name == "activate":
            return driver, lambda: driver.activate(preferred(driver))
        return driver, driver.check_watchdog
    session = bench.session()
    session.cycle(5)
    driver = session.driver
    if name == "deactivate":
        return driver, driver.deactivate
    return driver, lambda: _cycles(session, read_only=name == "read")


def _cycles(session: Session, read_only: bool) -> None:
    """Reads and writes for a while, none of it for long."""
    driver = session.driver
    for _ in range(50):
        watch = host.Stopwatch()
        driver.read(monotonic_ns() + 2_000_000)
        if not read_only:
            driver.write(session.hold, monotonic_ns() + AMPLE_NS)
        if (took := watch.seconds()) > _PROMPT_S:
            raise Failed(f"a cycle took {took:.2f} s")


def _fails(name: str, driver: Driver, call: Callable[[], Any], why: str) -> float:
    """Makes the call, stops and closes; how long the longest of them took, s."""
    longest = 0.0
    for what, do in ((name, call), ("estop", lambda: driver.estop(why)), ("close", driver.close)):
        since = monotonic()
        with host.within(LONGEST_S, f"{what}, while {why},"):
            if what in _MUST_FAIL:
                refused(f"{what}, while {why},", do)
            elif what == "check_watchdog":
                _saw_nothing(do)
            elif what in ("estop", "close"):
                do()
            else:
                with suppress(DriverError):
                    do()
        longest = max(longest, monotonic() - since)
    driver.close()
    return longest


def _saw_nothing(check: Callable[[], Any]) -> None:
    with suppress(DriverError):
        seen = check()
        if seen:
            raise Failed(f"nobody answers, and the self-test says: {seen}")
