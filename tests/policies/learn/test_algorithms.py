"""Each algorithm's rule against values worked out by hand.

`shaped` puts weights into the networks that make Q_risk, the critic and the policy known functions
of the action a: Q_risk = sigmoid(slope a), Q = value a, policy = tanh(middle) with little noise.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ledge import fill, learner, step

from safetypilot.policies.learn.algorithms import filtering
from safetypilot.policies.learn.flight import SampledRecovery
from safetypilot.policies.learn.sac import TaskBatch

LR_KIND = ("lr", "sqrl", "csc", "rspo")


def linear(network, slope):
    """Weights that make a critic's output slope * (last input), exactly."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        (first, _), (last, _) = network.layers
        first[:, -1, 0], first[:, -1, 1] = 1.0, -1.0
        last[:, 0, 0], last[:, 1, 0] = slope, -slope


def shaped(made, slope=4.0, value=1.0, middle=0.0, log_std=-20.0):
    for critic in (made.risk.critic, made.risk.target):
        linear(critic.network, slope)
    for critic in (made.sac.critic, made.sac.target):
        linear(critic.network, value)
    with torch.no_grad():
        for parameter in made.sac.actor.parameters():
            parameter.zero_()
        _, bias = made.sac.actor.network.layers[-1]
        bias[..., 0], bias[..., 1] = middle, log_std
    return made


def sigmoid(x):
    return 1.0 / (1.0 + math.exp(-x))


def batch(actions=(0.5, -0.5), rewards=(-1.0, 2.0), costs=(0.0, 1.0)):
    rows = torch.zeros(1, len(actions), 1)
    column = [torch.tensor([values]) for values in (actions, rewards, costs)]
    return TaskBatch(
        *(rows, column[0][..., None], column[1], column[2], rows, column[2], 0 * column[2])
    )


# --- rewards ---


def test_unconstrained_takes_the_reward_as_it_is():
    assert learner("sac").algorithm.reward(batch()).tolist() == [[-1.0, 2.0]]
    assert learner("sac").algorithm.actor_penalty is None


def test_rp_takes_the_penalty_from_the_reward_of_a_violating_step():
    made = learner("rp", penalty=30.0)
    assert made.algorithm.reward(batch()).tolist() == [[-1.0, -28.0]]


def test_rcpo_takes_lambda_times_the_risk_of_what_was_done():
    made = shaped(learner("rcpo", penalty=30.0))
    wanted = [-1.0 - 30.0 * sigmoid(2.0), 2.0 - 30.0 * sigmoid(-2.0)]
    assert made.algorithm.reward(batch())[0].tolist() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(("eps", "rises"), [(0.1, True), (0.9, False)])
def test_rcpos_lambda_rises_if_and_only_if_the_risk_exceeds_eps(eps, rises):
    made = shaped(learner("rcpo", penalty=30.0, penalty_learning_rate=0.01, eps=eps))
    algorithm, rows = made.algorithm, batch(actions=(0.1, -0.1))  # risks around 0.5
    values = [algorithm.multiplier.value.item()]
    for _ in range(5):
        algorithm.reward(rows)
        algorithm.after_update(rows)
        values.append(algorithm.multiplier.value.item())
    assert values[0] == pytest.approx(30.0)
    assert values == sorted(values, reverse=not rises)
    assert len(set(values)) == len(values)


# --- Lagrangian relaxation ---


@pytest.mark.parametrize("name", LR_KIND)
def test_the_penalty_is_nu_times_the_excess_on_the_scale_of_the_critic(name):
    made = shaped(learner(name, nu=50.0, reward_scale=0.1, eps=0.2))
    rows = batch()
    paid = made.algorithm.actor_penalty(rows.observation, rows.action)
    wanted = [0.1 * 50.0 * (sigmoid(4.0 * a) - 0.2) for a in (0.5, -0.5)]
    assert paid[0].tolist() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", ["lr", "sqrl", "csc"])
@pytest.mark.parametrize(("eps", "rises"), [(0.1, True), (0.9, False)])
def test_nu_rises_if_and_only_if_the_policys_risk_exceeds_eps(name, eps, rises):
    options = {"nu": 50.0, "nu_learning_rate": 0.01, "eps": eps, "batch": 8, "learning_rate": 0}
    made = shaped(learner(name, **options))
    fill(made)
    values = [made.algorithm.nu.item()]
    for _ in range(5):
        made.update_task()
        values.append(made.algorithm.nu.item())
    assert values == sorted(values, reverse=not rises)
    assert len(set(values)) == len(values)


