"""Statistics of what came in, whatever the batches it came in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.policies.learn.normaliser import Normaliser


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=6),
    centre=st.floats(-1e6, 1e6),
    spread=st.floats(1e-2, 1e3),
    seed=st.integers(0, 99),
)
def test_batches_make_no_difference(sizes, centre, spread, seed):
    rng = np.random.default_rng(seed)
    data = centre + spread * rng.standard_normal((2, sum(sizes), 3))
    normaliser, start = Normaliser(3, seeds=2), 0
    for size in sizes:
        normaliser.update(torch.from_numpy(data[:, start : start + size]))
        start += size
    if not start:
        return
    assert normaliser.count.ravel().tolist() == [start, start]
    assert np.allclose(normaliser.mean[:, 0], data.mean(axis=1), rtol=1e-6, atol=1e-9)
    wanted = data.std(axis=1)
    wanted[wanted < 1e-6] = 1.0
    assert np.allclose(normaliser.deviation[:, 0], wanted, rtol=1e-4, atol=1e-9)


def test_what_it_knows_nothing_of_goes_through():
    values = torch.tensor([[[1.0, -2.0]]])
    assert torch.equal(Normaliser(2)(values), values)


def test_the_standardised_have_mean_zero_and_deviation_one_and_stay_in_bounds():
    normaliser, data = Normaliser(2, clip=4.0), 5.0 + 0.1 * torch.randn(1, 500, 2)
    normaliser.update(data)
    standard = normaliser(data)
    assert standard.dtype == torch.float32
    assert standard.mean().item() == pytest.approx(0.0, abs=1e-4)
    assert standard.std().item() == pytest.approx(1.0, abs=1e-2)
    assert normaliser(torch.full((1, 1, 2), 1e9)).tolist() == [[[4.0, 4.0]]]


def test_a_constant_keeps_its_scale():
    normaliser = Normaliser(1)
    normaliser.update(torch.full((1, 50, 1), 3.0))
    assert normaliser(torch.tensor([[[4.0]]])).item() == pytest.approx(1.0)


def test_seeds_are_apart():
    normaliser = Normaliser(1, seeds=2)
    normaliser.update(torch.tensor([[[0.0], [2.0]], [[100.0], [300.0]]]))
    assert normaliser.mean.ravel().tolist() == [1.0, 200.0]
    assert normaliser.deviation.ravel().tolist() == [1.0, 100.0]


def test_what_it_knows_is_saved_with_the_weights():
    normaliser, other = Normaliser(2), Normaliser(2)
    normaliser.update(torch.randn(1, 30, 2))
    other.load_state_dict(normaliser.state_dict())
    more = torch.randn(1, 10, 2)
    for each in (normaliser, other):
        each.update(more)
    assert torch.equal(normaliser(more), other(more))
    assert not list(normaliser.parameters())
