"""Q_risk and the recovery policy: targets by hand, and what each update must achieve."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ledge import batch_of, step

from safetypilot.models.networks import Sizes
from safetypilot.policies.learn import risk
from safetypilot.policies.learn.config import Config

SIZES = Sizes(2, (-1.0, -1.0), (1.0, 1.0), (16,))
CONFIG = Config(hidden=16, layers=1, gamma_safe=0.5)


def generator():
    return torch.Generator().manual_seed(0)


def rest(observation):
    return torch.zeros(*observation.shape[:2], 2)


def test_the_risk_batch_holds_what_was_executed():
    assert risk.RiskBatch.of(batch_of([step()])).action.tolist() == [[[-0.5, 0.0]]]


def test_the_risk_target_by_hand():
    learned = risk.Risk(SIZES, CONFIG)
    rows = [step(), step(cost=1.0), step(terminated=True), step(truncated=True)]
    batch = risk.RiskBatch.of(batch_of(rows))
    (target,) = risk.bellman_target(learned, batch, rest, 0.5)
    with torch.no_grad():
        later = learned.target(batch.next_observation, torch.zeros(1, 4, 2))[0].amax(dim=0)
    wanted = [0.5 * later[0].item(), 1.0, 0.0, 0.5 * later[3].item()]
    assert target.tolist() == pytest.approx(wanted, abs=1e-6)


def test_a_violation_that_does_not_terminate_is_still_a_risk_of_one():
    learned = risk.Risk(SIZES, CONFIG)
    batch = risk.RiskBatch.of(batch_of([step(cost=1.0, terminated=False)]))
    assert risk.bellman_target(learned, batch, rest, 0.9).tolist() == [[1.0]]


@pytest.mark.parametrize("kind", ["cross-entropy", "squared"])
def test_a_violation_raises_the_risk_of_its_action_and_not_of_the_other(kind):
    config = replace(CONFIG, risk_learning_rate=3e-3, risk_loss=kind)
    learned = risk.Risk(SIZES, config)
    bad = step(cost=1.0, executed=np.array([1.0, 0.0]))
    good = step(executed=np.array([-1.0, 0.0]), terminated=True)
    batch = risk.RiskBatch.of(batch_of([bad, good] * 16))
    observation, actions = batch.observation[:, :2], batch.action[:, :2]
    for _ in range(300):
        risk.update(learned, batch, config, rest, generator(), learned.critic.risk)
    with torch.no_grad():
        ((risky, safe),) = learned.critic.risk(observation, actions)
        (recovery,) = learned.critic.risk(observation, learned.recovery(observation))
    assert risky > 0.8
    assert safe < 0.2
    assert recovery[0] < 0.2  # the recovery policy has learned to avoid it


def test_the_recovery_policy_is_left_alone_without_a_loss_of_its_own():
    learned = risk.Risk(SIZES, CONFIG)
    before = [value.clone() for value in learned.recovery.parameters()]
    batch = risk.RiskBatch.of(batch_of([step()] * 8))
    metrics = risk.update(learned, batch, CONFIG, rest, generator())
    assert "risk/recovery_loss" not in metrics
    assert all(
        torch.equal(old, new)
        for old, new in zip(before, learned.recovery.parameters(), strict=True)
    )


def test_the_recovery_policys_step_leaves_the_critic_alone():
    config = replace(CONFIG, risk_learning_rate=0.0)
    learned = risk.Risk(SIZES, config)
    batch = risk.RiskBatch.of(batch_of([step(cost=1.0)] * 8))
    risk.update(learned, batch, config, rest, generator(), learned.critic.risk)
    gradient = [value.grad.clone() for value in learned.critic.parameters()]
    learned.critic_optimiser.zero_grad()
    logits = learned.critic.logits(batch.observation, batch.action)
    target = risk.bellman_target(learned, batch, rest, config.gamma_safe)
    risk.error(logits, target, config.risk_loss).mean(dim=2).sum().backward()
    for old, value in zip(gradient, learned.critic.parameters(), strict=True):
        assert torch.allclose(old, value.grad, atol=1e-6)


def test_cross_entropy_has_no_dead_zone_where_squared_error_has_one():
    logits = torch.full((1, 2, 1), -20.0, requires_grad=True)
    pull = {}
    for kind in ("squared", "cross-entropy"):
        error = risk.error(logits, torch.ones(1, 1), kind).sum()
        (gradient,) = torch.autograd.grad(error, logits)
        pull[kind] = gradient.abs().max().item()
    assert pull["squared"] < 1e-6
    assert pull["cross-entropy"] > 0.9


def test_the_composite_policy_is_the_shields_choice():
    learned = risk.Risk(SIZES, CONFIG)
    observation = torch.randn(1, 64, 2)

    def task(rows):
        return torch.ones(*rows.shape[:2], 2)

    with torch.no_grad():
        middle = learned.critic.risk(observation, task(observation)).median().item()
        config = replace(CONFIG, eps=middle)
        chosen = risk.composite(learned, task, config, generator())(observation)
        risky = learned.critic.risk(observation, task(observation)) > middle
        recovery = learned.recovery(observation)
    assert 0 < int(risky.sum()) < 64
    assert torch.equal(chosen[risky], recovery[risky])
    assert torch.equal(chosen[~risky], task(observation)[~risky])


def test_conservatism_raises_the_risk_of_unseen_actions_against_those_seen():
    """The same data with and without: no violation anywhere, and one action per place."""
    rows = [step(executed=np.array([-1.0, 0.0]))] * 32

    def unseen(observation):
        return torch.ones(*observation.shape[:2], 2)

    found = {}
    for weight in (0.0, 0.5):
        torch.manual_seed(0)
        config = replace(CONFIG, conservative=weight, risk_learning_rate=3e-3)
        learned, batch = risk.Risk(SIZES, config), risk.RiskBatch.of(batch_of(rows))
        for _ in range(100):
            risk.update(learned, batch, config, unseen, generator())
        with torch.no_grad():
            ahead = learned.critic.risk(batch.observation, unseen(batch.observation)).mean()
            found[weight] = float(ahead), float(learned.critic.risk(*batch[:2]).mean())
    assert found[0.5][0] > 0.5 > found[0.0][0]
    assert found[0.5][1] < 0.4
