"""Recovery from pixels: a latent model learned offline, then Q_risk and plans in its latents.

Recovery RL's visual variant (arXiv 2010.15920). The encoder is frozen once it has been fitted; the
task policy keeps its own eyes. Letters: B rows, O observation, L latent, A action.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from safetypilot.models.latent import LatentEncoder, LatentModel, LatentSizes
from safetypilot.models.networks import TwinCritic
from safetypilot.policies.learn import latent
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.latent import LatentConfig
from safetypilot.policies.learn.risk import Risk
from safetypilot.policies.learn.sequences import Sequences

Array = NDArray[np.float32]


class Visual:
    """The latent model of one seed, and its training."""

    def __init__(self, sizes: LatentSizes, config: Config, seed: int) -> None:
        """Build with fresh weights from torch's global generator."""
        self.model = LatentModel(sizes)
        settings = LatentConfig(
            steps=config.latent_steps, batch=config.latent_batch, length=config.latent_length
        )
        self.training = latent.Training(self.model, settings, (seed,))
        self._data: Sequences | None = None

    def load(self, data: Mapping[str, Any]) -> None:
        """Take offline transitions of pixels."""
        self._data = Sequences(data)

    def fit(self, risk: Risk, report: latent.Report | None = None) -> latent.Metrics:
        """Fit to the data, and give Q_risk and recovery policy the encoder, for good."""
        if self._data is None:
            return {}
        metrics = latent.fit(self.training, [self._data], report=report)
        metrics |= latent.prediction_errors(self.model, [self._data])
        self._data = None
        weights = self.model.encoder.state_dict()
        for network in (risk.critic, risk.target, risk.recovery):
            if isinstance(network.encoder, LatentEncoder):
                network.encoder.load_state_dict(weights)
        return metrics

    def networks(self, risk: Risk) -> dict[str, nn.Module]:
        """What a planner in latents flies with, by kind."""
        model = deepcopy(self.model)
        return {
            "encoder": model.encoder,
            "dynamics": model.transition,
            "latent_critic": without_encoder(risk.critic),
        }


def without_encoder(critic: TwinCritic) -> TwinCritic:
    """A critic of latents, from one of pixels behind a frozen encoder; a copy."""
    sizes = replace(critic.sizes, observation=critic.sizes.features, image=None)
    alone = TwinCritic(sizes, critic.probability, critic.critics)
    alone.network.load_state_dict(critic.network.state_dict())
    alone.scaling.action_middle.copy_(critic.scaling.action_middle)
    alone.scaling.action_half.copy_(critic.scaling.action_half)
    return alone


class LiveEncoder:
    """The encoder as it is now, called like a model file."""

    def __init__(self, visual: Visual) -> None:
        self._encoder = visual.model.encoder
        self._device = _device(self._encoder)

    def run(self, **rows: Array) -> dict[str, Array]:
        with torch.no_grad():
            row = _row(rows["observation"], self._device)
            latents: Array = self._encoder(row[None])[0].cpu().numpy()
        return {"latent": latents}


class LiveTransition:
    """The latent dynamics as it is now, called like a model file."""

    members = 1
    deterministic = True

    def __init__(self, visual: Visual) -> None:
        self._transition = visual.model.transition
        self._device = _device(self._transition)

    def run(self, **rows: Array) -> dict[str, Array]:
        with torch.no_grad():
            inputs = (_row(rows[name], self._device) for name in ("observation", "action"))
            following = self._transition(*inputs)
        return {"next_observation": following.cpu().numpy()}


class LiveLatentCritic:
    """Q_risk of latents as it is now, called like a model file."""

    def __init__(self, critic: TwinCritic) -> None:
        self._critic = critic
        self._device = _device(critic)

    def run(self, **rows: Array) -> dict[str, Array]:
        with torch.no_grad():
            inputs = (_row(rows[name], self._device)[None] for name in ("observation", "action"))
            risk = self._critic.risk_of(*inputs)
        return {"risk": risk[0].cpu().numpy()}


def _row(array: Array, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(device)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
