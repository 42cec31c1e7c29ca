"""Safety Q-functions for RL (SQRL, Srinivasan et al. 2020, arXiv 2010.14603): LR and a filter.

Of many actions drawn from the policy only those with Q_risk at most eps are allowed, and one is
chosen in proportion to its density; if none is allowed, the least risky.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from safetypilot.models.filtered import FilteredPolicy
from safetypilot.models.networks import member
from safetypilot.policies.learn.algorithms import filtering
from safetypilot.policies.learn.algorithms.lr import LagrangianRelaxation, LrSettings
from safetypilot.policies.learn.errors import LearnError


@dataclass(frozen=True, kw_only=True)
class SqrlSettings(LrSettings):
    """Attributes:
    samples: actions that are drawn and filtered.
    """

    LEAST: ClassVar[int] = 1

    samples: int = 100

    def __post_init__(self) -> None:
        """Refuse a filter that has nothing to choose from."""
        super().__post_init__()
        if self.samples < self.LEAST:
            raise LearnError(f"samples is {self.samples}; it must be at least {self.LEAST}")


class Sqrl(LagrangianRelaxation):
    """LR whose actions pass a filter."""

    Settings = SqrlSettings

    def propose(self, observation: Tensor) -> Tensor:
        parts, config = self.parts, self.config
        found = filtering.draw(parts, observation, config.samples)
        return filtering.by_density(found, config.eps, parts.generator)

    def deployed(self, seed: int) -> nn.Module:
        parts, config = self.parts, self.config
        actor, critic = member(parts.sac.actor, seed), member(parts.risk.critic, seed)
        return FilteredPolicy(actor, critic, config.eps, config.samples)
