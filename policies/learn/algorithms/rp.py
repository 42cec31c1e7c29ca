"""Reward penalty (RP): a violation costs reward (comparison in arXiv 2010.15920)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from safetypilot.policies.learn.algorithms.base import Algorithm
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.sac import TaskBatch


@dataclass(frozen=True, kw_only=True)
class RpSettings(Config):
    """Attributes:
    penalty: taken from the reward of a violating step, in units of reward.
    """

    recovery: str = "none"
    penalty: float = 1000.0


class RewardPenalty(Algorithm):
    """r - penalty * cost."""

    Settings = RpSettings

    def reward(self, batch: TaskBatch) -> Tensor:
        penalised: Tensor = batch.reward - self.config.penalty * batch.cost
        return penalised
