"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905): the task policy, reward only."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from safetypilot.models.networks import GaussianActor, Sizes, TwinCritic
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.replay import Array, Transition

Metrics = dict[str, Tensor]


def tensor(array: Array) -> Tensor:
    """As float32, whatever it was."""
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


class TaskBatch(NamedTuple):
    """Rows for one update, float32."""

    observation: Tensor  # (B, O)
    action: Tensor  # (B, A), as proposed
    reward: Tensor  # (B,)
    next_observation: Tensor  # (B, O)
    terminated: Tensor  # (B,), 1 where nothing follows; a time-out is not termination

    @classmethod
    def of(cls, rows: Transition) -> TaskBatch:
        """From replayed rows: the proposed action is what counts here."""
        return cls(
            tensor(rows.observation),
            tensor(rows.proposed),
            tensor(rows.reward),
            tensor(rows.next_observation),
            tensor(rows.terminated),
        )


class Sac:
    """Networks and optimisers of one soft actor-critic."""

    def __init__(self, sizes: Sizes, config: Config) -> None:
        """Build with fresh weights from torch's global generator."""
        self.actor = GaussianActor(sizes)
        self.critic = TwinCritic(sizes, probability=False)
        self.target = deepcopy(self.critic).requires_grad_(False)
        self.log_alpha = torch.tensor(math.log(config.alpha), requires_grad=True)
        self.actor_optimiser = adam(self.actor, config.learning_rate)
        self.critic_optimiser = adam(self.critic, config.learning_rate)
        self.alpha_optimiser = torch.optim.Adam([self.log_alpha], config.learning_rate)

    @property
    def alpha(self) -> float:
        return math.exp(self.log_alpha.item())


def adam(module: torch.nn.Module, rate: float) -> torch.optim.Optimizer:
    """Adam in its fused form: one call for all tensors."""
    return torch.optim.Adam(module.parameters(), rate, fused=True)


def polyak(target: torch.nn.Module, source: torch.nn.Module, rate: float) -> None:
    """Move a target network by `rate` towards its source."""
    with torch.no_grad():
        torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), rate)


def bellman_target(
    sac: Sac, batch: TaskBatch, config: Config, generator: torch.Generator
) -> Tensor:
    """r + (1 - terminated) gamma (min Q(s', a') - alpha log pi(a'|s')), (B,)."""
    with torch.no_grad():
        action, density = sac.actor.sample(batch.next_observation, generator)
        value = sac.target(batch.next_observation, action).amin(dim=0)
        value = value - sac.log_alpha.exp() * density
        follows = 1.0 - batch.terminated
        return config.reward_scale * batch.reward + follows * config.gamma * value


def update(sac: Sac, batch: TaskBatch, config: Config, generator: torch.Generator) -> Metrics:
    """One step of critic, actor, temperature and target.

    The critic steps first and is then evaluated afresh for the actor, with its own parameters
    frozen: neither stale graphs nor the actor's gradients reach it.
    """
    target = bellman_target(sac, batch, config, generator)
    values = sac.critic(batch.observation, batch.action)  # (2, B)
    critic_loss = (values - target).square().mean(dim=1).sum()
    sac.critic_optimiser.zero_grad()
    critic_loss.backward()
    sac.critic_optimiser.step()

    alpha = sac.log_alpha.exp().detach()
    action, density = sac.actor.sample(batch.observation, generator)
    sac.critic.requires_grad_(False)
    value = sac.critic(batch.observation, action).amin(dim=0)
    actor_loss = (alpha * density - value).mean()
    sac.actor_optimiser.zero_grad()
    actor_loss.backward()
    sac.actor_optimiser.step()
    sac.critic.requires_grad_(True)

    entropy = -density.detach().mean()
    if config.automatic_alpha:
        wanted = config.target_entropy * action.shape[-1]
        alpha_loss = sac.log_alpha * (entropy - wanted)
        sac.alpha_optimiser.zero_grad()
        alpha_loss.backward()
        sac.alpha_optimiser.step()
    polyak(sac.target, sac.critic, config.tau)
    return {
        "task/critic_loss": critic_loss.detach(),
        "task/actor_loss": actor_loss.detach(),
        "task/value": values.detach().mean(),
        "task/entropy": entropy,
        "task/alpha": alpha,
    }
