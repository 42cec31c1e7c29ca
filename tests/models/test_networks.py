"""Shapes, ranges and starting weights."""

import math

import pytest
import torch

from safetypilot.models import networks

SIZES = networks.Sizes(3, (-0.1, -0.2), (0.1, 0.4), (16, 16))


@pytest.fixture(autouse=True)
def seeded():
    """Weights start the same in every run, whatever other tests drew before."""
    torch.manual_seed(0)


def generator():
    return torch.Generator().manual_seed(0)


def test_actions_are_inside_the_box_and_densities_finite_even_far_out():
    actor = networks.GaussianActor(SIZES)
    observation = 1e3 * torch.randn(200, 3)
    action, density = actor.sample(observation, generator())
    low, high = torch.tensor(SIZES.low) - 1e-6, torch.tensor(SIZES.high) + 1e-6
    for candidate in (action, actor(observation)):
        assert candidate.shape == (200, 2)
        assert bool(((candidate >= low) & (candidate <= high)).all())
    assert density.shape == (200,)
    assert bool(density.isfinite().all())


def test_density_is_that_of_the_squashed_gaussian():
    sizes = networks.Sizes(1, (-2.0,), (2.0,), (4,))
    actor = networks.GaussianActor(sizes)
    observation = torch.zeros(1, 1)
    action, density = actor.sample(observation, generator())
    mean, log_std = (value.item() for value in actor._distribution(observation))
    unit = action.item() / 2.0
    raw = math.atanh(unit)
    normal = -0.5 * ((raw - mean) / math.exp(log_std)) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
    assert density.detach().item() == pytest.approx(normal - math.log(1 - unit**2), abs=1e-4)


def test_risk_is_a_probability_and_the_larger_twin():
    critic = networks.TwinCritic(SIZES, probability=True)
    observation, action = 100 * torch.randn(50, 3), torch.randn(50, 2)
    twins = critic(observation, action)
    assert twins.shape == (2, 50)
    assert bool(((twins >= 0) & (twins <= 1)).all())
    assert torch.equal(critic.risk(observation, action), torch.maximum(twins[0], twins[1]))
    assert not torch.equal(twins[0], twins[1])


def test_the_twins_are_independent_networks():
    critic = networks.TwinCritic(SIZES, probability=False)
    critic(torch.randn(4, 3), torch.randn(4, 2))[0].sum().backward()
    for layer in critic.layers:
        assert layer.weight.grad[0].abs().sum() > 0
        assert layer.weight.grad[1].abs().sum() == 0


def test_recovery_is_deterministic_unless_gaussian():
    observation = torch.randn(5, 3)
    plain, noisy = networks.RecoveryActor(SIZES), networks.RecoveryActor(SIZES, gaussian=True)
    assert torch.equal(plain.sample(observation, generator()), plain(observation))
    assert not torch.equal(noisy.sample(observation, generator()), noisy(observation))


def test_dynamics_bounds_and_noise():
    ensemble = networks.DynamicsEnsemble(SIZES, members=4)
    with torch.no_grad():
        _, log_variance = ensemble.predict(1e4 * torch.randn(4, 7, 5))
    # two soft clamps: the second may lift the upper bound by softplus(min - max), 3e-5
    assert float(log_variance.min()) >= networks.LOG_VARIANCE_RANGE[0] - 1e-4
    assert float(log_variance.max()) <= networks.LOG_VARIANCE_RANGE[1] + 1e-4
    observation, action = torch.randn(4, 7, 3), torch.randn(4, 7, 2)
    noise = torch.randn(4, 7, 3)
    calm = ensemble(observation, action, torch.zeros_like(noise))
    assert calm.shape == (4, 7, 3)
    assert not torch.equal(calm, ensemble(observation, action, noise))


def test_weights_start_xavier_and_biases_zero():
    critic = networks.TwinCritic(networks.Sizes(3, (-1.0,), (1.0,), (64, 64)), False)
    for layer in critic.layers:
        bound = math.sqrt(6.0 / sum(layer.weight.shape[1:]))
        assert float(layer.weight.detach().abs().max()) <= bound
        assert float(layer.weight.detach().abs().max()) > 0.8 * bound
        assert float(layer.bias.detach().abs().max()) == 0.0


def test_a_constant_observation_keeps_its_scale():
    scaling = networks.Scaling(SIZES)
    data = torch.randn(100, 3)
    data[:, 1] = 5.0
    scaling.fit(data)
    assert scaling.observation_scale[1] == 1.0
    assert bool(scaling.observation(data).isfinite().all())
    assert "observation_mean" in scaling.state_dict()