def test_nu_holds_where_it_may_not_learn():
    made = shaped(learner("lr", nu=50.0, nu_learning_rate=0.0, eps=0.01, batch=8))
    fill(made)
    for _ in range(5):
        metrics = made.update_task()
    assert made.algorithm.nu.item() == pytest.approx(50.0)
    assert metrics["task/risk_excess"].item() > 0


def test_rspo_goes_from_the_first_nu_to_the_last_and_stays_there():
    made = learner("rspo", seeds=(0, 1), nu=200.0, nu_end=40.0, episodes=5)
    algorithm, found = made.algorithm, []
    for number in range(1, 8):
        algorithm.start_episode(1, number)
        found.append(algorithm.nu[1].item())
    assert found == [200.0, 160.0, 120.0, 80.0, 40.0, 40.0, 40.0]
    assert algorithm.nu[0].item() == 200.0  # of the other seed
    algorithm.after_update(batch())
    assert algorithm.nu.tolist() == [200.0, 40.0]


def test_rspos_default_ends_at_nothing():
    algorithm = learner("rspo").algorithm
    algorithm.start_episode(0, algorithm.config.episodes)
    assert algorithm.nu.item() == 0.0


# --- filters ---

risks = st.lists(st.floats(0.0, 1.0, width=32), min_size=1, max_size=12)


def candidates(values, densities=None):
    count = len(values)
    density = torch.zeros(1, count) if densities is None else torch.tensor([densities])
    action = torch.arange(float(count))[None, :, None]
    return filtering.Candidates(action, density, torch.tensor([values]))


@settings(deadline=None)
@given(values=risks, eps=st.floats(0.0, 1.0, width=32), data=st.data())
def test_a_filter_takes_a_safe_action_if_there_is_one_else_the_least_risky(values, eps, data):
    densities = data.draw(
        st.lists(st.floats(-200, 200, width=32), min_size=len(values), max_size=len(values))
    )
    found = candidates(values, densities)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    for action in (
        filtering.by_density(found, eps, generator),
        filtering.first_safe(found, eps),
    ):
        assert action.shape == (1, 1, 1)
        risk = values[int(action.item())]
        assert risk <= eps if min(values) <= eps else risk == min(values)


def test_sqrl_chooses_among_the_safe_in_proportion_to_their_density():
    found = candidates([0.1, 0.1, 0.9], [0.0, math.log(3.0), 50.0])
    generator = torch.Generator().manual_seed(0)
    drawn = [filtering.by_density(found, 0.5, generator).item() for _ in range(400)]
    # the third would have all the weight; of the others, one has three times the other's
    assert set(drawn) <= {0.0, 1.0}


def test_csc_takes_the_first_that_is_safe():
    assert filtering.first_safe(candidates([0.9, 0.2, 0.1]), 0.5).item() == 1.0


@pytest.mark.parametrize("name", ["sqrl", "csc"])
def test_what_is_proposed_passed_the_filter(name):
    made = shaped(learner(name, seeds=(0, 1), samples=50, eps=0.5), log_std=0.5)
    for _ in range(20):
        action = made.propose(np.zeros((2, 1)))
        assert action.shape == (2, 1)
        assert (action <= 0.0).all()  # where sigmoid(4 a) <= 0.5
    shaped(made, middle=2.0, log_std=-3.0)  # now no draw is safe
    action = made.propose(np.zeros((2, 1)))
    assert (action > 0.5).all()


def test_recovery_rl_proposes_freely_unless_told_to_filter():
    free = shaped(learner("recovery-rl", eps=0.5), middle=1.0)
    assert free.propose(np.zeros((1, 1)))[0, 0] == pytest.approx(math.tanh(1.0), abs=1e-4)
    filtered = shaped(learner("recovery-rl", eps=0.5, samples=50), log_std=0.5)
    assert all(filtered.propose(np.zeros((1, 1)))[0, 0] <= 0.0 for _ in range(20))


# --- conservative critics ---


