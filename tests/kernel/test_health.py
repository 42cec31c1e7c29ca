"""Health of inputs and the statistics that stay on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetypilot.nodes.kernel.errors import KernelError
from safetypilot.nodes.kernel.health import Histogram, InputHealth
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.kernel.testing import INTERFACE

MS = 1_000_000


@given(st.lists(st.integers(1, 10**11), min_size=100, max_size=300))
def test_percentiles_are_within_a_bucket_of_the_truth(durations: list[int]) -> None:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    truth = np.percentile(durations, 50, method="inverted_cdf") / 1e3
    got = histogram.percentile_us(50)
    assert got is not None
    assert 0.95 * truth - 0.1 <= got <= 1.1 * truth + 0.1
    assert histogram.summary()["max"] == round(max(durations) / 1e3, 1)


def test_a_percentile_the_sample_cannot_support_is_not_given() -> None:
    histogram = Histogram()
    for _ in range(500):
        histogram.add(1000)
    assert histogram.percentile_us(99) is not None
    assert histogram.percentile_us(99.9) is None
    assert Histogram().percentile_us(50) is None


def test_zero_and_negative_durations_are_counted_not_raised() -> None:
    histogram = Histogram()
    for duration in (0, -5, 1, 2**62):
        histogram.add(duration)
    assert histogram.count == 4


def test_an_input_is_alive_at_rate_and_valid_or_says_which_it_is_not() -> None:
    health = InputHealth(20 * MS, 2.0)
    assert not health.alive(0) and not health.rate_ok() and not health.valid()
    for seq in range(50):
        health.accept(seq, seq * 20 * MS, seq * 20 * MS + 1000)
    now = 49 * 20 * MS + 1000
    assert health.alive(now + 39 * MS) and not health.alive(now + 41 * MS)
    assert health.rate_ok() and health.valid() and health.gaps == 0
    health.accept(53, 53 * 20 * MS, 53 * 20 * MS)
    assert health.gaps == 3
    health.refuse("not finite")
    assert not health.valid()
    assert health.summary(now)["drops"] == {"not finite": 1}


def test_half_the_rate_is_not_ok() -> None:
    health = InputHealth(20 * MS, 2.0)
    for seq in range(50):
        health.accept(seq, seq * 40 * MS, seq * 40 * MS)
    assert not health.rate_ok()


def test_interface_survives_json_and_knows_its_sizes() -> None:
    assert Interface.from_dict(INTERFACE.to_dict()) == INTERFACE
    assert INTERFACE.dims == {"O": 2, "A": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"failsafe": [9.0, 0.0]}, "low <= failsafe <= high"),
        ({"action_low": [float("-inf"), 0.0]}, "finite"),
        ({"action_units": ["N"]}, "action_units has 1 entries"),
        ({"observation_units": ["m"]}, "differ in length"),
    ],
)
def test_a_wrong_interface_is_refused(change: dict[str, list[float]], message: str) -> None:
    with pytest.raises(KernelError, match=message):
        Interface.from_dict(INTERFACE.to_dict() | change)
