"""Discrete soft actor-critic: the rule by hand, expectations, and all algorithms on choices."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from choosing import INTERFACE, WORLD, choosing, fill_choices, train
from ledge import Ledge

from safetypilot.models import runtime
from safetypilot.models.networks import Sizes, TwinCritic
from safetypilot.policies.learn import catalogue, discrete
from safetypilot.policies.learn.algorithms import filtering
from safetypilot.policies.learn.catalogue import ALGORITHMS
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.learner import Learner
from safetypilot.policies.learn.live import learned_recovery
from safetypilot.policies.learn.replay import Transition
from safetypilot.policies.learn.sac import TaskBatch

TWO = Sizes(1, (0.0, 0.0), (1.0, 1.0), (16,))
CONFIG = Config(hidden=16, layers=1, gamma=0.9, alpha=0.5, reward_scale=2.0, batch=8)
VECTORS = [name for name in ALGORITHMS if name != "recovery-rl-visual"]


def generator():
    return torch.Generator().manual_seed(0)


def rows(actions, rewards, terminated=0.0):
    """A batch in one state, (1, B, .)."""
    count = len(actions)
    place, zeros = torch.zeros(1, count, 1), torch.zeros(1, count)
    chosen = torch.eye(2)[torch.tensor(actions)][None]
    ended = torch.full((1, count), terminated)
    return TaskBatch(place, chosen, torch.tensor([rewards]), zeros, place, ended, zeros)


def set_values(critic, *twins):
    """Make each of the twins say these two values, everywhere."""
    with torch.no_grad():
        for parameter in critic.network.parameters():
            parameter.zero_()
        (first, _), (last, bias) = critic.network.layers
        first[:, -2, 0] = first[:, -1, 1] = 1.0  # after the ReLU 1 for the choice, else 0
        for index, (left, right) in enumerate(twins):
            last[index, :2, 0] = torch.tensor([left, right])
            bias[index] = 0.0


def set_probability(actor, first):
    with torch.no_grad():
        for parameter in actor.network.parameters():
            parameter.zero_()
        _, bias = actor.network.layers[-1]
        bias[...] = torch.tensor([math.log(first), math.log(1 - first)])


@pytest.fixture
def agent():
    """pi = (0.8, 0.2); Q = (3, 1) and (2, 4), so min Q = (2, 1)."""
    made = discrete.ChoiceSac(TWO, CONFIG)
    set_probability(made.actor, 0.8)
    for critic in (made.critic, made.target):
        set_values(critic, (3.0, 1.0), (2.0, 4.0))
    return made


ENTROPY = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
SOFT = 0.8 * 2.0 + 0.2 * 1.0 + 0.5 * ENTROPY


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("choice_0", "choice_1"), True),
        (("force_x", "choice_1"), False),
        (("choice",), False),
        ((), False),
    ],
)
def test_who_chooses_is_known_by_the_names(names, found):
    assert discrete.is_choice(names) == found


def test_the_target_by_hand(agent):
    (target,) = discrete.bellman_target(agent, rows([0, 1], [1.0, -1.0]), CONFIG)
    assert target.tolist() == pytest.approx([2.0 + 0.9 * SOFT, -2.0 + 0.9 * SOFT], rel=1e-5)
    (last,) = discrete.bellman_target(agent, rows([0], [1.0], terminated=1.0), CONFIG)
    assert last.item() == pytest.approx(2.0)


def test_the_target_is_what_sampling_would_give_on_average(agent):
    many = rows([0], [1.0])
    place = torch.zeros(1, 50_000, 1)
    with torch.no_grad():
        action, density = agent.actor.sample(place, generator())
        sampled = agent.target(place, action).amin(dim=1) - agent.alpha * density
    exact = discrete.bellman_target(agent, many, CONFIG).item()
    assert exact == pytest.approx(2.0 + 0.9 * sampled.mean().item(), abs=0.01)


def test_the_losses_and_the_temperature_by_hand(agent):
    """With rates of 0 nothing moves, so what is reported is of the values above."""
    still = replace(CONFIG, learning_rate=0.0, automatic_alpha=True, choice_entropy=0.6)
    agent.critic_optimiser.rate = agent.actor_optimiser.rate = 0.0
    metrics = discrete.update(agent, rows([0, 1], [1.0, -1.0]), still, generator())
    first, second = 2.0 + 0.9 * SOFT, -2.0 + 0.9 * SOFT
    squares = (3 - first) ** 2 + (2 - first) ** 2 + (1 - second) ** 2 + (4 - second) ** 2
    assert metrics["task/critic_loss"].item() == pytest.approx(squares / 2, rel=1e-5)
    assert metrics["task/actor_loss"].item() == pytest.approx(-SOFT, rel=1e-5)
    assert metrics["task/entropy"].item() == pytest.approx(ENTROPY, rel=1e-5)
    wanted = ENTROPY - 0.6 * math.log(2)
    assert agent.log_alpha.grad.tolist() == pytest.approx([wanted], rel=1e-5)


def test_the_actors_gradient_by_hand(agent):
    """d loss / d logit_i = pi_i (f_i - mean f), with f = alpha log pi - Q (and 0 of pi's own)."""
    agent.critic_optimiser.rate = agent.actor_optimiser.rate = 0.0
    discrete.update(agent, rows([0, 1], [1.0, -1.0]), CONFIG, generator())
    *_, bias = agent.actor.network.parameters()
    f = [0.5 * math.log(0.8) - 2.0, 0.5 * math.log(0.2) - 1.0]
    mean = 0.8 * f[0] + 0.2 * f[1]
    wanted = [0.8 * (f[0] - mean), 0.2 * (f[1] - mean)]
    assert bias.grad.flatten().tolist() == pytest.approx(wanted, abs=1e-5)


def test_a_penalty_counts_in_expectation(agent):
    seen = []

    def penalty(observation, action):
        seen.append(action)
        return 10.0 * action[..., 1]

    agent.critic_optimiser.rate = agent.actor_optimiser.rate = 0.0
    metrics = discrete.update(agent, rows([0, 1], [1.0, -1.0]), CONFIG, generator(), penalty)
    assert metrics["task/actor_loss"].item() == pytest.approx(-SOFT + 10.0 * 0.2, rel=1e-5)
    assert seen[0][0].tolist() == [[1, 0], [0, 1]] * 2  # every choice of each row
    assert seen[-1].shape == (1, 2, 2)  # what the policy chooses


def test_only_the_networks_that_should_move_do(agent):
    recovered = [value.clone() for value in agent.target.parameters()]
    discrete.update(agent, rows([0, 1], [1.0, -1.0]), replace(CONFIG, tau=0.25), generator())
    for before, after, source in zip(
        recovered, agent.target.parameters(), agent.critic.parameters(), strict=True
    ):
        assert torch.allclose(after, torch.lerp(before, source, 0.25), atol=1e-6)
        assert source.requires_grad
        assert not after.requires_grad


def test_demonstrated_choices_are_kept_to(agent):
    config = replace(CONFIG, cloning=4.0)
    agent.critic_optimiser.rate = agent.actor_optimiser.rate = 0.0
    shown = rows([0, 1], [1.0, -1.0])._replace(demonstrated=torch.tensor([[0.0, 1.0]]))
    metrics = discrete.update(agent, shown, config, generator())
    wanted = -SOFT + 4.0 * -math.log(0.2) / 2
    assert metrics["task/actor_loss"].item() == pytest.approx(wanted, rel=1e-5)


def test_it_finds_the_better_arm_and_leaves_it_for_a_penalty():
    config = replace(CONFIG, learning_rate=1e-2, alpha=0.05, reward_scale=1.0)
    preferred = []
    for weight in (0.0, 3.0):
        torch.manual_seed(0)
        agent, noise = discrete.ChoiceSac(TWO, config), generator()
        bandit = rows([0, 1] * 16, [0.0, 1.0] * 16, terminated=1.0)
        for _ in range(200):
            discrete.update(agent, bandit, config, noise, lambda _, a, w=weight: w * a[..., 1])
        with torch.no_grad():
            preferred.append(agent.actor(torch.zeros(1, 1, 1))[0, 0, 1].item())
    assert preferred[0] > 0.9
    assert preferred[1] < 0.1


def test_a_loss_of_preferences_is_the_mean_of_the_choices():
    def loss(observation, action):
        return (action * torch.tensor([1.0, 3.0])).sum(dim=-1) + observation[..., 0]

    preferences = torch.tensor([[[0.5, 0.5], [0.0, 1.0]]], requires_grad=True)
    place = torch.tensor([[[10.0], [20.0]]])
    found = discrete.expected(loss)(place, preferences)
    sure = 1.0 / (1.0 + math.exp(-10.0))
    assert found[0].tolist() == pytest.approx([12.0, 20.0 + 1.0 + 2.0 * sure], rel=1e-5)
    found.sum().backward()
    assert preferences.grad[0, 0, 0] < 0 < preferences.grad[0, 0, 1]  # towards the lower loss


# --- with the learner ---


def test_what_is_stored_are_choices():
    made = choosing("recovery-rl")
    proposed, executed = np.array([0.2, 0.9, 0.3]), np.array([0.0, 0.0, 0.0])
    made.add(Transition(np.ones(1), proposed, executed, -1.0, 1.0, np.ones(1), True, False))
    row = made.risk_replay.rows()
    assert row.proposed.tolist() == [[0, 1, 0]]
    assert row.executed.tolist() == [[1, 0, 0]]  # the first of equals
    made.load_offline(WORLD.offline_data("ledge", 20, 0))
    stored = made.risk_replay.rows().executed
    assert set(np.unique(stored)) == {0.0, 1.0}
    assert (stored.sum(axis=1) == 1).all()


@pytest.mark.parametrize("name", VECTORS)
def test_every_algorithm_proposes_choices_and_exports(name, tmp_path):
    made = choosing(name, seeds=(0, 1), automatic_alpha=True)
    fill_choices(made)
    made.update(3)
    made.fit_dynamics(1, 1)
    proposed = made.propose(np.zeros((2, 1), np.float32))
    assert (np.sort(proposed, axis=1) == [[0, 0, 1]] * 2).all()
    files = made.export(tmp_path, index=1)
    place = np.linspace(-2, 2, 9, dtype=np.float32)[:, None]
    policy = runtime.stage(files["task_policy"], "task_policy", INTERFACE)
    action = policy.run(observation=place)["action"]
    assert action.shape == (9, 3)
    with torch.no_grad():
        flying = discrete.deployed(made.algorithm.deployed(1))(torch.from_numpy(place)[None])
    np.testing.assert_allclose(action, flying[0].numpy(), atol=1e-5)
    if "safety_critic" in files:
        critic = runtime.load(files["safety_critic"])
        risk = critic.run(observation=place, action=action)["risk"]
        live = made.risks(np.stack([place[0]] * 2), np.stack([action[0]] * 2))[1]
        assert risk[0] == pytest.approx(live, abs=1e-5)


def test_latents_know_no_choices():
    seen = SimpleNamespace(**vars(INTERFACE) | {"observation_names": ["image[12,12,3]"]})
    config = catalogue.settings("recovery-rl-visual", "ledge")
    with pytest.raises(LearnError, match="recovery=visual knows no choices; use model-free or"):
        Learner("recovery-rl-visual", config, seen)


def test_choices_are_learned_from_pixels_too():
    seen = SimpleNamespace(**vars(INTERFACE) | {"observation_names": ["image[12,12,3]"]})
    config = replace(choosing("sqrl").config, encoder_features=4)
    made, rng = Learner("sqrl", config, seen), np.random.default_rng(0)
    for index in range(20):
        image, preferences, cost = rng.integers(0, 256, 432), rng.random(3), float(index % 3 == 0)
        rows = (image, preferences, preferences, 1.0, cost, image)
        made.add(Transition(*rows, bool(cost), False))
    assert made.update(2)["risk/loss"] > 0
    assert made.propose(rng.integers(0, 256, (1, 432)).astype(np.float32)).sum() == 1


def risky_left(made, left=0.9, others=0.1):
    """Q_risk of the first choice is high, of the others low."""
    critic = made.risk.critic
    for network in (critic, made.risk.target):
        with torch.no_grad():
            for parameter in network.network.parameters():
                parameter.zero_()
            (first, _), (last, bias) = network.network.layers
            first[:, -3, 0] = 1.0
            low, high = (torch.logit(torch.tensor(value)) for value in (others, left))
            last[:, 0, 0], bias[...] = high - low, low
    return made


def test_a_filter_leaves_what_is_safe_in_proportion():
    made = risky_left(choosing("sqrl"))
    parts, place = made.algorithm.parts, torch.zeros(1, 1, 1)
    probability = made.sac.actor(place)[0, 0]
    counts = np.zeros(3)
    for _ in range(2000):
        found = filtering.draw(parts, place, 100)
        counts += filtering.by_density(found, 0.5, parts.generator)[0, 0].numpy()
    safe = probability[1:] / probability[1:].sum()
    assert (counts / 2000).tolist() == pytest.approx([0.0, *safe.tolist()], abs=0.04)


def test_the_multiplier_hears_of_the_policys_own_choices():
    made = risky_left(choosing("lr", batch=512, nu=2.0))
    fill_choices(made, 520)
    made.update_task()
    probability, _ = made.sac.actor.distribution(torch.zeros(1, 1, 1))
    mean = 0.1 + 0.8 * probability[0, 0, 0].item() - made.config.eps
    assert made.algorithm._excess.item() == pytest.approx(mean, abs=0.1)


@pytest.mark.parametrize("recovery", ["q-sampling", "model-based"])
def test_recovery_takes_the_least_risky_choice(recovery):
    made = risky_left(choosing("recovery-rl", recovery=recovery))
    fill_choices(made)
    made.fit_dynamics(1)
    plan = learned_recovery(made, 0).plan(np.zeros(1, np.float32), 0)
    assert np.argmax(plan[0]) != 0


def test_the_recovery_policy_learns_the_least_risky_choice():
    made = choosing("recovery-rl-model-free", risk_learning_rate=1e-2)
    fill_choices(made, 100)
    for _ in range(200):
        made.update_risk()
    place = np.zeros(1, np.float32)
    assert np.argmax(made.recover(place)) != 0
    risk = [made.risks(place[None], np.eye(3, dtype=np.float32)[[i]])[0] for i in range(3)]
    assert risk[0] > max(risk[1:])


def test_a_whole_training_on_choices_and_its_resumption(tmp_path):
    whole, half = tmp_path / "whole", tmp_path / "half"
    (summary,) = train(whole, 6, "recovery-rl-model-free")
    assert summary["episodes"] == 6
    train(half, 3, "recovery-rl-model-free")
    train(half, 6, "recovery-rl-model-free", resume=half)
    lines = [
        [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        for out in (whole, half)
    ]
    assert lines[0] == lines[1]


def test_a_critic_of_choices_is_not_wrapped_twice():
    critic = TwinCritic(TWO, probability=True)
    flying = discrete.deployed(critic)
    assert discrete.deployed(flying) is flying
    rows = torch.randn(1, 4, 1)
    assert torch.equal(flying.risk(rows, torch.eye(2)[[0, 1, 0, 1]][None]),
                       critic.risk(rows, torch.eye(2)[[0, 1, 0, 1]][None]))  # fmt: skip


def test_the_ledge_of_choices_is_the_ledge():
    one, other = WORLD.make("ledge"), Ledge()
    for env in (one, other):
        env.reset(seed=0)
    assert one.step([0.1, 0.2, 0.3])[0] == other.step([1.0])[0]
