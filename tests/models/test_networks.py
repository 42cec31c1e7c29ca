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
    observation = 1e3 * torch.randn(1, 200, 3)
    action, density = actor.sample(observation, generator())
    low, high = torch.tensor(SIZES.low) - 1e-6, torch.tensor(SIZES.high) + 1e-6
    for candidate in (action, actor(observation)):
        assert candidate.shape == (1, 200, 2)
        assert bool(((candidate >= low) & (candidate <= high)).all())
    assert density.shape == (1, 200)
    assert bool(density.isfinite().all())


def test_density_is_that_of_the_squashed_gaussian():
    sizes = networks.Sizes(1, (-2.0,), (2.0,), (4,))
    actor = networks.GaussianActor(sizes)
    observation = torch.zeros(1, 1, 1)
    action, density = actor.sample(observation, generator())
    mean, log_std = (value.item() for value in actor.distribution(observation))
    unit = action.item() / 2.0
    raw = math.atanh(unit)
    normal = -0.5 * ((raw - mean) / math.exp(log_std)) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
    assert density.detach().item() == pytest.approx(normal - math.log(1 - unit**2), abs=1e-4)


def test_risk_is_a_probability_and_the_larger_twin():
    critic = networks.TwinCritic(SIZES, probability=True)
    observation, action = 100 * torch.randn(1, 50, 3), torch.randn(1, 50, 2)
    twins = critic(observation, action)
    assert twins.shape == (1, 2, 50)
    assert bool(((twins >= 0) & (twins <= 1)).all())
    assert torch.equal(critic.risk(observation, action), torch.maximum(*twins.unbind(1)))
    assert not torch.equal(*twins.unbind(1))


def test_the_twins_are_independent_networks():
    critic = networks.TwinCritic(SIZES, probability=False)
    critic(torch.randn(1, 4, 3), torch.randn(1, 4, 2))[:, 0].sum().backward()
    for weight, _ in critic.network.layers:
        assert weight.grad[0].abs().sum() > 0
        assert weight.grad[1].abs().sum() == 0


def test_recovery_is_deterministic_without_a_deviation():
    observation = torch.randn(1, 5, 3)
    plain, noisy = networks.RecoveryActor(SIZES), networks.RecoveryActor(SIZES, 0.1)
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
    for weight, bias in critic.network.layers:
        bound = math.sqrt(6.0 / sum(weight.shape[1:]))
        assert float(weight.detach().abs().max()) <= bound
        assert float(weight.detach().abs().max()) > 0.8 * bound
        assert float(bias.detach().abs().max()) == 0.0


def test_a_constant_observation_keeps_its_scale():
    scaling = networks.Scaling(SIZES)
    data = torch.randn(100, 3)
    data[:, 1] = 5.0
    scaling.fit(data)
    assert scaling.observation_scale[0, 0, 1] == 1.0
    assert bool(scaling.observation(data).isfinite().all())
    assert "observation_mean" in scaling.state_dict()


def test_one_seeds_network_is_taken_out_whole():
    """Of every kind: what it makes of an observation is what the three of them made of it."""
    sizes = networks.Sizes(3, SIZES.low, SIZES.high, (16, 16), seeds=3)
    observation, action = torch.randn(3, 7, 3), torch.randn(3, 7, 2)
    inputs = {
        networks.GaussianActor(sizes): (observation,),
        networks.RecoveryActor(sizes, 0.1): (observation,),
        networks.TwinCritic(sizes, probability=True): (observation, action),
        networks.TwinCritic(sizes, probability=False, critics=3): (observation, action),
    }
    for network, given in inputs.items():
        for seed in range(3):
            network.scaling.fit(torch.randn(20, 3) + seed, seed)
        with torch.no_grad():
            together = network(*given)
            for seed in range(3):
                alone = networks.member(network, seed)
                assert alone.sizes.seeds == 1
                made = alone(*(each[seed : seed + 1] for each in given))
                torch.testing.assert_close(made[0], together[seed], atol=1e-6, rtol=1e-5)


def test_a_member_is_a_copy():
    network = networks.GaussianActor(SIZES)
    alone = networks.member(network, 0)
    with torch.no_grad():
        next(alone.parameters()).add_(1.0)
    assert not torch.equal(next(alone.parameters()), next(network.parameters()))


def test_the_risk_of_one_seed_alone_is_its_risk_among_others():
    sizes = networks.Sizes(3, SIZES.low, SIZES.high, (16, 16), seeds=2)
    critic = networks.TwinCritic(sizes, probability=True)
    for seed in range(2):
        critic.scaling.fit(torch.randn(20, 3) + seed, seed)
    observation, action = torch.randn(2, 9, 3), torch.randn(2, 9, 2)
    with torch.no_grad():
        together = critic.risk(observation, action)
        for seed in range(2):
            alone = critic.risk_alone(seed, observation[seed], action[seed])
            torch.testing.assert_close(alone, together[seed], atol=1e-6, rtol=1e-5)


def test_many_draws_in_one_place_are_as_many_places():
    actor = networks.GaussianActor(SIZES)
    row = torch.randn(1, 1, 3)
    drawn, density = actor.draw(row, 50, generator())
    action, wanted = actor.sample(row.expand(-1, 50, -1), generator())
    torch.testing.assert_close(drawn, action)
    torch.testing.assert_close(density, wanted)
