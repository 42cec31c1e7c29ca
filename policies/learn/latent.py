"""Trains the latent visual dynamics of Recovery RL (arXiv 2010.15920), and reads images with it.

One loss for encoder, transition and decoder: from a frame's latent, roll ahead and compare every
decoded step with the frame that came, at first none ahead and at last `ahead`; beside it the KL
divergence that keeps latents near a standard normal. Letters: S seeds, B batch, T steps of a
stretch, k steps ahead, N rows, O observation, A action, L latent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safetypilot.models.latent import LatentEncoder, LatentModel
from safetypilot.policies.learn import sequences
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.sequences import Sequences, Stretch

Metrics = dict[str, Tensor]
Report = Callable[[int, Metrics], None]


@dataclass(frozen=True)
class LatentConfig:
    """How to train a latent model.

    Attributes:
        steps: gradient steps.
        batch: B, stretches per step and seed.
        length: T; a stretch of T steps begins T + 1 - k rolls of k steps.
        ahead: how far the last stage rolls; the stages before roll 0, 1, 2 ... and each lasts
            as long.
        kl: weight of the KL divergence, against a squared error of pixels 0 ... 255.
        learning_rate: of Adam.
        adam_epsilon: of Adam.
    """

    steps: int = 3000
    batch: int = 32
    length: int = 5
    ahead: int = 5
    kl: float = 10.0
    learning_rate: float = 1e-3
    adam_epsilon: float = 1e-4

    def __post_init__(self) -> None:
        """Refuse settings that cannot train."""
        checks = {
            "steps": self.steps >= 1,
            "batch": self.batch >= 1,
            "length": self.length >= 1,
            "ahead": 0 <= self.ahead <= self.length,
            "kl": self.kl >= 0,
            "learning_rate": self.learning_rate > 0,
            "adam_epsilon": self.adam_epsilon > 0,
        }
        wrong = [f"{name}={getattr(self, name)!r}" for name, good in checks.items() if not good]
        if wrong:
            raise LearnError(
                f"latent settings out of range: {', '.join(wrong)}; all must be above 0, and "
                "ahead at most length"
            )

    @classmethod
    def published(cls) -> LatentConfig:
        """As in Recovery RL: some 400 times the work of the default."""
        return cls(20_000, 256, length=20, ahead=5, kl=10.0, learning_rate=3e-4)

    def ahead_at(self, step: int) -> int:
        """How far to roll at a step: the curriculum."""
        return min(self.ahead, step * (self.ahead + 1) // self.steps)


class Training:
    """A latent model on its way: weights, optimisers, chance and the step it is at."""

    def __init__(self, model: LatentModel, config: LatentConfig, seeds: Sequence[int]) -> None:
        """Begin.

        Args:
            model: fresh, of as many seeds as are given.
            config: settings.
            seeds: of the batches, one for each of the S.
        """
        if len(seeds) != model.sizes.seeds:
            raise LearnError(f"{len(seeds)} seeds given, the model holds {model.sizes.seeds}")
        self.model, self.config, self.step = model, config, 0
        rate, epsilon = config.learning_rate, config.adam_epsilon
        self.optimiser = torch.optim.Adam(model.parameters(), rate, eps=epsilon)
        self.fine = torch.optim.Adam(model.transition.parameters(), rate, eps=epsilon)
        self.rngs = [np.random.default_rng((seed, 1)) for seed in seeds]
        self.generator = torch.Generator(next(model.parameters()).device)
        self.generator.manual_seed(int(self.rngs[0].integers(2**31)))

    def state(self) -> dict[str, Any]:
        """Tensors and plain values, for a checkpoint."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "fine": self.fine.state_dict(),
            "rngs": [json.dumps(rng.bit_generator.state) for rng in self.rngs],
            "generator": self.generator.get_state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`.

        Raises:
            LearnError: it is of a model of other sizes.
        """
        try:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.fine.load_state_dict(state["fine"])
            for rng, text in zip(self.rngs, state["rngs"], strict=True):
                rng.bit_generator.state = json.loads(text)
            self.generator.set_state(state["generator"].cpu())
            self.step = int(state["step"])
        except (RuntimeError, KeyError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise LearnError(f"the checkpoint is of another latent model: {reason}") from None


def loss(
    model: LatentModel, batch: Stretch, ahead: int, kl: float, generator: torch.Generator
) -> tuple[Tensor, Metrics]:
    """Error of the decoded frames 0 ... `ahead` steps from every start, and the divergence.

    Returns:
        The loss, summed over seeds; and its parts, means over seeds.
    """
    frames, actions, valid = batch
    starts = frames.shape[2] - ahead
    mean, log_std = model.encoder.distribution(frames[:, :, :starts].flatten(1, 2))
    noise = torch.randn(mean.shape, generator=generator, device=mean.device)
    latent = mean + log_std.exp() * noise  # (S, B starts, L)
    rolled = [latent]
    for step in range(ahead):
        latent = model.transition(latent, actions[:, :, step : step + starts].flatten(1, 2))
        rolled.append(latent)
    seen = model.decoder(torch.cat(rolled, dim=1))  # (S, (k+1) B starts, O)
    wanted = torch.cat([frames[:, :, k : k + starts].flatten(1, 2) for k in range(ahead + 1)], 1)
    counts = torch.cat([valid[:, :, k : k + starts].flatten(1, 2) for k in range(ahead + 1)], 1)
    error = (seen - wanted.to(seen.dtype)).square().mean(dim=-1)
    picture = (error * counts).sum(dim=1) / counts.sum(dim=1)  # (S,)
    first = valid[:, :, :starts].flatten(1, 2)
    divergence = 0.5 * (mean.square() + (2 * log_std).exp() - 2 * log_std - 1).mean(dim=-1)
    apart = (divergence * first).sum(dim=1) / first.sum(dim=1)  # (S,)
    total = (picture + kl * apart).sum()
    parts = {"latent/picture": picture.detach().mean(), "latent/kl": apart.detach().mean()}
    return total, parts


def update(training: Training, batch: Stretch) -> Metrics:
    """One gradient step on everything.

    Raises:
        LearnError: the loss is not finite.
    """
    ahead = training.config.ahead_at(training.step)
    total, parts = loss(training.model, batch, ahead, training.config.kl, training.generator)
    metrics = {"latent/loss": total.detach() / training.model.sizes.seeds, **parts}
    _step(training.optimiser, total, metrics, training.step)
    training.step += 1
    return {**metrics, "latent/ahead": torch.tensor(float(ahead))}


def fit(
    training: Training,
    data: Sequence[Sequences],
    *,
    until: int | None = None,
    report: Report | None = None,
) -> Metrics:
    """Train on, from the step that it is at.

    Args:
        training: changed in place.
        data: one for each seed.
        until: the step to stop before; None for all of them.
        report: hears every step and its metrics.

    Returns:
        The metrics of the last step.
    """
    config = training.config
    device = next(training.model.parameters()).device
    if training.step == 0:
        training.model.decoder.set_background(mean_image(data).to(device))
    metrics: Metrics = {}
    while training.step < (config.steps if until is None else min(until, config.steps)):
        batch = sequences.draw(data, training.rngs, config.batch, config.length, device)
        metrics = update(training, batch)
        if report is not None:
            report(training.step, metrics)
    return metrics


def refine(
    training: Training, data: Sequence[Sequences], *, steps: int = 6, batch: int = 256
) -> Metrics:
    """Fine-tune the transition alone on the next frame; what latents mean stays as it is.

    The original had this and never reached it: the call lacked its data.
    """
    model = training.model
    device = next(model.parameters()).device
    metrics: Metrics = {}
    model.decoder.requires_grad_(False)  # the gradient only passes through it
    for _ in range(steps):
        frames, actions, _ = sequences.draw(data, training.rngs, batch, 1, device)
        with torch.no_grad():
            latent = model.encoder(frames[:, :, 0])
        seen = model.decoder(model.transition(latent, actions[:, :, 0]))
        total = (seen - frames[:, :, 1].to(seen.dtype)).square().mean(dim=(1, 2)).sum()
        metrics = {"latent/refine": total.detach() / model.sizes.seeds}
        _step(training.fine, total, metrics, training.step)
    model.decoder.requires_grad_(True)
    return metrics


def _step(optimiser: torch.optim.Optimizer, total: Tensor, metrics: Metrics, step: int) -> None:
    if not math.isfinite(total.item()):
        values = ", ".join(f"{name} {value.item():g}" for name, value in metrics.items())
        raise LearnError(
            f"the latent model diverged at step {step}: {values}; lower its learning rate"
        )
    optimiser.zero_grad(set_to_none=True)
    total.backward()
    optimiser.step()


def mean_image(data: Sequence[Sequences], count: int = 2000) -> Tensor:
    """The mean of some rows of each seed, (S, O)."""
    rows = [each.observation[:: max(1, len(each) // count)] for each in data]
    return torch.stack([torch.from_numpy(each.mean(axis=0, dtype=np.float32)) for each in rows])


def prediction_errors(
    model: LatentModel, data: Sequence[Sequences], ahead: int = 5, count: int = 100
) -> Metrics:
    """Squared error per pixel 1 ... `ahead` steps on, without noise, beside the mean image's.

    Returns:
        `latent/error_1` ... and `latent/baseline`, means over seeds and `count` stretches.
    """
    rngs = [np.random.default_rng(0) for _ in data]
    device = next(model.parameters()).device
    frames, actions, valid = sequences.draw(data, rngs, count, ahead, device)
    wanted = frames[:, :, 1:].to(torch.float32)  # (S, B, k, O)
    with torch.no_grad():
        found = model.imagine(frames[:, :, 0], actions)
    plain = mean_image(data).to(device)[:, None, None]
    counts = valid[:, :, 1:]

    def mean(picture: Tensor) -> Tensor:
        error = (picture - wanted).square().mean(dim=-1) * counts  # (S, B, k)
        return error.sum(dim=(0, 1)) / counts.sum(dim=(0, 1)).clamp(min=1)

    errors = {f"latent/error_{k + 1}": value for k, value in enumerate(mean(found))}
    return {**errors, "latent/baseline": mean(plain).mean()}


def encode(encoder: LatentEncoder, rows: NDArray[Any], chunk: int = 256) -> NDArray[np.float32]:
    """Mean latents of one seed's images, (N, O) -> (N, L), for the replay of a frozen encoder."""
    if encoder.sizes.seeds != 1:
        raise LearnError(
            f"the encoder is of {encoder.sizes.seeds} seeds; take one out with networks.member"
        )
    device = next(encoder.parameters()).device
    found = [np.zeros((0, encoder.sizes.latent), np.float32)]
    with torch.no_grad():
        for start in range(0, len(rows), chunk):
            part = torch.from_numpy(np.ascontiguousarray(rows[start : start + chunk]))
            found.append(encoder(part.to(device)[None])[0].float().cpu().numpy())
    return np.concatenate(found)
