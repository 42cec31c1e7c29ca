"""The dynamics ensemble learns a plant and how sure it can be of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from safetypilot.models.networks import DynamicsEnsemble, Sizes
from safetypilot.policies.learn import dynamics
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.optimiser import Adam

SIZES = Sizes(2, (-1.0, -1.0), (1.0, 1.0), (16,))


def generator():
    return torch.Generator().manual_seed(0)


def test_the_ensemble_learns_a_linear_plant_and_its_noise():
    ensemble = DynamicsEnsemble(replace(SIZES, hidden=(32, 32)), members=3)
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.uniform(-1, 1, (2000, 4)).astype(np.float32))
    clean = 0.02 * inputs[:, 2:]
    change = clean + 0.002 * torch.from_numpy(rng.standard_normal((2000, 2)).astype(np.float32))
    optimiser = Adam(ensemble.parameters(), 3e-3)
    dynamics.fit(ensemble, optimiser, inputs, change, epochs=60, batch=256, generator=generator())
    rows = inputs.expand(3, -1, -1)
    with torch.no_grad():
        mean, log_variance = ensemble.predict(rows)
        predicted = mean * ensemble.change_scale + ensemble.change_mean
        spread = (0.5 * log_variance).exp() * ensemble.change_scale
    assert float((predicted - clean).square().mean().sqrt()) < 0.001
    assert float(spread.median()) == pytest.approx(0.002, rel=0.3)


def test_no_data_no_fit():
    ensemble = DynamicsEnsemble(SIZES, 2)
    empty = torch.zeros(0, 4), torch.zeros(0, 2)
    with pytest.raises(LearnError, match="no transitions"):
        dynamics.fit(
            *(ensemble, Adam(ensemble.parameters(), 1e-3), *empty),
            epochs=1, batch=8, generator=generator(),
        )  # fmt: skip
