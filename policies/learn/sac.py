"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905): the task policy.

Letters: S seeds that train side by side, B batch, O observation, A action, K critics. Every loss
is summed over seeds: their weights are apart, so their gradients are too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everybody knows

from safetypilot.models.networks import GaussianActor, Sizes, TwinCritic
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.optimiser import Adam, frozen, polyak
from safetypilot.policies.learn.replay import Array, Transition

Metrics = dict[str, Tensor]

# (observation (S, B, O), action (S, B, A)) -> what the actor's loss has on top, (S, B)
Penalty = Callable[[Tensor, Tensor], Tensor]


def tensor(array: Array, device: torch.device | str = "cpu") -> Tensor:
    """As float32 on the device, whatever it was; pixels stay bytes, which encoders welcome."""
    kind = np.uint8 if array.dtype == np.uint8 else np.float32
    return torch.from_numpy(np.ascontiguousarray(array, kind)).to(device)


class TaskBatch(NamedTuple):
    """Rows for one update, float32."""

    observation: Tensor  # (S, B, O)
    action: Tensor  # (S, B, A), as proposed
    reward: Tensor  # (S, B)
    cost: Tensor  # (S, B)
    next_observation: Tensor  # (S, B, O)
    terminated: Tensor  # (S, B), 1 where nothing follows; a time-out is not termination
    demonstrated: Tensor  # (S, B), 1 where somebody showed how

    @classmethod
    def of(cls, rows: Transition, device: torch.device | str = "cpu") -> TaskBatch:
        """From replayed rows: the proposed action is what counts here."""
        return cls(
            tensor(rows.observation, device),
            tensor(rows.proposed, device),
            tensor(rows.reward, device),
            tensor(rows.cost, device),
            tensor(rows.next_observation, device),
            tensor(rows.terminated, device),
            torch.zeros(rows.cost.shape, device=device),
        )


class Sac:
    """Networks and optimisers of one soft actor-critic."""

    def __init__(self, sizes: Sizes, config: Config) -> None:
        """Build with fresh weights from torch's global generator."""
        self.actor = GaussianActor(sizes)
        self.critic = TwinCritic(sizes, probability=False)
        self.target = deepcopy(self.critic).requires_grad_(False)
        self.log_alpha = torch.full((sizes.seeds,), math.log(config.alpha), requires_grad=True)
        self.actor_optimiser = Adam(self.actor.parameters(), config.learning_rate)
        self.critic_optimiser = Adam(self.critic.parameters(), config.learning_rate)
        self.alpha_optimiser = Adam([self.log_alpha], config.learning_rate)

    @property
    def alpha(self) -> Tensor:
        """The temperature, (S, 1), without gradient."""
        return self.log_alpha.detach().exp()[:, None]


def bellman_target(
    sac: Sac, batch: TaskBatch, config: Config, generator: torch.Generator | None
) -> Tensor:
    """r + (1 - terminated) gamma (min Q(s', a') - alpha log pi(a'|s')), (S, B)."""
    with torch.no_grad():
        action, density = sac.actor.sample(batch.next_observation, generator)
        value = sac.target(batch.next_observation, action).amin(dim=1)
        value = value - sac.alpha * density
        follows = 1.0 - batch.terminated
        return config.reward_scale * batch.reward + follows * config.gamma * value


def update(
    sac: Sac,
    batch: TaskBatch,
    config: Config,
    generator: torch.Generator | None,
    penalty: Penalty | None = None,
) -> Metrics:
    """One step of critic, actor, temperature and target.

    The critic steps first and is then evaluated afresh for the actor, which alone takes the
    gradient: neither stale graphs nor the actor's gradients reach the critic.

    Args:
        sac: what learns.
        batch: rows.
        config: discount, rates, temperature.
        generator: of the policy's noise.
        penalty: what the actor pays beside its value, for constrained algorithms.
    """
    metrics = update_critic(sac, batch, bellman_target(sac, batch, config, generator))
    action, density = sac.actor.sample(batch.observation, generator)
    with frozen(sac.critic):
        value, _ = sac.critic(batch.observation, action).min(dim=1)
    loss = sac.alpha * density - value
    if penalty is not None:
        loss = loss + penalty(batch.observation, action)
    seeds, rows = density.shape
    actor_loss = loss.sum() / rows
    sac.actor_optimiser.zero_grad()
    actor_loss.backward()
    sac.actor_optimiser.step()

    entropy = -density.detach().mean(dim=1)  # (S,)
    wanted = config.target_entropy * action.shape[-1]
    metrics["task/actor_loss"] = actor_loss.detach() / seeds
    return metrics | update_rest(sac, config, entropy, wanted)


def update_critic(sac: Sac, batch: TaskBatch, target: Tensor) -> Metrics:
    """One step of the critics towards a target (S, B)."""
    values = sac.critic(batch.observation, batch.action)  # (S, K, B)
    seeds, critics, rows = values.shape
    wanted = target[:, None].expand(seeds, critics, rows)
    critic_loss = F.mse_loss(values, wanted, reduction="sum") / rows
    sac.critic_optimiser.zero_grad()
    critic_loss.backward()
    sac.critic_optimiser.step()
    return {
        "task/critic_loss": critic_loss.detach() / seeds,
        "task/value": values.detach().mean(),
    }


def update_rest(sac: Sac, config: Config, entropy: Tensor, wanted: float) -> Metrics:
    """One step of the temperature, from an entropy (S,) to the wanted, and of the target."""
    if config.automatic_alpha:
        sac.log_alpha.grad = entropy - wanted
        sac.alpha_optimiser.step()
    polyak(sac.target, sac.critic, config.tau)
    return {"task/entropy": entropy.mean(), "task/alpha": sac.alpha.mean()}
