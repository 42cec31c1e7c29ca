"""What an algorithm is to the learner: soft actor-critic, and the places where others differ.

Letters: S seeds that train side by side, B batch, O observation, A action.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from safetypilot.models.networks import member
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.risk import Risk
from safetypilot.policies.learn.sac import Metrics, Penalty, Sac, TaskBatch


@dataclass
class Parts:
    """What the learner gives an algorithm to work with."""

    sac: Sac
    risk: Risk
    generator: torch.Generator
    seeds: int


class Algorithm:
    """Soft actor-critic. Each method is a place where a constrained algorithm may differ.

    Attributes:
        Settings: its settings and their defaults.
        uses_risk: whether Q_risk is trained, offline first.
        actor_penalty: what the actor pays beside its value.
    """

    Settings: ClassVar[type[Config]] = Config
    uses_risk: ClassVar[bool] = False

    def __init__(self, config: Any, parts: Parts) -> None:
        self.config = config
        self.parts = parts
        self.actor_penalty: Penalty | None = None

    def reward(self, batch: TaskBatch) -> Tensor:
        """What the task critic takes for reward, (S, B)."""
        return batch.reward

    def propose(self, observation: Tensor) -> Tensor:
        """An action to explore with, (S, 1, O) -> (S, 1, A)."""
        return self.sample(observation)

    def sample(self, observation: Tensor) -> Tensor:
        """An action of the task policy, (S, B, O) -> (S, B, A)."""
        return self.parts.sac.actor.sample(observation, self.parts.generator)[0]

    def recovery_loss(self, observation: Tensor, action: Tensor) -> Tensor:
        """What the recovery policy descends, (S, B): the risk of its actions (S, B, A)."""
        return self.parts.risk.critic.risk(observation, action)

    def after_update(self, batch: TaskBatch) -> Metrics:
        """A step of the multipliers, after each of the task policy."""
        return {}

    def start_episode(self, seed: int, number: int) -> None:
        """Called before episode `number` (1, 2, ...) of one seed."""

    def deployed(self, seed: int) -> nn.Module:
        """The task policy of one seed as it flies, S = 1."""
        return member(self.parts.sac.actor, seed)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs beside networks and buffers."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
