"""Reading: in time, in order, and never something old as something new."""

from __future__ import annotations

from math import isfinite
from time import monotonic_ns, sleep

from safetypilot.bridge.conformance import host
from safetypilot.bridge.conformance.bench import Bench
from safetypilot.bridge.conformance.verdict import Failed, Skipped
from safetypilot.bridge.contract import Driver, DriverError, Measurement

_LATE_MS, _STUCK_MS = 5.0, 200.0  # of most reads, of any
_LEAST_OF_RATE = 0.8  # of the declared rate has to come
_WINDOWS = 8  # of time, one of which the host has to be there for


def reads_in_time(bench: Bench) -> str:
    """A read never ends later than its deadline; one in the past does not wait at all."""
    session = bench.shared()
    period_ms = session.period_ns / 1e6
    late: dict[str, list[float]] = {"over": [], "short": [], "long": []}
    for _ in range(20):
        for name, wait_ms in (("over", -1.0), ("short", 0.1 * period_ms), ("long", 3 * period_ms)):
            late[name].append(_lateness_ms(session.driver, wait_ms))
            session.cycle()
    for name, each in late.items():
        ordered = sorted(each)
        if ordered[-3] > _LATE_MS or ordered[-1] > _STUCK_MS:
            raise Failed(
                f"reads whose deadline was {name} ended {ordered[-3]:.1f} ms after it, one of them "
                f"{ordered[-1]:.1f} ms"
            )
    return f"{max(max(each) for each in late.values()):.2f} ms late at most, in 60 reads"


def _lateness_ms(driver: Driver, wait_ms: float) -> float:
    watch, deadline_ns = host.Stopwatch(), monotonic_ns() + round(wait_ms * 1e6)
    driver.read(deadline_ns)
    return watch.seconds() * 1e3 - max(wait_ms, 0.0)


def only_news_is_fresh(bench: Bench) -> str:
    """What is not new is never told as new; a device that hangs sends nothing new."""
    session = bench.shared()
    driver, before = session.driver, session.cycle()
    count = {True: 0, False: 0}
    for _ in range(60):
        now = driver.read(monotonic_ns())
        _compare(before, now)
        count[now.fresh] += 1
        before = now
        if now.fresh:
            session.cycle()
            before = session.last
    device = bench.device
    if device is not None:
        device.freeze()
        _frozen(driver)
    return f"{count[True]} new and {count[False]} known; a device that hung was noticed"


def _compare(before: Measurement, now: Measurement) -> None:
    if now.fresh and now.seq <= before.seq:
        raise Failed(f"measurement {now.seq} came as new after {before.seq}")
    if not now.fresh and now._replace(fresh=before.fresh) != before:
        raise Failed("what came with fresh=False is not what came last")


def _frozen(driver: Driver) -> None:
    """Reads what was under way, and then nothing new may come."""
    for _ in range(50):
        try:
            if not driver.read(monotonic_ns() + 5_000_000).fresh:
                break
        except DriverError:
            return
    sleep(0.02)
    for _ in range(5):
        try:
            if driver.read(monotonic_ns() + 5_000_000).fresh:
                raise Failed("the device hangs, and the driver tells of new measurements")
        except DriverError:
            return  # which says so, too


def measurements_make_sense(bench: Bench) -> str:
    """Numbers and stamps of what is measured are whole, finite, and never go back."""
    session = bench.shared()
    joints, sensors = len(bench.description.joints), set(bench.description.sensors)
    before, lost = session.last, 0
    for _ in range(100):
        now = session.cycle()
        for name in ("position", "velocity", "effort"):
            numbers = getattr(now, name)
            if type(numbers) is not tuple or len(numbers) != joints:
                raise Failed(f"{name} is a tuple of {joints} numbers, not {numbers!r}")
            if not all(map(isfinite, numbers)):
                raise Failed(f"{name} is not finite: {numbers}")
        if set(now.sensors) != sensors:
            raise Failed(f"sensors {sorted(now.sensors)} came, {sorted(sensors)} are declared")
        _compare(before, now)
        _stamps(before, now)
        lost += max(0, now.seq - before.seq - 1)
        before = now
    return f"100 of {joints} joints, {lost} between them were passed over"


def _stamps(before: Measurement, now: Measurement) -> None:
    if now.received_ns > monotonic_ns():
        raise Failed("received_ns is in the future")
    if now.received_ns < before.received_ns:
        raise Failed("received_ns went back")
    if (now.device_ns < 0) != (before.device_ns < 0):
        raise Failed("the device has a time in some measurements, and in others not")
    if now.device_ns < before.device_ns:
        raise Failed("the device's time went back")


def rate_is_as_declared(bench: Bench) -> str:
    """As many new measurements come as the declared rate promises."""
    session, declared = bench.shared(), bench.description.rate_hz
    seen = []
    for _ in range(_WINDOWS):
        since, news, starved = session.last, 0, bench.starved()
        cycles = session.cycles(0.2)
        for _ in range(cycles):
            news += session.cycle().fresh
        seconds = (session.last.received_ns - since.received_ns) / 1e9
        hz = (session.last.seq - since.seq) / seconds if seconds > 0 else 0.0
        if hz >= _LEAST_OF_RATE * declared and news >= cycles / 2:
            return f"{hz:.0f} a second, declared are {declared:g}; {news} in {cycles} cycles"
        if bench.starved_since(starved) < 0.1 * seconds:
            seen.append(hz)
    if len(seen) < 2:
        raise Skipped("others had the CPU all the time; nobody can tell")
    raise Failed(f"{max(seen):.0f} a second came at most, declared are {declared:g}")
