"""The list of checks, and how to run them: from the command line, or from a driver's own tests.

from safetypilot.bridge.conformance import suite

@pytest.fixture(scope="module")
def bench():
    with suite.bench(suite.Subject("my_arm.py:MyArmDriver")) as made:
        yield made

@pytest.mark.parametrize("check", suite.CHECKS, ids=suite.name)
def test_conformance(check, bench):
    outcome = suite.run(check, bench)
    if outcome.verdict is suite.Verdict.SKIPPED:
        pytest.skip(outcome.seen)
    assert outcome.verdict is suite.Verdict.PASSED, outcome.seen
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from safetypilot.bridge.conformance import (
    faults,
    host,
    link,
    offline,
    order,
    reading,
    silence,
    soak,
    stopping,
    taking,
    writing,
)
from safetypilot.bridge.conformance.bench import Bench, Subject
from safetypilot.bridge.conformance.verdict import Failed, Outcome, Skipped, Verdict
from safetypilot.bridge.contract import DriverError

__all__ = [
    "CHECKS",
    "CONNECTS",
    "Bench",
    "Check",
    "Outcome",
    "Subject",
    "Verdict",
    "bench",
    "name",
    "run",
]

Check = Callable[[Bench], str]  # gives what was seen; raises Failed or Skipped

CHECKS: tuple[Check, ...] = (
    offline.description_is_readable,
    offline.numbers_fit,
    offline.joints_are_limited,
    offline.options_are_explained,
    link.connect_identifies,
    link.foreign_calibration,
    taking.configure_moves_nothing,
    taking.watchdog_can_be_provoked,
    taking.activation_is_bumpless,
    reading.reads_in_time,
    reading.measurements_make_sense,
    reading.rate_is_as_declared,
    taking.commands_move_their_joint,
    writing.not_finite_is_refused,
    writing.huge_has_no_effect,
    writing.wrong_length_is_refused,
    writing.wrong_mode_is_refused,
    writing.too_late_is_refused,
    writing.duplicates_are_harmless,
    writing.time_that_stands_moves_nothing,
    reading.only_news_is_fresh,
    taking.deactivation_is_gentle,
    taking.activates_again,
    link.connect_twice,
    link.close_at_any_time,
    link.reconnects,
    order.calls_without_a_device,
    order.calls_out_of_order,
    order.random_walk,
    stopping.stops_from_every_state,
    stopping.stops_within_a_period,
    stopping.stays_stopped,
    stopping.stops_from_another_thread,
    stopping.stops_from_a_signal,
    stopping.resets_only_what_answers,
    silence.silence_damps,
    silence.killed_driver_damps,
    faults.device_that_hangs,
    soak.soaks,
    faults.device_that_dies,
    faults.connect_to_nothing,
)
CONNECTS: Check = link.connect_identifies  # without which there is little to check
_TRIES = 3  # for a check that failed while others had the CPU
_STARVED_S = 0.01  # so long they must have had it
_AGAIN_S = 8.0  # what took longer is not made again
_LONGEST_S = 300.0  # for one check, beside the soak


def name(check: Check) -> str:
    """A check's name."""
    return check.__name__


def title(check: Check) -> str:
    """What a check asks for, in a sentence."""
    return (inspect.getdoc(check) or "").partition("\n")[0]


@contextmanager
def bench(subject: Subject) -> Iterator[Bench]:
    """A bench for a subject; afterwards everything it has started is gone.

    Raises:
        DriverError: there is no such driver or option.
    """
    with TemporaryDirectory(prefix="bridge-") as folder:
        made = Bench(subject, Path(folder))
        try:
            yield made
        finally:
            made.end()


def run(check: Check, bench: Bench) -> Outcome:
    """Makes one check; never raises for what a driver does."""
    since, earlier = monotonic(), list[str]()
    while True:
        starved, began = bench.starved(), monotonic()
        verdict, seen = _attempt(check, bench)
        may = len(earlier) < _TRIES - 1 and monotonic() - began < _AGAIN_S
        if verdict is not Verdict.FAILED or not may or bench.starved_since(starved) < _STARVED_S:
            break
        earlier.append(seen)
    took = monotonic() - since
    return Outcome(name(check), title(check), verdict, seen, took, tuple(earlier))


def _attempt(check: Check, bench: Bench) -> tuple[Verdict, str]:
    longest_s = _LONGEST_S + 3 * bench.subject.cycles / bench.description.rate_hz
    verdict, seen = _judged(lambda: check(bench), longest_s)
    keep = verdict is not Verdict.FAILED
    tidied, trouble = _judged(lambda: bench.tidy(keep), _LONGEST_S)
    if keep and tidied is Verdict.FAILED:
        return tidied, f"after the check: {trouble}"
    return verdict, seen


def _judged(work: Callable[[], str], longest_s: float) -> tuple[Verdict, str]:
    try:
        with host.within(longest_s, "the check"):
            return Verdict.PASSED, work()
    except Skipped as reason:
        return Verdict.SKIPPED, str(reason)
    except (Failed, DriverError) as reason:
        return Verdict.FAILED, str(reason)
    except Exception as error:  # noqa: BLE001  a driver may raise anything, which is a finding
        return Verdict.FAILED, _told(error)


def _told(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    return f"{type(error).__name__} in {where} instead of a DriverError: {error}"
