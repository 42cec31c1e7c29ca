"""Silence: a device that nobody commands any more goes over to its failsafe by itself."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

from safetypilot.bridge.conformance import child
from safetypilot.bridge.conformance.bench import Bench
from safetypilot.bridge.conformance.device import STOPPED, Device
from safetypilot.bridge.conformance.verdict import Failed, Skipped

_SPARE_S = 0.1  # beside the declared time: the device's own clock, and its host
_START_S = 30.0  # for a driver's process to become active


def silence_damps(bench: Bench) -> str:
    """Told nothing any more, the device goes over to its failsafe in the declared time."""
    device = _witness(bench)
    session = bench.session()
    session.cycle(session.cycles(0.2))
    return _acted(bench, device, session.wrote_ns, device.starved_s())


def killed_driver_damps(bench: Bench) -> str:
    """A driver whose process is killed leaves a device that goes over to its failsafe."""
    device = _witness(bench)
    bench.driver()  # whatever was connected before is closed
    with TemporaryDirectory() as folder:
        process = child.start(bench, Path(folder))
        try:
            end = monotonic() + _START_S
            while not child.wrote_ns(Path(folder)):
                if process.poll() is not None or monotonic() > end:
                    said = child.complaint(Path(folder))
                    raise Failed(f"in a process of its own it does not get active: {said}")
                sleep(0.01)
            sleep(0.2)
        finally:
            process.kill()
            starved_s = device.starved_s()
            process.wait()
        return _acted(bench, device, child.wrote_ns(Path(folder)), starved_s)


def _witness(bench: Bench) -> Device:
    if bench.description.watchdog_s is None:
        raise Skipped("the device has no watchdog of its own; the bridge's is all there is")
    return bench.witness("whether it damps")


def _acted(bench: Bench, device: Device, silent_ns: int, starved_s: float) -> str:
    """Whether its failsafe came in time; what was seen.

    Args:
        starved_s: of the device, when it was left alone; what is added since may make it later.
    """
    declared_s = bench.description.watchdog_s or 0.0
    event = device.wait_for(STOPPED, silent_ns, 2 * declared_s + 2.0)
    if event is None:
        raise Failed(f"after {2 * declared_s + 2.0:g} s of silence the device still goes on")
    after_s = (event["at_ns"] - silent_ns) / 1e9
    text = f"{event['event']} after {after_s:.3f} s, declared are {declared_s:g} s"
    if event.get("cause") != "silence":
        raise Failed(f"{text}; the cause was {event.get('cause')!r}, not silence")
    latest_s = declared_s + _SPARE_S + device.starved_s() - starved_s
    if not declared_s / 2 <= after_s <= latest_s:
        raise Failed(text)
    return text
