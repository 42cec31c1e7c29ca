"""Who recovers in training: planner, policy or samples on the networks as they are at each call.

Letters: H plan length, O observation, A action.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from safetypilot.models.networks import DynamicsEnsemble
from safetypilot.policies.learn.flight import (
    PlannedRecovery,
    PolicyRecovery,
    Recovery,
    SampledRecovery,
)
from safetypilot.policies.learn.learner import Learner
from safetypilot.policies.learn.visual import LiveEncoder, LiveLatentCritic, LiveTransition

Array = NDArray[np.float32]


class LearnedCritic:
    """One seed's Q_risk as it is now, called like a model file."""

    def __init__(self, learner: Learner, index: int) -> None:
        self._learner, self._index = learner, index

    def run(self, **rows: Array) -> dict[str, Array]:
        device = self._learner.device
        with torch.no_grad():
            inputs = (
                torch.from_numpy(np.ascontiguousarray(rows[name], np.float32)).to(device)
                for name in ("observation", "action")
            )
            risk = self._learner.risk.critic.risk_alone(self._index, *inputs)
        return {"risk": risk.cpu().numpy()}


class LearnedDynamics:
    """One seed's ensemble as it is now, called like a model file."""

    def __init__(self, learner: Learner, index: int) -> None:
        self._network: DynamicsEnsemble = learner.dynamics[index]
        self._device = learner.device
        self.members = self._network.members

    def run(self, **rows: Array) -> dict[str, Array]:
        with torch.no_grad():
            inputs = (
                torch.from_numpy(np.ascontiguousarray(rows[name], np.float32)).to(self._device)
                for name in ("observation", "action", "noise")
            )
            following: Array = self._network(*inputs).cpu().numpy()
        return {"next_observation": following}


def learned_recovery(learner: Learner, index: int) -> Recovery | None:
    """Who recovers in training, with the networks as they are at each call."""
    config, interface, seed = learner.config, learner.interface, learner.seeds[index]
    if config.recovery == "model-based":
        critic, dynamics = LearnedCritic(learner, index), LearnedDynamics(learner, index)
        return PlannedRecovery(config, interface, dynamics, critic, seed)
    if learner.visual is not None:
        eyes, model = LiveEncoder(learner.visual), LiveTransition(learner.visual)
        judge = LiveLatentCritic(learner.risk.critic)
        return PlannedRecovery(config, interface, model, judge, seed, eyes)
    if config.recovery == "q-sampling":
        return SampledRecovery(config, interface, LearnedCritic(learner, index), seed)
    if config.recovery in ("model-free", "editor"):
        return PolicyRecovery(lambda observation: learner.recover(observation, index))
    return None
