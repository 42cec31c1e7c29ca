"""Safety Q-functions for RL (SQRL, Srinivasan et al. 2020, arXiv 2010.14603): LR and a filter.

Of many actions drawn from the policy only those with Q_risk at most eps are allowed, and one is
chosen in proportion to its density; if none is allowed, the least risky.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from safetypilot.models.filtered import FilteredPolicy
from safetypilot.models.networks import member
from safetypilot.policies.learn.algorithms.lr import LagrangianRelaxation, LrSettings


@dataclass(frozen=True, kw_only=True)
class SqrlSettings(LrSettings):
    """Attributes:
    samples: actions that are drawn and filtered.
    """

    samples: int = 100


class Sqrl(LagrangianRelaxation):
    """LR whose actions pass a filter."""

    Settings = SqrlSettings

    def propose(self, observation: Tensor) -> Tensor:
        action, density, risk = self._candidates(observation)
        weight = torch.where(risk <= self.config.eps, density.softmax(dim=-1), 0.0)
        none_safe = (weight.sum(dim=-1) <= 0.0)[:, None]
        safest = nn.functional.one_hot(risk.argmin(dim=-1), weight.shape[-1]).to(weight.dtype)
        weight = torch.where(none_safe, safest, weight)
        chosen = torch.multinomial(weight, 1, generator=self.parts.generator)  # (S, 1)
        return pick(action, chosen)

    def deployed(self, seed: int) -> nn.Module:
        parts, config = self.parts, self.config
        return FilteredPolicy(
            member(parts.sac.actor, seed),
            member(parts.risk.critic, seed),
            config.eps,
            config.samples,
        )

    def _candidates(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Actions (S, N, A), their log-densities and risks (S, N), from observations (S, 1, O)."""
        rows = observation.expand(-1, self.config.samples, -1)
        action, density = self.parts.sac.actor.sample(rows, self.parts.generator)
        return action, density, self.parts.risk.critic.risk(rows, action)


def pick(action: Tensor, chosen: Tensor) -> Tensor:
    """One of N actions per seed: (S, N, A), (S, 1) -> (S, 1, A)."""
    index = chosen[..., None].expand(-1, -1, action.shape[-1])
    return action.gather(1, index)
