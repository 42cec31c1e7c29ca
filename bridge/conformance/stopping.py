"""The e-stop: from every state, thread and signal, at once, and until a person resets it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, monotonic_ns, sleep

from safetypilot.bridge.conformance import host
from safetypilot.bridge.conformance.bench import LONGEST_S, Bench
from safetypilot.bridge.conformance.device import STOPPED
from safetypilot.bridge.conformance.session import AMPLE_NS, staying
from safetypilot.bridge.conformance.verdict import Failed, Skipped, refused
from safetypilot.bridge.contract import Driver, DriverError

_PROMPT_S = 0.05  # for a call that waits for nothing, on a host that does other things, too
_BLOCKED_S = 0.4  # a read that nothing ends
_SPARE_S = 0.02  # beside the command period, for the device's own clock and its host


def _stop(driver: Driver, when: str) -> float:
    """Stops it; how long the call took, s."""
    watch = host.Stopwatch()
    with host.within(LONGEST_S, f"estop {when}"):
        driver.estop(f"checked {when}")
    return watch.seconds()


def _refused_now(driver: Driver, when: str) -> None:
    setpoint = staying(driver)
    refused(f"a write {when}", lambda: driver.write(setpoint, monotonic_ns() + AMPLE_NS))


def stops_from_every_state(bench: Bench) -> str:
    """An e-stop comes through from every state, and as often as it is called."""
    took = []
    for state, make in (
        ("disconnected", bench.driver),
        ("connected", bench.connected),
        ("configured", bench.configured),
        ("active", lambda: bench.session().driver),
    ):
        driver = make()
        for time in ("once", "twice"):
            took.append(_stop(driver, f"{time} while {state}"))
        _refused_now(driver, f"after an e-stop while {state}")
        driver.close()
        took.append(_stop(driver, "after close"))
    if sorted(took)[-2] > _PROMPT_S:
        raise Failed(f"it took {max(took) * 1e3:.0f} ms; it must not wait for anything")
    return f"{len(took)} times, {max(took) * 1e3:.2f} ms at most"


def stops_within_a_period(bench: Bench) -> str:
    """Within one command period the device itself has stopped."""
    device = bench.witness("when it stops")
    session = bench.session()
    session.cycle(10)
    bound_s = session.period_ns / 1e9 + _SPARE_S
    starved_s, since_ns = device.starved_s(), monotonic_ns()
    session.driver.estop("checked for how fast it is")
    event = device.wait_for(STOPPED, since_ns, 2.0 + (bench.description.watchdog_s or 0.0))
    if event is None:
        raise Failed("the device goes on")
    after_s = (event["at_ns"] - since_ns) / 1e9
    if event.get("cause") == "silence":
        raise Failed(f"nothing but its own watchdog stopped it, after {after_s:.3f} s")
    if after_s - (device.starved_s() - starved_s) > bound_s:
        raise Failed(
            f"the device stopped after {after_s * 1e3:.1f} ms; {bound_s * 1e3:.1f} at most"
        )
    return f"after {after_s * 1e3:.2f} ms"


def stays_stopped(bench: Bench) -> str:
    """Stopped, it stays so until a reset, and a reset alone activates nothing."""
    session = bench.session()
    session.cycle(5)
    driver, since_ns = session.driver, monotonic_ns()
    driver.estop("checked for how long it holds")
    end = monotonic() + 2 * (bench.description.watchdog_s or 0.1)
    while monotonic() < end:
        _refused_now(driver, "after the e-stop")
        with suppress(DriverError):
            driver.read(monotonic_ns())
        sleep(0.01)
    with suppress(DriverError):
        bench.configure(driver)
        bench.activate(driver)
        raise Failed("after the e-stop it could be activated without a reset")
    _refused_now(driver, "after the e-stop and a configure")
    device = bench.device
    told = device.events(since_ns) if device is not None else []
    if any(event["event"] in ("active", "recovered") for event in told):
        raise Failed("after the e-stop the device went on by itself")
    with host.within(LONGEST_S, "reset"):
        driver.reset()
    _refused_now(driver, "after the reset")
    bench.configure(driver)
    bench.activate(driver).cycle(5)
    return "until the reset, and then until it was activated again"


def resets_only_what_answers(bench: Bench) -> str:
    """A device that does not answer is not reset, and the latch stays."""
    device = bench.need_device("to hang")
    session = bench.session()
    session.cycle(5)
    driver = session.driver
    driver.estop("checked for its reset")
    sleep(0.02)
    device.freeze()
    _drain(driver)
    with host.within(LONGEST_S, "reset"):
        error = refused("the reset of a device that hangs", driver.reset)
    _refused_now(driver, "after a reset that failed")
    device.thaw()
    return str(error)


def stops_from_another_thread(bench: Bench) -> str:
    """An e-stop from another thread does not wait for a read that does."""
    return _while_it_reads(bench, lambda stop: stop())


def stops_from_a_signal(bench: Bench) -> str:
    """An e-stop from a signal handler does not wait for the read that it interrupts."""
    if threading.current_thread() is not threading.main_thread():
        raise Skipped("signals come to the main thread, and this is another")
    main, actions = threading.get_ident(), list[Callable[[], None]]()

    def send(stop: Callable[[], None]) -> None:
        actions.append(stop)
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda *_: actions[0]())
    try:
        return _while_it_reads(bench, send)
    finally:
        signal.signal(signal.SIGUSR1, before)


def _while_it_reads(bench: Bench, call: Callable[[Callable[[], None]], None]) -> str:
    """Stops a driver whose device hangs while it waits for a measurement.

    Args:
        call: has the e-stop made, which it is given, from wherever it is to come.
    """
    device, session = bench.need_device("to hang"), bench.session()
    session.cycle(5)
    driver, asked, took = session.driver, list[float](), list[tuple[float, float]]()

    def stop() -> None:
        watch = host.Stopwatch()
        driver.estop("checked while a read waits")
        took.append((watch.seconds(), monotonic() - asked[0]))

    def ask() -> None:
        sleep(_BLOCKED_S / 4)
        asked.append(monotonic())
        call(stop)

    device.freeze()
    stopper = threading.Thread(target=ask, daemon=True)
    stopper.start()
    try:
        with host.within(5.0, "the read, or the e-stop that interrupts it,"):
            blocked_s = _block(driver)
    finally:
        stopper.join(5.0)  # its signal must not find another handler
    if not took:
        raise Failed("the e-stop never returned")
    own_s, whole_s = took[0]
    if own_s > 2 * _PROMPT_S or whole_s > _BLOCKED_S / 2:
        raise Failed(f"it took {whole_s * 1e3:.0f} ms while a read waited for {blocked_s:.2f} s")
    _refused_now(driver, "after it")
    device.thaw()
    return f"{whole_s * 1e3:.2f} ms, while a read waited for {blocked_s:.2f} s"


def _block(driver: Driver) -> float:
    """Waits for something new until nothing comes; how long that took."""
    since = monotonic()
    _drain(driver, _BLOCKED_S)
    return monotonic() - since


def _drain(driver: Driver, wait_s: float = 0.05) -> None:
    """Reads what was under way, until a read has waited in vain."""
    with suppress(DriverError):  # a driver may notice that it was stopped
        for _ in range(50):
            since = monotonic()
            news = driver.read(monotonic_ns() + round(wait_s * 1e9)).fresh
            if not news or monotonic() - since >= wait_s:
                break
