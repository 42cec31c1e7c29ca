"""The shadow compares, the guard trips, and a change of model makes no jump."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetypilot.policies.bumpless import Bumpless
from safetypilot.policies.trial import Guard, Limits, Shadow

LOW, HIGH = [-1.0, -2.0], [1.0, 2.0]
actions = st.tuples(st.floats(-1, 1, width=32), st.floats(-2, 2, width=32))


@given(st.lists(st.tuples(actions, actions), min_size=1, max_size=30))
def test_the_shadow_reports_mean_and_largest_difference(pairs: list) -> None:
    shadow = Shadow(LOW, HIGH)
    for live, candidate in pairs:
        assert shadow.add(live, candidate, 2_000, 3_000) == ""
    difference = np.array([np.subtract(c, a, dtype=np.float64) for a, c in pairs])
    report = shadow.report()
    assert report["steps"] == len(pairs)
    assert report["difference_mean"] == pytest.approx(np.abs(difference).mean(), abs=1e-5)
    assert report["difference_max"] == pytest.approx(np.abs(difference).max(), abs=1e-5)
    assert report["bias"] == pytest.approx(difference.mean(), abs=1e-5)
    assert report["live_call_us"]["p50"] == 2.0 and report["call_us"]["p50"] == 3.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 2.5, -2.01])
def test_one_bad_answer_refuses_the_candidate(bad: float) -> None:
    shadow = Shadow(LOW, HIGH)
    assert shadow.add([0, 0], [1.0, 2.0], 1, 1) == ""  # at the limits
    reason = shadow.add([0, 0], [0.0, bad], 1, 1)
    assert ("not finite" if not math.isfinite(bad) else "leaves the limits") in reason
    assert "step 1" in reason


def test_a_p99_needs_a_hundred_calls() -> None:
    shadow = Shadow(0.0, 1.0)
    for _ in range(99):
        shadow.add(0.5, 0.5, 1, 1_000)
    assert shadow.report()["call_us"] == {"p50": 1.0, "p99": None}
    shadow.add(0.5, 0.5, 1, 1_000)
    assert shadow.report()["call_us"]["p99"] == 1.0


def guard(interventions: float = 0.1, risk: float = 0.2, latency: float = 2.0) -> Guard:
    return Guard(Limits(interventions, risk, latency, least=20), window=100)


def fly(judge: Guard, steps: int, share: float, risk: float, call_ns: int) -> None:
    for step in range(steps):
        judge.note_call(call_ns)
        judge.note_command(step < share * steps, risk)


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ((0.1, 0.1, 10_000), ""),
        ((0.19, 0.29, 19_000), ""),
        ((0.3, 0.1, 10_000), "interventions rose from 10.0% to 30.0%"),
        ((0.1, 0.4, 10_000), "mean risk rose from 0.1 to 0.4"),
        ((0.1, 0.1, 30_000), "a call takes 30 us (median), before 10 us"),
    ],
)
def test_the_guard_trips_relative_to_before(after: tuple, reason: str) -> None:
    judge = guard()
    fly(judge, 100, 0.1, 0.1, 10_000)
    judge.begin()
    assert judge.trip() == ""
    fly(judge, 100, *after)
    assert judge.trip().startswith(reason) and bool(judge.trip()) == bool(reason)


def test_a_guard_without_a_past_or_with_few_steps_says_nothing() -> None:
    judge = guard()
    judge.begin()
    fly(judge, 100, 1.0, 1.0, 1)
    assert judge.trip() == ""
    judge = guard()
    fly(judge, 100, 0.0, 0.0, 1)
    judge.begin()
    fly(judge, 19, 1.0, 1.0, 1)
    assert judge.trip() == ""


def test_what_a_kept_model_did_is_the_past_of_the_next() -> None:
    judge = guard()
    fly(judge, 100, 0.0, 0.0, 1)
    judge.begin()
    fly(judge, 100, 0.05, 0.1, 1)
    judge.end(keep=True)
    assert judge.report()["before"]["risk"] == pytest.approx(0.1)
    judge.begin()
    fly(judge, 100, 0.05, 0.25, 1)
    assert judge.trip() == ""  # a rise of 0.15, by the kept one's measure
    judge.end(keep=False)
    assert judge.report()["before"]["risk"] == pytest.approx(0.1)  # that of the one that is back


@given(st.floats(0, 1), st.floats(0, 1), st.integers(20, 100))
def test_the_guard_trips_exactly_beyond_the_limit(before: float, after: float, steps: int) -> None:
    judge = Guard(Limits(0.25, 9.0, 9.0, least=20), window=100)
    for step in range(steps):
        judge.note_command(step < before * steps, math.nan)
    judge.begin()
    for step in range(steps):
        judge.note_command(step < after * steps, math.nan)
    report = judge.report()
    rise = report["after"]["interventions"] - report["before"]["interventions"]
    assert bool(judge.trip()) == (rise > 0.25)
    assert report["after"]["risks"] == 0  # unknown risks are no risks


@given(actions, st.lists(actions, min_size=1, max_size=12), st.integers(0, 8))
def test_bumpless_starts_where_the_last_ended_and_ends_on_its_own(
    last: tuple, following: list, steps: int
) -> None:
    transfer = Bumpless(steps, LOW, HIGH)
    transfer(np.array(last, np.float32))
    transfer.begin()
    for index, action in enumerate(following):
        own = np.array(action, np.float32)
        found = transfer(own)
        assert (found >= np.float32(LOW)).all() and (found <= np.float32(HIGH)).all()
        if index == 0 and steps:
            np.testing.assert_allclose(found, last, atol=1e-6)
        if index >= steps:
            np.testing.assert_array_equal(found, own)


def test_bumpless_takes_even_steps_towards_a_constant_action() -> None:
    transfer = Bumpless(4, LOW, HIGH)
    transfer(np.float32([1.0, 0.0]))
    transfer.begin()
    found = [transfer(np.float32([0.0, 0.0]))[0] for _ in range(6)]
    np.testing.assert_allclose(found, [1.0, 0.75, 0.5, 0.25, 0.0, 0.0])


def test_bumpless_forgets_at_the_start_of_an_episode() -> None:
    transfer = Bumpless(4, LOW, HIGH)
    transfer(np.float32([1.0, 0.0]))
    transfer.begin()
    transfer.forget()
    np.testing.assert_array_equal(transfer(np.float32([0.0, 0.0])), [0.0, 0.0])
    transfer = Bumpless(4, LOW, HIGH)
    transfer.begin()  # nothing has been flown yet
    np.testing.assert_array_equal(transfer(np.float32([0.5, 0.0])), [0.5, 0.0])
