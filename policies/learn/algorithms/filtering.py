"""Drawing many actions and keeping those that Q_risk allows.

Letters: S seeds, N candidates, O observation, A action.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everybody knows

from safetypilot.policies.learn.algorithms.base import Parts


class Candidates(NamedTuple):
    """Actions drawn from the task policy in one state per seed."""

    action: Tensor  # (S, N, A)
    density: Tensor  # (S, N), log
    risk: Tensor  # (S, N)


def draw(parts: Parts, observation: Tensor, count: int) -> Candidates:
    """Draw candidates in the observations (S, 1, O)."""
    actor, critic = parts.sac.actor, parts.risk.critic
    action, density = actor.draw(observation, count, parts.generator)
    features = critic.encode(observation).expand(-1, count, -1)
    return Candidates(action, density, critic.risk_of(features, action))


def by_density(found: Candidates, eps: float, generator: torch.Generator) -> Tensor:
    """One of the safe ones in proportion to its density, else the least risky, (S, 1, A)."""
    weight = torch.where(found.risk <= eps, found.density.softmax(dim=-1), 0.0)
    none_safe = (weight.sum(dim=-1) <= 0.0)[:, None]
    safest = F.one_hot(found.risk.argmin(dim=-1), weight.shape[-1]).to(weight.dtype)
    weight = torch.where(none_safe, safest, weight)
    return _pick(found.action, torch.multinomial(weight, 1, generator=generator))


def first_safe(found: Candidates, eps: float) -> Tensor:
    """The first that is safe, else the least risky, (S, 1, A)."""
    safe = found.risk <= eps  # (S, N)
    first = safe.to(torch.int8).argmax(dim=-1)  # of several largest, the first
    chosen = torch.where(safe.any(dim=-1), first, found.risk.argmin(dim=-1))
    return _pick(found.action, chosen[:, None])


def _pick(action: Tensor, chosen: Tensor) -> Tensor:
    """One of N actions per seed: (S, N, A), (S, 1) -> (S, 1, A)."""
    index = chosen[..., None].expand(-1, -1, action.shape[-1])
    return action.gather(1, index)