def test_csc_raises_the_risk_of_actions_that_no_data_speak_for():
    """No violations but the few needed, all data push left, the policy wants right."""
    found = {}
    for weight in (0.0, 0.5):
        made = learner("csc", conservative=weight, risk_learning_rate=3e-3, positive_fraction=0)
        shaped(made, slope=0.1, middle=2.0)
        for _ in range(32):
            made.add(
                step(
                    observation=np.zeros(1), proposed=np.array([-1.0]), executed=np.array([-1.0]),
                    next_observation=np.zeros(1),
                )
            )  # fmt: skip
        for _ in range(100):
            made.update_risk()
        there = np.zeros((1, 1))
        found[weight] = [made.risks(there, np.array([[a]])).item() for a in (-1.0, 1.0)]
    assert found[0.5][1] > 0.5 > found[0.0][1]
    assert found[0.5][1] > found[0.5][0] + 0.3


def test_csc_is_conservative_by_default_and_the_others_are_not():
    assert learner("csc").config.conservative > 0
    assert learner("sqrl").config.conservative == 0


# --- safety editor ---


@pytest.mark.parametrize(("weight", "value"), [(0.5, 3.0), (0.0, 3.0), (0.5, -3.0)])
def test_the_editor_pays_for_risk_and_for_value_given_up(weight, value):
    made = shaped(learner("safety-editor", editor_weight=weight), value=value, middle=1.0)
    rows = batch()
    loss = made.algorithm.recovery_loss(rows.observation, rows.action)
    wanted_action = math.tanh(1.0)
    wanted = [
        sigmoid(4.0 * a) + weight * max(0.0, value * (wanted_action - a)) for a in (0.5, -0.5)
    ]
    assert loss[0].tolist() == pytest.approx(wanted, rel=1e-4)


def test_the_editor_always_acts_and_is_what_flies():
    made = learner("safety-editor")
    assert made.trains_recovery
    row = torch.randn(1, 5, 1)
    with torch.no_grad():
        assert torch.equal(made.algorithm.deployed(0)(row), made.risk.recovery(row))
    assert not made.config.relabel


# --- q-sampling ---


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), seq=st.integers(0, 1000), count=st.integers(1, 200))
def test_q_sampling_takes_the_least_risky_of_its_draws(seed, seq, count):
    class Spy:
        def run(self, observation, action):
            assert observation.shape == (count, 1)
            self.action = action
            return {"risk": np.abs(action[:, 0] - 0.3)}

    made = learner("recovery-rl-q-sampling")
    config, spy = replace(made.config, recovery_samples=count), Spy()
    recovery = SampledRecovery(config, made.interface, spy, seed)
    (chosen,) = recovery.plan(np.zeros(1, np.float32), seq)
    best = np.abs(spy.action[:, 0] - 0.3).argmin()
    assert chosen == spy.action[best]
    assert (np.abs(spy.action) <= 1.0).all()
    assert np.array_equal(recovery.plan(np.zeros(1, np.float32), seq)[0], chosen)


# --- what is stored ---


def stored(recovered=True, truncated=False, **options):
    made = learner("recovery-rl", **options)
    made.add(
        step(
            observation=np.zeros(1), proposed=np.array([1.0]), executed=np.array([-1.0]),
            next_observation=np.ones(1), truncated=truncated,
        ),
        recovered=recovered,
    )  # fmt: skip
    return made


def test_the_task_policy_learns_of_proposals_and_risk_of_what_was_done():
    made = stored()
    assert made.task_replay.rows().proposed.tolist() == [[1.0]]
    assert made.risk_replay.rows().executed.tolist() == [[-1.0]]


def test_without_relabelling_the_task_policy_learns_of_what_was_done():
    assert stored(relabel=False).task_replay.rows().proposed.tolist() == [[-1.0]]


def test_both_transitions_are_stored_where_recovery_acted():
    both = stored(both_transitions=True)
    assert both.task_replay.rows().proposed.tolist() == [[1.0], [-1.0]]
    assert both.risk_replay.size == 1
    assert stored(both_transitions=True, recovered=False).task_replay.size == 1


def test_a_timeout_ends_the_task_only_where_it_is_told_to():
    for told, truncated in ((True, True), (True, False), (False, True)):
        made = stored(timeout_terminates=told, truncated=truncated)
        assert bool(made.task_replay.rows().terminated[0]) == (told and truncated)
        assert not made.risk_replay.rows().terminated[0]  # the clock is no end of danger


def test_offline_risk_stays_as_it_was_where_online_is_off():
    for online in (True, False):
        made = learner("recovery-rl", online=online, positive_fraction=0.1)
        fill(made)
        before = [value.clone() for value in made.risk.critic.parameters()]
        metrics = made.update()
        assert ("risk/loss" in metrics) == online
        same = all(map(torch.equal, before, made.risk.critic.parameters()))
        assert same != online
        assert "task/critic_loss" in metrics
