"""Targets by hand, what each update must achieve, and what a batch is made of."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from safetypilot.models.networks import DynamicsEnsemble, Sizes
from safetypilot.policies.learn import dynamics, risk, sac
from safetypilot.policies.learn.config import Config, preset, with_settings
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.replay import Replay, Transition


@pytest.fixture(autouse=True)
def seeded():
    """Weights start the same in every run, whatever other tests drew before."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Two threads that wait for each other are a hundred times slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


SIZES = Sizes(2, (-1.0, -1.0), (1.0, 1.0), (16,))
CONFIG = Config(hidden=16, layers=1, gamma=0.9, gamma_safe=0.5, alpha=0.3, reward_scale=2.0)


def generator():
    return torch.Generator().manual_seed(0)


def step(cost=0.0, **changes):
    base = Transition(
        observation=np.array([1.0, 2.0]),
        proposed=np.array([0.5, 0.5]),
        executed=np.array([-0.5, 0.0]),
        reward=-1.0,
        cost=cost,
        next_observation=np.array([1.5, 2.0]),
        terminated=cost > 0,
        truncated=False,
    )
    return base._replace(**changes)


def batch_of(rows):
    return Transition(*(np.array(column) for column in zip(*rows, strict=True)))


# --- soft actor-critic ---


def test_the_task_target_by_hand_and_only_termination_stops_the_bootstrap():
    agent = sac.Sac(SIZES, CONFIG)
    rows = batch_of([step(), step(truncated=True), step(terminated=True)])
    batch = sac.TaskBatch.of(rows)
    target = sac.bellman_target(agent, batch, CONFIG, generator())
    with torch.no_grad():
        action, density = agent.actor.sample(batch.next_observation, generator())
        twins = agent.target(batch.next_observation, action)
        value = torch.minimum(twins[0], twins[1]) - 0.3 * density
    assert target[0].item() == pytest.approx(-2.0 + 0.9 * value[0].item(), abs=1e-5)
    assert target[1].item() == pytest.approx(-2.0 + 0.9 * value[1].item(), abs=1e-5)
    assert target[2].item() == pytest.approx(-2.0, abs=1e-6)


def test_the_task_batch_holds_proposals_and_the_risk_batch_what_was_executed():
    rows = batch_of([step()])
    assert sac.TaskBatch.of(rows).action[0].tolist() == [0.5, 0.5]
    assert risk.RiskBatch.of(rows).action[0].tolist() == [-0.5, 0.0]


def test_the_actor_step_leaves_the_critic_alone():
    agent = sac.Sac(SIZES, replace(CONFIG, learning_rate=0.0))
    before = [value.clone() for value in agent.critic.parameters()]
    batch = sac.TaskBatch.of(batch_of([step()] * 8))
    sac.update(agent, batch, CONFIG, generator())
    for old, new in zip(before, agent.critic.parameters(), strict=True):
        assert torch.equal(old, new)
        assert new.requires_grad


def test_the_target_moves_by_tau():
    agent = sac.Sac(SIZES, CONFIG)
    with torch.no_grad():
        for value in agent.critic.parameters():
            value.add_(1.0)
    old = [value.clone() for value in agent.target.parameters()]
    sac.polyak(agent.target, agent.critic, 0.25)
    for before, after in zip(old, agent.target.parameters(), strict=True):
        assert torch.allclose(after, before + 0.25, atol=1e-6)


def test_automatic_temperature_moves_towards_the_target_entropy():
    for wanted, falls in ((-5.0, True), (5.0, False)):
        config = replace(CONFIG, automatic_alpha=True, target_entropy=wanted)
        agent = sac.Sac(SIZES, config)
        for _ in range(5):
            sac.update(agent, sac.TaskBatch.of(batch_of([step()] * 8)), config, generator())
        assert (agent.alpha < 0.3) == falls


# --- risk ---


