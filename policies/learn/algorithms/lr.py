"""Lagrangian relaxation (LR): the actor pays nu * (Q_risk - eps) (arXiv 2010.15920, appendix).

nu rises while the risk of the policy's own actions exceeds eps. In the original's code the learned
nu was never used: `nu_learning_rate=0` is that behaviour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from safetypilot.policies.learn.algorithms.base import Algorithm, Parts
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.multipliers import DualGradient
from safetypilot.policies.learn.optimiser import frozen
from safetypilot.policies.learn.sac import Metrics, TaskBatch


@dataclass(frozen=True, kw_only=True)
class LrSettings(Config):
    """Attributes:
    nu: the multiplier at first, in units of reward; 0 is none at all.
    nu_learning_rate: of log nu; 0 holds it.
    """

    recovery: str = "none"
    nu: float = 1000.0
    nu_learning_rate: float = 3e-5


class LagrangianRelaxation(Algorithm):
    """alpha log pi + nu (Q_risk - eps) - min Q."""

    Settings = LrSettings
    uses_risk = True

    def __init__(self, config: LrSettings, parts: Parts) -> None:
        super().__init__(config, parts)
        self.multiplier = DualGradient(config.nu, config.nu_learning_rate, parts.seeds)
        self.actor_penalty = self._penalty if config.nu > 0 else None
        self._excess = torch.zeros_like(parts.sac.log_alpha)  # in place, for `recorded`

    @property
    def nu(self) -> Tensor:
        """The multiplier now, (S,)."""
        return self.multiplier.value

    def _penalty(self, observation: Tensor, action: Tensor) -> Tensor:
        critic = self.parts.risk.critic
        with frozen(critic):
            excess = critic.risk(observation, action) - self.config.eps
        self._excess.copy_(excess.detach().mean(dim=1))
        # the critics' values are of scaled rewards, so what competes with them is scaled alike
        return self.config.reward_scale * self.nu[:, None] * excess

    def after_update(self, batch: TaskBatch) -> Metrics:
        if self.actor_penalty is None:
            return {}
        self.multiplier.step(self._excess)
        return {"task/multiplier": self.nu.mean(), "task/risk_excess": self._excess.mean()}

    def state(self) -> dict[str, Any]:
        return self.multiplier.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.multiplier.restore(state)
