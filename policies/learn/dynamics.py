"""Fits the probabilistic dynamics ensemble (PETS, Chua et al. 2018, arXiv 1805.12114)."""

from __future__ import annotations

import torch
from torch import Tensor

from safetypilot.models.networks import DynamicsEnsemble
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.optimiser import Adam
from safetypilot.policies.learn.sac import Metrics

_BOUND_WEIGHT = 0.01  # pulls the soft bounds of the log-variance together
_DECAY = (0.00025, 0.0005, 0.0005, 0.00075)  # per layer, as published for three hidden layers


def loss(ensemble: DynamicsEnsemble, inputs: Tensor, change: Tensor) -> Tensor:
    """Gaussian negative log-likelihood, summed over nets, with bounds and decay as published.

    Args:
        ensemble: the nets.
        inputs: observations and actions, (E, N, O + A).
        change: of the observation, physical units, (E, N, O).
    """
    mean, log_variance = ensemble.predict(inputs)
    error = (change - ensemble.change_mean) / ensemble.change_scale - mean
    fit = (error.square() * (-log_variance).exp() + log_variance).mean(dim=(1, 2)).sum()
    bounds = (ensemble.log_variance_max - ensemble.log_variance_min).sum()
    layers = list(ensemble.layers)
    weights = (*_DECAY[: len(layers) - 1], _DECAY[-1])
    decay = sum(w * layer.weight.square().sum() for w, layer in zip(weights, layers, strict=True))
    total: Tensor = fit + _BOUND_WEIGHT * bounds + 0.5 * decay
    return total


def fit(
    ensemble: DynamicsEnsemble,
    optimiser: Adam,
    inputs: Tensor,
    change: Tensor,
    *,
    epochs: int,
    batch: int,
    generator: torch.Generator,
) -> Metrics:
    """Train on inputs (N, O + A) and changes (N, O); each net sees its own bootstrap sample.

    Normalisers are fitted to the data of this call; weights go on from where they are.
    """
    rows = len(inputs)
    if not rows:
        raise LearnError("no transitions to fit the dynamics to; add some first")
    ensemble.fit_normaliser(inputs, change)
    device = inputs.device
    own = torch.randint(rows, (ensemble.members, rows), generator=generator, device=device)
    last = torch.tensor(float("nan"))
    for _ in range(epochs):
        order = torch.rand(own.shape, generator=generator, device=device).argsort(dim=1)
        shuffled = own.gather(1, order)
        for start in range(0, rows, batch):
            chosen = shuffled[:, start : start + batch]  # (E, batch)
            value = loss(ensemble, inputs[chosen], change[chosen])
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            last = value.detach()
    sample = inputs[:2000].expand(ensemble.members, -1, -1)
    with torch.no_grad():
        mean, _ = ensemble.predict(sample)
        wanted = (change[:2000] - ensemble.change_mean) / ensemble.change_scale
        rmse = (mean - wanted).square().mean().sqrt()
    return {"dynamics/loss": last, "dynamics/rmse": rmse}
