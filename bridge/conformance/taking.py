"""Taking over and letting go: configure, activate, a first motion, deactivate."""

from __future__ import annotations

from time import monotonic, monotonic_ns, sleep

from safetypilot.bridge.conformance import host
from safetypilot.bridge.conformance.bench import LONGEST_S, Bench
from safetypilot.bridge.conformance.motion import Mover, Nudge, at_rest, fastest, watched
from safetypilot.bridge.conformance.session import farthest
from safetypilot.bridge.conformance.verdict import Failed, Skipped
from safetypilot.bridge.contract import Joint, Mode

_WATCHED_S = 0.1  # after something that must not move anything
_PUSH = 0.05  # of its largest effort, by a joint that cannot move
_SINKING = 1.0  # rad/s or m/s: faster it is not let down, it falls


def configure_moves_nothing(bench: Bench) -> str:
    """Configuring enables no torque, moves nothing, and counts from zero."""
    driver = bench.connected()
    before = at_rest(driver, bench.subject.still)
    for name in driver.counters:
        driver.counters[name] += 1
    since_ns = monotonic_ns()
    bench.configure(driver)
    counted = {name: count for name, count in driver.counters.items() if count}
    moved = watched(driver, before.position, _WATCHED_S)
    if counted:
        raise Failed(f"counters begin at zero, but there are {counted}")
    if moved > bench.subject.still:
        raise Failed(f"a joint moved by {moved:.3f}")
    device = bench.device
    if device is not None and any(its["event"] == "active" for its in device.events(since_ns)):
        raise Failed("the device says that it is active")
    return f"moved {moved:.4f} at most"


def watchdog_can_be_provoked(bench: Bench) -> str:
    """The self-test of the watchdog sees it act, and leaves the device ready."""
    driver = bench.configured()
    since = monotonic()
    with host.within(LONGEST_S, "check_watchdog"):
        seen = driver.check_watchdog()
    took = monotonic() - since
    bench.activate(driver).cycle(5)
    if not seen:
        raise Skipped("the driver cannot provoke its device's watchdog")
    return f"{seen} ({took:.2f} s)"


def activation_is_bumpless(bench: Bench) -> str:
    """Activated and told to stay, no joint moves, in any mode; before, there is no torque."""
    driver, seen, spans = bench.configured(), [], []
    since_ns = monotonic_ns()
    for mode in bench.description.modes:
        before = at_rest(driver, bench.subject.still)
        began_ns = monotonic_ns()
        session = bench.activate(driver, mode)
        step = farthest(session.start.position, before.position)
        for _ in range(session.cycles(_WATCHED_S)):
            session.cycle()
            step = max(step, farthest(session.last.position, before.position))
        with host.within(LONGEST_S, "deactivate"):
            driver.deactivate()
        spans.append((began_ns, monotonic_ns()))
        if step > bench.subject.still:
            raise Failed(f"activated in {mode}, a joint moved by {step:.3f}")
        seen.append(f"{mode} {step:.4f}")
    device = bench.device
    for event in device.events(since_ns) if device is not None else ():
        within = any(low <= event["at_ns"] <= high for low, high in spans)
        if event["event"] == "active" and not within:
            raise Failed("the device was active while the driver was not")
    return "moved at most: " + ", ".join(seen)


def commands_move_their_joint(bench: Bench) -> str:
    """A command moves the joint that it names, and no other, to where it says."""
    session = bench.shared()
    if session.mode is Mode.EFFORT:
        raise Skipped("an effort says nothing of where it leads")
    mover, last = Mover(session), len(bench.description.joints) - 1
    return ", ".join(
        _judged(bench.description.joints[index], mover.nudge(index))
        for index in sorted({0, last // 2, last})
    )


def _judged(joint: Joint, nudge: Nudge) -> str:
    """What one joint did; one that is blocked has to push, at least."""
    asked = f"{joint.name} {nudge.asked:+.2f}"
    if nudge.moved / nudge.asked >= 0.5:
        if nudge.others_moved > abs(nudge.moved) / 2:
            raise Failed(f"{asked} was asked for, and another moved by {nudge.others_moved:.3f}")
        return f"{asked}: {nudge.moved:+.3f}"
    pushed = nudge.pushed if nudge.asked > 0 else -nudge.pushed
    if pushed < _PUSH * joint.effort or pushed < nudge.others_pushed:
        raise Failed(
            f"{asked} was asked for, and it moved by {nudge.moved:+.3f}, with {nudge.pushed:+.2f} "
            f"more effort; another changed its effort by {nudge.others_pushed:.2f}"
        )
    return f"{asked}: {nudge.moved:+.3f}, blocked, with {nudge.pushed:+.2f} more effort"


def deactivation_is_gentle(bench: Bench) -> str:
    """Deactivating lets nothing drop, by default."""
    session = bench.session()
    session.cycle(5)
    if session.mode is not Mode.EFFORT:
        Mover(session).lift()
    since_ns, before = monotonic_ns(), session.last
    with host.within(LONGEST_S, "deactivate"):
        session.driver.deactivate()
    took = (monotonic_ns() - since_ns) / 1e9
    speed = fastest(session.driver, before, 0.3)
    device = bench.device
    if device is not None and any(its["event"] == "limp" for its in device.events(since_ns)):
        raise Failed("the device let its joints go: that is for an option, not the default")
    if speed > _SINKING:
        raise Failed(f"a joint fell at {speed:.2f} per second")
    return f"took {took:.2f} s, {speed:.2f} per second at most"


def activates_again(bench: Bench) -> str:
    """Deactivated, it can be activated again at once, and after a pause."""
    session = bench.session()
    for pause in (0.0, 0.2):
        session.cycle(5)
        with host.within(LONGEST_S, "deactivate"):
            session.driver.deactivate()
        sleep(pause)
        session = bench.activate(session.driver)
    session.cycle(5)
    return "at once and after 0.2 s"
