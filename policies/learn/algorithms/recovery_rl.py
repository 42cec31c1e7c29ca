"""Recovery RL (Thananjeyan, Balakrishna et al. 2021, arXiv 2010.15920), and what makes it better.

A task policy that only sees reward proposes; where the learned risk Q_risk of its proposal exceeds
eps, a recovery that only sees risk acts instead (the shield, in `flight`). Offline data that hold
violations teach Q_risk, the dynamics and the recovery policy before the first episode, so few are
met online. The task policy learns what comes of its proposals (relabelling), Q_risk what comes of
actions. `recovery` chooses who recovers: a planner on the learned dynamics, a policy that descends
Q_risk, or the least risky of many random actions.

Two things can be added, both off in the paper. With `samples` the task policy proposes what SQRL
would do, a safe one of many draws, so that the recovery acts only where no draw is safe; with `nu`
it also pays for risk as in LR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from safetypilot.policies.learn.algorithms.lr import LagrangianRelaxation
from safetypilot.policies.learn.algorithms.sqrl import Sqrl, SqrlSettings


@dataclass(frozen=True, kw_only=True)
class RecoverySettings(SqrlSettings):
    """Attributes:
    samples: proposals to choose from; 0 proposes the first, as published.
    nu: LR's multiplier at first, in units of reward; 0 leaves the task policy free, as published.
    """

    LEAST: ClassVar[int] = 0

    recovery: str = "model-based"
    samples: int = 0
    nu: float = 0.0


class RecoveryRL(Sqrl):
    """Soft actor-critic behind the shield; most of its own is in `risk`, `dynamics`, `flight`."""

    Settings = RecoverySettings

    def propose(self, observation: Tensor) -> Tensor:
        filtered = self.config.samples > 0
        return super().propose(observation) if filtered else self.sample(observation)

    def deployed(self, seed: int) -> nn.Module:
        if self.config.samples > 0:
            return super().deployed(seed)
        return LagrangianRelaxation.deployed(self, seed)
