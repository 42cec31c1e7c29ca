"""Soft actor-critic over n choices (Christodoulou 2019, arXiv 1910.07207).

What the Gaussian policy samples is summed here: values, entropies and penalties are expectations
over all choices, with no noise and no reparametrisation. An action is a one-hot vector; the critics
stay functions of observation and action, and see all n one-hots as one batch. Letters: S seeds, B
batch, O observation, n choices, K critics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from safetypilot.models.categorical import (
    CategoricalActor,
    ChoiceCritic,
    ChoiceDynamics,
    FilteredChoice,
    each_choice,
    every_choice,
)
from safetypilot.models.filtered import FilteredPolicy
from safetypilot.models.networks import Sizes, TwinCritic
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.optimiser import Adam
from safetypilot.policies.learn.replay import Array, Transition
from safetypilot.policies.learn.risk import RecoveryLoss, Risk
from safetypilot.policies.learn.sac import (
    Metrics,
    Penalty,
    Sac,
    TaskBatch,
    update_critic,
    update_rest,
)

PREFIX = "choice_"  # of the action names of an environment with discrete actions
_SHARPNESS = 10.0  # of preferences in [0, 1] as weights: a full one counts e^10 times an empty one


def is_choice(action_names: Sequence[str]) -> bool:
    """Whether actions are preferences among choices (envs/discrete.py)."""
    return len(action_names) > 0 and all(name.startswith(PREFIX) for name in action_names)


class ChoiceSac(Sac):
    """Networks and optimisers of one discrete soft actor-critic."""

    def __init__(self, sizes: Sizes, config: Config) -> None:
        """Build with fresh weights from torch's global generator."""
        super().__init__(sizes, config)
        self.actor = CategoricalActor(sizes)
        self.actor_optimiser = Adam(self.actor.parameters(), config.learning_rate)


class ChoiceRisk(Risk):
    """Q_risk of the choice that preferences make; the recovery policy has preferences."""

    def __init__(self, sizes: Sizes, config: Config) -> None:
        """Build with fresh weights from torch's global generator."""
        super().__init__(sizes, config)
        self.critic = ChoiceCritic(sizes, probability=True, critics=config.risk_critics)
        self.target = deepcopy(self.critic).requires_grad_(False)
        self.critic_optimiser = Adam(self.critic.parameters(), config.risk_learning_rate)


def bellman_target(sac: Sac, batch: TaskBatch, config: Config) -> Tensor:
    """r + (1 - terminated) gamma sum_a pi(a|s') (min Q(s', a) - alpha log pi(a|s')), (S, B)."""
    with torch.no_grad():
        probability, log = sac.actor.distribution(batch.next_observation)  # (S, B, n)
        value = each_choice(sac.target, batch.next_observation).amin(dim=1)
        soft = (probability * (value - sac.alpha[..., None] * log)).sum(dim=-1)
        follows = 1.0 - batch.terminated
        return config.reward_scale * batch.reward + follows * config.gamma * soft


def update(
    sac: Sac,
    batch: TaskBatch,
    config: Config,
    generator: torch.Generator | None,
    penalty: Penalty | None = None,
) -> Metrics:
    """One step of critic, actor, temperature and target.

    Args:
        sac: what learns, a `ChoiceSac`.
        batch: rows, their actions one-hot.
        config: discount, rates, temperature; the target entropy is `choice_entropy` log n.
        generator: of the choices that a penalty hears of last.
        penalty: what the actor pays beside its value, for constrained algorithms.
    """
    metrics = update_critic(sac, batch, bellman_target(sac, batch, config))
    observation = batch.observation
    seeds, rows = batch.reward.shape
    with torch.no_grad():
        cost = -each_choice(sac.critic, observation).amin(dim=1)  # (S, B, n)
        if penalty is not None:
            cost = cost + _of_every_choice(penalty, observation, sac.actor.sizes.action)
            # Its multiplier follows what it saw last: let that be what the policy does.
            penalty(observation, sac.actor.sample(observation, generator)[0])
    probability, log = sac.actor.distribution(observation)
    actor_loss = (probability * (sac.alpha[..., None] * log + cost)).sum() / rows
    if config.cloning > 0:  # as `cloning`, with the cross-entropy of what was demonstrated
        missed = -(batch.action * log).sum(dim=-1) * batch.demonstrated
        actor_loss = actor_loss + config.cloning * missed.sum() / rows
    sac.actor_optimiser.zero_grad()
    actor_loss.backward()
    sac.actor_optimiser.step()

    entropy = -(probability * log).detach().sum(dim=-1).mean(dim=1)  # (S,)
    wanted = config.choice_entropy * math.log(sac.actor.sizes.action)
    metrics["task/actor_loss"] = actor_loss.detach() / seeds
    return metrics | update_rest(sac, config, entropy, wanted)


def _of_every_choice(penalty: Penalty, observation: Tensor, count: int) -> Tensor:
    """A penalty on each of n choices, (S, B, O) -> (S, B, n)."""
    rows = observation.repeat_interleave(count, dim=1)
    return penalty(rows, every_choice(observation, count)).view(*observation.shape[:2], count)


def expected(loss: RecoveryLoss) -> RecoveryLoss:
    """The loss of preferences (S, B, n): that of every choice, weighted as they prefer it.

    A choice has no gradient, and a critic that was trained on choices knows nothing between them.
    """

    def mean(observation: Tensor, preferences: Tensor) -> Tensor:
        with torch.no_grad():
            each = _of_every_choice(loss, observation, preferences.shape[-1])
        return ((_SHARPNESS * preferences).softmax(dim=-1) * each).sum(dim=-1)

    return mean


def choices(transition: Transition) -> Transition:
    """One or many transitions with the choices that their preferences made, one-hot."""
    return transition._replace(
        proposed=_one_hot(transition.proposed), executed=_one_hot(transition.executed)
    )


def _one_hot(preferences: Array) -> Array:
    """(..., n) -> (..., n)."""
    count = preferences.shape[-1]
    hot: Array = np.eye(count, dtype=np.float32)[np.argmax(preferences, axis=-1)]
    return hot


def deployed(network: nn.Module) -> nn.Module:
    """A network as it flies: it takes any preferences, and knows how to filter choices."""
    if isinstance(network, FilteredPolicy) and isinstance(network.actor, CategoricalActor):
        return FilteredChoice(network.actor, network.critic, network.eps)
    if isinstance(network, TwinCritic) and not isinstance(network, ChoiceCritic):
        alone = ChoiceCritic(network.sizes, network.probability, network.critics)
        alone.load_state_dict(network.state_dict())
        return alone
    return network


# what a learner is made of: task policy, Q_risk, dynamics
KINDS = (ChoiceSac, ChoiceRisk, ChoiceDynamics)
