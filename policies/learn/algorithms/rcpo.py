"""Reward constrained policy optimisation (Tessler et al. 2019, arXiv 1805.11074), with Q_risk.

As compared in Recovery RL (arXiv 2010.15920): the task critic's reward is lowered by
lambda * Q_risk(s, a), and lambda rises while the risk of what was done exceeds eps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from safetypilot.policies.learn.algorithms.base import Algorithm, Parts
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.multipliers import DualGradient
from safetypilot.policies.learn.sac import Metrics, TaskBatch


@dataclass(frozen=True, kw_only=True)
class RcpoSettings(Config):
    """Attributes:
    penalty: lambda at first, in units of reward.
    penalty_learning_rate: of log lambda; 0 holds it.
    """

    recovery: str = "none"
    penalty: float = 1000.0
    penalty_learning_rate: float = 3e-5


class Rcpo(Algorithm):
    """r - lambda Q_risk(s, a)."""

    Settings = RcpoSettings
    uses_risk = True

    def __init__(self, config: RcpoSettings, parts: Parts) -> None:
        super().__init__(config, parts)
        self.multiplier = DualGradient(config.penalty, config.penalty_learning_rate, parts.seeds)
        self._risk = torch.zeros_like(parts.sac.log_alpha)  # in place, for `recorded`

    def reward(self, batch: TaskBatch) -> Tensor:
        with torch.no_grad():
            risk = self.parts.risk.critic.risk(batch.observation, batch.action)
        self._risk.copy_(risk.mean(dim=1))
        return batch.reward - self.multiplier.value[:, None] * risk

    def after_update(self, batch: TaskBatch) -> Metrics:
        self.multiplier.step(self._risk - self.config.eps)
        return {"task/multiplier": self.multiplier.value.mean(), "task/risk": self._risk.mean()}

    def state(self) -> dict[str, Any]:
        return self.multiplier.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.multiplier.restore(state)
