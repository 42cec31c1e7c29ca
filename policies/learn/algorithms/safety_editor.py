"""Safety editor: a second policy always acts, and strays from the task only where it must.

After the branch that Recovery RL's authors left open, and Yu et al. 2022 (SEditor, arXiv
2201.12427): the editor descends Q_risk plus `editor_weight` times the value that its action gives
up against the task policy's, max(0, Q(s, a_task) - Q(s, a_editor)).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from safetypilot.models.networks import member
from safetypilot.policies.learn.algorithms.base import Algorithm
from safetypilot.policies.learn.config import Config


@dataclass(frozen=True, kw_only=True)
class EditorSettings(Config):
    """Attributes:
    editor_weight: of value given up, per unit of risk. The branch's default of 0 never heeds
        the task; its example was 0.5.
    relabel: off; with an editor that always acts, a proposal says nothing of what came of it.
    """

    recovery: str = "editor"
    editor_weight: float = 0.5
    relabel: bool = False


class SafetyEditor(Algorithm):
    """The recovery policy as editor."""

    Settings = EditorSettings
    uses_risk = True

    def recovery_loss(self, observation: Tensor, action: Tensor) -> Tensor:
        parts = self.parts
        with torch.no_grad():
            proposed = self.sample(observation)
            wanted = parts.sac.critic(observation, proposed).amin(dim=1)
        got = parts.sac.critic(observation, action).amin(dim=1)
        loss: Tensor = parts.risk.critic.risk(observation, action)
        return loss + self.config.editor_weight * (wanted - got).clamp(min=0.0)

    def deployed(self, seed: int) -> nn.Module:
        return member(self.parts.risk.recovery, seed)
