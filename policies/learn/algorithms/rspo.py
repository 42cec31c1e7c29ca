"""Risk-sensitive policy optimisation (RSPO): LR with a multiplier that falls on a schedule.

The comparison of Recovery RL (arXiv 2010.15920): nu goes linearly from twice LR's to 0 over the
run, with nothing learned about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from safetypilot.policies.learn.algorithms.base import Parts
from safetypilot.policies.learn.algorithms.lr import LagrangianRelaxation, LrSettings
from safetypilot.policies.learn.sac import Metrics, TaskBatch


@dataclass(frozen=True, kw_only=True)
class RspoSettings(LrSettings):
    """Attributes:
    nu: the multiplier of the first episode.
    nu_end: of the last.
    """

    nu: float = 2000.0
    nu_end: float = 0.0


class Rspo(LagrangianRelaxation):
    """nu by the number of the episode."""

    Settings = RspoSettings

    def __init__(self, config: RspoSettings, parts: Parts) -> None:
        super().__init__(config, parts)
        self._nu = torch.full((parts.seeds,), config.nu)

    @property
    def nu(self) -> Tensor:
        return self._nu

    def start_episode(self, seed: int, number: int) -> None:
        config = self.config
        done = min(1.0, (number - 1) / max(1, config.episodes - 1))
        self._nu[seed] = config.nu + done * (config.nu_end - config.nu)

    def after_update(self, batch: TaskBatch) -> Metrics:
        return {"task/multiplier": self.nu.mean(), "task/risk_excess": self._excess.mean()}

    def state(self) -> dict[str, Any]:
        return {"nu": self._nu.clone()}

    def restore(self, state: dict[str, Any]) -> None:
        self._nu.copy_(state["nu"])
