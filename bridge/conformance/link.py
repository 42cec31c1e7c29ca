"""Coming and going: connect, close, and who is there at all."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import replace
from functools import partial
from time import monotonic, sleep
from typing import Any

from safetypilot.bridge.calibration import Calibration
from safetypilot.bridge.conformance import host
from safetypilot.bridge.conformance.bench import LONGEST_S, Bench
from safetypilot.bridge.conformance.verdict import Failed, Skipped, refused
from safetypilot.bridge.contract import DriverError

_NAMED = ("model", "serial", "firmware")


def connect_identifies(bench: Bench) -> str:
    """Connecting names model, serial and firmware, and changes nothing that was declared."""
    driver = bench.driver()
    declared, since = driver.description, monotonic()
    with host.within(LONGEST_S, "connect"):
        identity = driver.connect()
    took = monotonic() - since
    for name in _NAMED:
        if not isinstance(identity.get(name), str) or not identity[name]:
            raise Failed(f"the identity has no {name!r}: {identity!r}")
    if driver.description != declared:
        raise Failed("connected, the driver declares something else than before")
    return f"{', '.join(identity[name] for name in _NAMED)}, in {took:.2f} s"


def connect_twice(bench: Bench) -> str:
    """A second connect is refused, and the first goes on."""
    driver = bench.configured()
    error = refused("a second connect", driver.connect)
    session = bench.activate(driver)
    refused("a connect while active", driver.connect)
    session.cycle(3)
    return str(error)


def close_at_any_time(bench: Bench) -> str:
    """Closing is safe when nothing is connected, half-way, while active, and twice."""
    driver = bench.driver()
    driver.close()
    driver.connect()
    driver.close()
    driver.close()
    session = bench.session()
    session.cycle(5)
    with host.within(LONGEST_S, "close"):
        session.driver.close()
    session.driver.close()
    return "unconnected, connected, active, closed"


def reconnects(bench: Bench) -> str:
    """Connected and closed over and over, it leaves no open file and no thread behind."""
    driver = bench.driver()
    driver.connect()
    driver.close()
    before, rounds = _held(), 5
    for _ in range(rounds):
        with host.within(LONGEST_S, "connect"):
            driver.connect()
        driver.close()
    after = _settled(before)
    if after[0] > before[0] or after[1] > before[1]:
        raise Failed(
            f"after {rounds} times there are {after[0] - before[0]:+d} open files and "
            f"{after[1] - before[1]:+d} threads"
        )
    return f"{rounds} times, {after[0]} open files, {after[1]} threads"


def _held() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), threading.active_count()


def _settled(before: tuple[int, int]) -> tuple[int, int]:
    """Open files and threads, once those that are ending have ended."""
    end = monotonic() + 1.0
    while (held := _held()) != before and monotonic() < end:
        sleep(0.02)
    return held


def foreign_calibration(bench: Bench) -> str:
    """The calibration of another device is refused, and so is half of one."""
    if not bench.description.calibration:
        raise Skipped("the driver asks for no calibration")
    driver = bench.connected()
    own = bench.calibration or Calibration()

    def check(calibration: Calibration) -> dict[str, Any]:
        return calibration.check(driver.description, bench.identity)

    check(own)
    other = replace(own, device={**own.device, "serial": "of another"})
    error = refused("the calibration of another device", partial(check, other))
    for name in own.values:
        rest = {key: value for key, value in own.values.items() if key != name}
        refused(f"a calibration without {name}", partial(check, replace(own, values=rest)))
    with suppress(DriverError):  # no other error, that is
        driver.configure({})
    return str(error)
