"""The safety critic Q_risk and the model-free recovery policy (Recovery RL, arXiv 2010.15920).

Q_risk(s, a) estimates the discounted probability of a violation after a in s. The cost of a
transition is that of the state it leads to, so the target is
`cost + (1 - terminated) gamma_safe max Q(s', a')`.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everybody knows

from safetypilot.models.networks import RecoveryActor, Sizes, TwinCritic
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.optimiser import Adam, frozen, polyak
from safetypilot.policies.learn.replay import Transition
from safetypilot.policies.learn.sac import Metrics, tensor

NextAction = Callable[[Tensor], Tensor]  # (S, B, O) -> (S, B, A)
RecoveryLoss = Callable[[Tensor, Tensor], Tensor]  # (S, B, O), (S, B, A) -> (S, B)


class RiskBatch(NamedTuple):
    """Rows for one update, float32."""

    observation: Tensor  # (S, B, O)
    action: Tensor  # (S, B, A), as executed
    cost: Tensor  # (S, B), 1 where the step violated
    next_observation: Tensor  # (S, B, O)
    terminated: Tensor  # (S, B)

    @classmethod
    def of(cls, rows: Transition, device: torch.device | str = "cpu") -> RiskBatch:
        """From replayed rows: the executed action is what counts here."""
        return cls(
            tensor(rows.observation, device),
            tensor(rows.executed, device),
            tensor(rows.cost, device),
            tensor(rows.next_observation, device),
            tensor(rows.terminated, device),
        )


class Risk:
    """Networks and optimisers of Q_risk and of the recovery policy that descends it."""

    def __init__(self, sizes: Sizes, config: Config) -> None:
        """Build with fresh weights from torch's global generator."""
        self.critic = TwinCritic(sizes, probability=True, critics=config.risk_critics)
        self.target = deepcopy(self.critic).requires_grad_(False)
        self.recovery = RecoveryActor(sizes, config.recovery_deviation)
        self.critic_optimiser = Adam(self.critic.parameters(), config.risk_learning_rate)
        self.recovery_optimiser = Adam(self.recovery.parameters(), config.risk_learning_rate)


def composite(
    risk: Risk, task: NextAction, config: Config, generator: torch.Generator | None
) -> NextAction:
    """What the shield would execute: the task action if its risk is at most eps, else recovery.

    With a model-based recovery the learned recovery policy stands in for the planner.
    """

    def act(observation: Tensor) -> Tensor:
        proposed = task(observation)
        risky = risk.critic.risk(observation, proposed) > config.eps
        recovery = risk.recovery.sample(observation, generator)
        return torch.where(risky[..., None], recovery, proposed)

    return act


def bellman_target(
    risk: Risk, batch: RiskBatch, next_action: NextAction, gamma_safe: float
) -> Tensor:
    """cost + (1 - cost) (1 - terminated) gamma_safe max Q(s', a'), (S, B), always in [0, 1]."""
    with torch.no_grad():
        action = next_action(batch.next_observation)
        later = risk.target.risk(batch.next_observation, action)
        follows = (1.0 - batch.terminated) * (1.0 - batch.cost)
        return batch.cost + follows * gamma_safe * later


def error(logits: Tensor, target: Tensor, kind: str) -> Tensor:
    """How wrong each estimate is, (S, K, B), (S, B) -> (S, K, B); least at the mean target.

    `squared` is the published one. Its gradient vanishes where the sigmoid is sure, so a place
    once believed safe stays so whatever happens there; `cross-entropy` has no such dead zone.
    """
    target = target[:, None].expand_as(logits)
    if kind == "squared":
        return (torch.sigmoid(logits) - target).square()
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def conservative_gap(
    risk: Risk, batch: RiskBatch, logits: Tensor, next_action: NextAction
) -> Tensor:
    """How much safer the policy's actions look than those that were seen, (S, K).

    Conservative Safety Critics (Bharadhwaj et al. 2021, arXiv 2010.14497, Eq. 3) subtract it from
    nothing: minimising it raises the risk of actions that no data speak for. In logits, whose
    gradient does not vanish where the critic is sure.
    """
    with torch.no_grad():
        action = next_action(batch.observation)
    unseen = risk.critic.logits(batch.observation, action)
    return (logits - unseen).mean(dim=2)


def update(
    risk: Risk,
    batch: RiskBatch,
    config: Config,
    next_action: NextAction,
    generator: torch.Generator | None,
    recovery_loss: RecoveryLoss | None = None,
) -> Metrics:
    """One step of Q_risk, of the recovery policy on the same states, and of the target.

    Args:
        risk: what learns.
        batch: rows.
        config: discount, rates, kind of loss.
        next_action: whose action follows.
        generator: of the recovery policy's noise.
        recovery_loss: what the recovery policy descends; None leaves it alone.
    """
    target = bellman_target(risk, batch, next_action, config.gamma_safe)
    logits = risk.critic.logits(batch.observation, batch.action)  # (S, K, B)
    loss = error(logits, target, config.risk_loss).mean(dim=2).sum()
    if config.conservative > 0:
        loss = loss + config.conservative * conservative_gap(risk, batch, logits, next_action).sum()
    risk.critic_optimiser.zero_grad()
    loss.backward()
    risk.critic_optimiser.step()
    seeds = len(target)
    metrics = {"risk/loss": loss.detach() / seeds, "risk/value": logits.detach().sigmoid().mean()}
    if recovery_loss is not None:
        action = risk.recovery.sample(batch.observation, generator)
        with frozen(risk.critic):
            descended = recovery_loss(batch.observation, action).mean(dim=1).sum()
        risk.recovery_optimiser.zero_grad()
        descended.backward(inputs=list(risk.recovery.parameters()))
        risk.recovery_optimiser.step()
        metrics["risk/recovery_loss"] = descended.detach() / seeds
    polyak(risk.target, risk.critic, config.tau_safe)
    return metrics
