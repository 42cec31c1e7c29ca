"""Lagrange multipliers move the right way, stay in bounds, and can be saved."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.policies.learn.multipliers import DualGradient, Pid

excesses = st.lists(st.floats(-1.0, 1.0, width=32), min_size=1, max_size=20)
starts = st.floats(1e-3, 1e4)
gains = st.floats(0.0, 10.0)


def steps(multiplier, values):
    for value in values:
        multiplier.step(torch.tensor([value]))
    return multiplier.value.item()


@settings(deadline=None)
@given(start=starts, values=excesses)
def test_gradient_ascent_stays_positive_and_finite(start, values):
    assert 0.0 < steps(DualGradient(start, 0.05), values) < float("inf")


@settings(deadline=None)
@given(start=starts, values=st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=20))
def test_gradient_ascent_follows_the_sign_of_the_excess(start, values):
    assert steps(DualGradient(start, 0.05), values) > start * (1 - 1e-6)
    assert steps(DualGradient(start, 0.05), [-value for value in values]) < start * (1 + 1e-6)


def test_gradient_ascent_moves_the_logarithm_by_its_rate():
    for size in (1e-3, 1.0):  # by the sign, not the size
        assert steps(DualGradient(10.0, 0.1), [size]) == pytest.approx(10.0 * 1.1052, rel=1e-3)


@given(start=starts, values=excesses)
@settings(deadline=None, max_examples=20)
def test_a_rate_of_nothing_holds(start, values):
    assert steps(DualGradient(start, 0.0), values) == pytest.approx(start, rel=1e-5)


def test_nothing_stays_nothing():
    assert steps(DualGradient(0.0, 0.1), [1.0, 1.0]) == 0.0


def test_seeds_move_apart():
    multiplier = DualGradient(1.0, 0.1, seeds=2)
    multiplier.step(torch.tensor([1.0, -1.0]))
    high, low = multiplier.value.tolist()
    assert high > 1.0 > low


@settings(deadline=None)
@given(before=excesses, after=excesses, start=starts)
def test_gradient_ascent_goes_on_where_it_was_saved(before, after, start):
    one, other = DualGradient(start, 0.05), DualGradient(1.0, 0.05)
    steps(one, before)
    other.restore(one.state())
    assert steps(one, after) == steps(other, after)


@settings(deadline=None)
@given(values=excesses, gain=st.tuples(gains, gains, gains), highest=st.floats(0.0, 100.0))
def test_the_controller_stays_in_its_bounds(values, gain, highest):
    assert 0.0 <= steps(Pid(*gain, highest=highest), values) <= highest * (1 + 1e-6)


def test_the_controller_by_hand():
    pid = Pid(2.0, 0.5, 3.0)
    found = [steps(pid, [value]) for value in (1.0, 0.5, -4.0, 1.0)]
    # proportional + integral (never below 0) + derivative (only of a rise), and never below 0
    assert found == pytest.approx([2 + 0.5 + 3, 1 + 0.75 + 0, 0.0, 2 + 0.5 + 3 * 5])


@settings(deadline=None)
@given(gain=st.tuples(gains, gains, gains), values=st.lists(st.floats(-1.0, 0.0), min_size=1))
def test_the_controller_asks_nothing_while_there_is_room(gain, values):
    falling = sorted(values, reverse=True)  # a rise of the excess would be damped
    assert steps(Pid(*gain), falling) == 0.0


@settings(deadline=None)
@given(before=excesses, after=excesses, gain=st.tuples(gains, gains, gains))
def test_the_controller_goes_on_where_it_was_saved(before, after, gain):
    one, other = Pid(*gain), Pid(*gain)
    steps(one, before)
    other.restore(one.state())
    assert one.value == other.value
    assert steps(one, after) == steps(other, after)
