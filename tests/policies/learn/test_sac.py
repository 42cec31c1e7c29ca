"""Soft actor-critic: targets by hand, and what each part of an update may touch."""

from dataclasses import replace

import pytest
import torch
from ledge import batch_of, step

from safetypilot.models.networks import Sizes
from safetypilot.policies.learn import sac
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.optimiser import polyak

SIZES = Sizes(2, (-1.0, -1.0), (1.0, 1.0), (16,))
CONFIG = Config(hidden=16, layers=1, gamma=0.9, gamma_safe=0.5, alpha=0.3, reward_scale=2.0)


def generator():
    return torch.Generator().manual_seed(0)


def batch(count=8, **changes):
    return sac.TaskBatch.of(batch_of([step(**changes)] * count))


def test_the_task_target_by_hand_and_only_termination_stops_the_bootstrap():
    agent = sac.Sac(SIZES, CONFIG)
    rows = sac.TaskBatch.of(batch_of([step(), step(truncated=True), step(terminated=True)]))
    (target,) = sac.bellman_target(agent, rows, CONFIG, generator())
    with torch.no_grad():
        action, density = agent.actor.sample(rows.next_observation, generator())
        (twins,) = agent.target(rows.next_observation, action)
        value = torch.minimum(twins[0], twins[1]) - 0.3 * density[0]
    assert target[0].item() == pytest.approx(-2.0 + 0.9 * value[0].item(), abs=1e-5)
    assert target[1].item() == pytest.approx(-2.0 + 0.9 * value[1].item(), abs=1e-5)
    assert target[2].item() == pytest.approx(-2.0, abs=1e-6)


def test_the_task_batch_holds_proposals():
    assert batch(1).action.tolist() == [[[0.5, 0.5]]]


def test_the_actor_step_leaves_the_critic_alone():
    agent = sac.Sac(SIZES, replace(CONFIG, learning_rate=0.0))
    before = [value.clone() for value in agent.critic.parameters()]
    sac.update(agent, batch(), CONFIG, generator())
    for old, new in zip(before, agent.critic.parameters(), strict=True):
        assert torch.equal(old, new)
        assert new.requires_grad


def test_the_target_moves_by_tau():
    agent = sac.Sac(SIZES, CONFIG)
    with torch.no_grad():
        for value in agent.critic.parameters():
            value.add_(1.0)
    old = [value.clone() for value in agent.target.parameters()]
    polyak(agent.target, agent.critic, 0.25)
    for before, after in zip(old, agent.target.parameters(), strict=True):
        assert torch.allclose(after, before + 0.25, atol=1e-6)


@pytest.mark.parametrize(("wanted", "falls"), [(-5.0, True), (5.0, False)])
def test_automatic_temperature_moves_towards_the_target_entropy(wanted, falls):
    config = replace(CONFIG, automatic_alpha=True, target_entropy=wanted)
    agent = sac.Sac(SIZES, config)
    for _ in range(5):
        sac.update(agent, batch(), config, generator())
    assert bool((agent.alpha < 0.3).all()) == falls


def test_a_fixed_temperature_stays():
    agent = sac.Sac(SIZES, CONFIG)
    sac.update(agent, batch(), CONFIG, generator())
    assert agent.alpha.tolist() == [[pytest.approx(0.3)]]


def test_a_penalty_on_an_action_drives_the_actor_away_from_it():
    """Two actors from the same weights: the one that pays for large actions takes smaller ones."""
    config = replace(CONFIG, learning_rate=3e-3, alpha=0.001)
    means = []
    for weight in (0.0, 100.0):
        torch.manual_seed(0)
        agent = sac.Sac(SIZES, config)
        rows, noise = batch(32), generator()
        for _ in range(100):
            sac.update(agent, rows, config, noise, lambda _, a, w=weight: w * a.square().sum(-1))
        with torch.no_grad():
            means.append(float(agent.actor(rows.observation).abs().mean()))
    assert means[1] < 0.05 < means[0]


def test_every_metric_is_a_number_that_has_no_graph():
    agent = sac.Sac(SIZES, CONFIG)
    metrics = sac.update(agent, batch(), CONFIG, generator())
    names = ("critic_loss", "actor_loss", "value", "entropy", "alpha")
    assert {f"task/{name}" for name in names} <= set(metrics)
    assert all(value.numel() == 1 and not value.requires_grad for value in metrics.values())


def test_it_finds_the_better_of_two_actions():
    """A bandit: reward 1 for pushing right, and each step is the last."""
    config = replace(CONFIG, learning_rate=1e-2, alpha=0.01)
    agent, noise = sac.Sac(SIZES, config), generator()
    rows = batch(64, terminated=True)
    for _ in range(150):
        action = 2.0 * torch.rand(1, 64, 2, generator=noise) - 1.0
        good = rows._replace(action=action, reward=action[..., 0])
        sac.update(agent, good, config, noise)
    with torch.no_grad():
        assert float(agent.actor(rows.observation)[0, 0, 0]) > 0.8