def test_the_risk_target_by_hand():
    learned = risk.Risk(SIZES, CONFIG)
    rows = [step(), step(cost=1.0), step(terminated=True), step(truncated=True)]
    batch = risk.RiskBatch.of(batch_of(rows))

    def next_action(observation):
        return torch.zeros(len(observation), 2)

    target = risk.bellman_target(learned, batch, next_action, 0.5)
    with torch.no_grad():
        later = learned.target(batch.next_observation, torch.zeros(4, 2)).amax(dim=0)
    wanted = [0.5 * later[0].item(), 1.0, 0.0, 0.5 * later[3].item()]
    assert target.tolist() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("kind", ["cross-entropy", "squared"])
def test_a_violation_raises_the_risk_of_its_action_and_not_of_the_other(kind):
    config = replace(CONFIG, risk_learning_rate=3e-3, risk_loss=kind)
    learned = risk.Risk(SIZES, config)
    bad = step(cost=1.0, executed=np.array([1.0, 0.0]))
    good = step(executed=np.array([-1.0, 0.0]), terminated=True)
    batch = risk.RiskBatch.of(batch_of([bad, good] * 16))
    observation, actions = batch.observation[:2], batch.action[:2]
    for _ in range(300):
        risk.update(learned, batch, config, lambda o: torch.zeros(len(o), 2), generator(), True)
    with torch.no_grad():
        after = learned.critic.risk(observation, actions)
        recovery = learned.critic.risk(observation, learned.recovery(observation))
    assert after[0] > 0.8
    assert after[1] < 0.2
    assert recovery[0] < 0.2  # the recovery policy has learned to avoid it


def test_cross_entropy_has_no_dead_zone_where_squared_error_has_one():
    logits = torch.full((2, 1), -20.0, requires_grad=True)
    pull = {}
    for kind in ("squared", "cross-entropy"):
        error = risk.error(logits, torch.ones(1), kind).sum()
        (gradient,) = torch.autograd.grad(error, logits)
        pull[kind] = gradient.abs().max().item()
    assert pull["squared"] < 1e-6
    assert pull["cross-entropy"] > 0.9


def test_the_composite_policy_is_the_shields_choice():
    learned = risk.Risk(SIZES, CONFIG)
    observation = torch.randn(64, 2)

    def task(rows):
        return torch.ones(len(rows), 2)

    with torch.no_grad():
        middle = learned.critic.risk(observation, task(observation)).median().item()
        config = replace(CONFIG, eps=middle)
        chosen = risk.composite(learned, task, config, generator())(observation)
        risky = learned.critic.risk(observation, task(observation)) > middle
        recovery = learned.recovery(observation)
    assert 0 < int(risky.sum()) < 64
    assert torch.equal(chosen[risky], recovery[risky])
    assert torch.equal(chosen[~risky], task(observation)[~risky])


# --- dynamics ---


def test_the_ensemble_learns_a_linear_plant_and_its_noise():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ensemble = DynamicsEnsemble(replace(SIZES, hidden=(32, 32)), members=3)
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.uniform(-1, 1, (2000, 4)).astype(np.float32))
    clean = 0.02 * inputs[:, 2:]
    change = clean + 0.002 * torch.from_numpy(rng.standard_normal((2000, 2)).astype(np.float32))
    optimiser = sac.adam(ensemble, 3e-3)
    dynamics.fit(ensemble, optimiser, inputs, change, epochs=60, batch=256, generator=generator())
    rows = inputs.expand(3, -1, -1)
    with torch.no_grad():
        mean, log_variance = ensemble.predict(rows)
        predicted = mean * ensemble.change_scale + ensemble.change_mean
        spread = (0.5 * log_variance).exp() * ensemble.change_scale
    assert float((predicted - clean).square().mean().sqrt()) < 0.001
    assert float(spread.median()) == pytest.approx(0.002, rel=0.3)


def test_no_data_no_fit():
    with pytest.raises(LearnError, match="no transitions"):
        dynamics.fit(
            DynamicsEnsemble(SIZES, 2),
            sac.adam(DynamicsEnsemble(SIZES, 2), 1e-3),
            torch.zeros(0, 4),
            torch.zeros(0, 2),
            epochs=1,
            batch=8,
            generator=generator(),
        )


# --- replay ---


def filled(capacity, count, costly=()):
    replay = Replay(capacity, 2, 2)
    for index in range(count):
        replay.add(step(cost=float(index in costly), reward=float(index)))
    return replay


def test_fields_are_kept_apart_and_the_oldest_make_room():
    replay = filled(5, 8, costly=(1, 6))
    rows = replay.rows()
    assert sorted(rows.reward.tolist()) == [3, 4, 5, 6, 7]
    assert rows.proposed[0].tolist() == [0.5, 0.5]
    assert rows.executed[0].tolist() == [-0.5, 0.0]
    assert replay.violations == 1
    assert rows.terminated.dtype == np.bool_
    assert int(rows.terminated.sum()) == 1
    assert not rows.truncated.any()


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
def test_a_stratified_batch_has_exactly_its_share_of_violations(fraction):
    replay = filled(1000, 1000, costly=(3, 500))
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = replay.sample(rng, 100, fraction)
        assert int((rows.cost > 0).sum()) == int(100 * fraction)
    assert int((replay.sample(rng, 2000).cost > 0).sum()) < 20


def test_stratifying_without_violations_or_without_anything_else():
    rng = np.random.default_rng(0)
    assert len(filled(10, 10).sample(rng, 8, 0.5).cost) == 8
    assert len(filled(3, 3, costly=(0, 1, 2)).sample(rng, 8, 0.5).cost) == 8
    with pytest.raises(LearnError, match="empty"):
        Replay(3, 2, 2).sample(rng, 1)


def test_save_and_restore_continue_the_same_samples():
    for count in (7, 13):
        replay = filled(10, count, costly=(2, 5, 11))
        other = Replay(10, 2, 2)
        other.restore(replay.state())
        for one in (replay, other):
            one.add(step(cost=1.0, reward=99.0))
        first = replay.sample(np.random.default_rng(1), 50, 0.4)
        second = other.sample(np.random.default_rng(1), 50, 0.4)
        for a, b in zip(first, second, strict=True):
            assert np.array_equal(a, b)
    with pytest.raises(LearnError, match="do not fit"):
        Replay(3, 2, 2).restore(replay.state())


# --- settings ---


def test_settings_take_the_type_of_the_default():
    changed = with_settings(
        preset("maze"),
        {"gamma": "0.95", "batch": "64", "relabel": "false", "positive-fraction": "0.2"},
    )
    assert (changed.gamma, changed.batch, changed.relabel) == (0.95, 64, False)
    assert changed.positive_fraction == 0.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gama": "0.9"}, "unknown setting 'gama'; did you mean 'gamma'"),
        ({"qqqqq": "1"}, "known: alpha"),
        ({"batch": "many"}, "batch is 'many'; it must be a whole number"),
        ({"batch": "1.5"}, "whole number"),
        ({"gamma": "x"}, "must be a number"),
        ({"gamma": "nan"}, "gamma is nan"),
        ({"relabel": "maybe"}, "say true or false"),
        ({"recovery": "magic"}, "choose one of model-based, model-free, none"),
        ({"eps": "1.5"}, r"must lie in \[0.0, 1.0\]"),
        ({"batch": "0"}, "batch is 0"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(LearnError, match=message):
        with_settings(Config(), settings)


def test_presets_are_the_papers():
    table = {"maze": (0.5, 0.15, 15), "navigation1": (0.8, 0.3, 5), "navigation2": (0.65, 0.2, 5)}
    for env, (gamma_safe, eps, horizon) in table.items():
        chosen = preset(env)
        assert (chosen.gamma_safe, chosen.eps, chosen.horizon) == (gamma_safe, eps, horizon)
    assert preset("safetypilot/Maze-v0") == preset("maze")
    assert preset("Pendulum-v1") == Config()
