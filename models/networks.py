"""The networks that are trained, in torch; `export` turns each into the ONNX file that flies.

Sizes in the comments: B batch, O observation, A action, E ensemble members, N rows per member.
All take and give physical units: normalisers are buffers inside, so they are saved and exported
with the weights. Sources: SAC as in Haarnoja et al. 2018 (arXiv 1812.05905), Q_risk and recovery
policy as in Recovery RL (arXiv 2010.15920), dynamics as in PETS (arXiv 1805.12114).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows

LOG_STD_RANGE = (-20.0, 2.0)
LOG_VARIANCE_RANGE = (-10.0, 0.5)  # first bounds of the dynamics' log-variance; they are learned
_LOG_2PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Sizes:
    """What the networks of one task have in common.

    Attributes:
        observation: O.
        low: smallest action, (A,).
        high: largest action, (A,).
        hidden: widths of the hidden layers.
    """

    observation: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    hidden: tuple[int, ...] = (64, 64)

    @property
    def action(self) -> int:
        return len(self.low)


class Scaling(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Physical units to about [-1, 1] and back: by statistics, and by the action box."""

    observation_mean: Tensor
    observation_scale: Tensor
    action_middle: Tensor
    action_half: Tensor

    def __init__(self, sizes: Sizes) -> None:
        """Start with observations unscaled."""
        super().__init__()
        low, high = torch.tensor(sizes.low), torch.tensor(sizes.high)
        self.register_buffer("observation_mean", torch.zeros(sizes.observation))
        self.register_buffer("observation_scale", torch.ones(sizes.observation))
        self.register_buffer("action_middle", (low + high) / 2)
        self.register_buffer("action_half", (high - low) / 2)

    def fit(self, observations: Tensor) -> None:
        """Take mean and deviation from observations (B, O); a constant entry keeps scale 1."""
        deviation = observations.std(dim=0, correction=0)
        self.observation_mean.copy_(observations.mean(dim=0))
        self.observation_scale.copy_(
            torch.where(deviation < 1e-6, torch.ones_like(deviation), deviation)
        )

    def observation(self, observation: Tensor) -> Tensor:
        return (observation - self.observation_mean) / self.observation_scale

    def action(self, action: Tensor) -> Tensor:
        return (action - self.action_middle) / self.action_half

    def to_action(self, unit: Tensor) -> Tensor:
        """From [-1, 1] to the action box."""
        return self.action_middle + self.action_half * unit


def mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Linear layers with ReLU between; Xavier-uniform weights, zero biases."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(inputs, size), nn.ReLU()]
        inputs = size
    layers.append(nn.Linear(inputs, outputs))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


class BatchedLinear(nn.Module):  # type: ignore[misc]
    """One linear layer of E networks, as one matrix product: (E, N, in) -> (E, N, out)."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        """Xavier-uniform per member, zero biases."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))
        bound = math.sqrt(6.0 / (inputs + outputs))
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


def batched_layers(members: int, sizes: Sequence[int]) -> nn.ModuleList:
    """Layers of E networks with the given widths, first the input and last the output."""
    return nn.ModuleList(BatchedLinear(members, a, b) for a, b in pairwise(sizes))


class GaussianActor(nn.Module):  # type: ignore[misc]
    """The task policy: a squashed Gaussian; deployed as the squashed mean."""

    def __init__(self, sizes: Sizes) -> None:
        """Build for the given sizes."""
        super().__init__()
        self.scaling = Scaling(sizes)
        self.network = mlp(sizes.observation, sizes.hidden, 2 * sizes.action)

    def forward(self, observation: Tensor) -> Tensor:
        """The deterministic action, (B, O) -> (B, A)."""
        mean, _ = self._distribution(observation)
        return self.scaling.to_action(torch.tanh(mean))

    def sample(self, observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """An action (B, A), differentiable, and its log-density (B,).

        The density is that of the action scaled to [-1, 1], so a target entropy means the same
        whatever the units.
        """
        mean, log_std = self._distribution(observation)
        noise = torch.randn(mean.shape, generator=generator)
        raw = mean + log_std.exp() * noise
        # log(1 - tanh(x)^2), in the form that does not lose digits where tanh saturates
        squash = 2.0 * (math.log(2.0) - raw - F.softplus(-2.0 * raw))
        density = -0.5 * (noise.square() + _LOG_2PI) - log_std - squash
        return self.scaling.to_action(torch.tanh(raw)), density.sum(dim=-1)

    def _distribution(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.network(self.scaling.observation(observation)).chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD_RANGE)


class TwinCritic(nn.Module):  # type: ignore[misc]
    """Two critics of an action as one batched network."""

    def __init__(self, sizes: Sizes, probability: bool) -> None:
        """Build.

        Args:
            sizes: of the task.
            probability: squash the outputs into [0, 1] (Q_risk); otherwise they are free (SAC).
        """
        super().__init__()
        self.scaling = Scaling(sizes)
        self.probability = probability
        self.layers = batched_layers(2, (sizes.observation + sizes.action, *sizes.hidden, 1))

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """(B, O), (B, A) -> (2, B)."""
        x = self.logits(observation, action)
        return torch.sigmoid(x) if self.probability else x

    def logits(self, observation: Tensor, action: Tensor) -> Tensor:
        """The outputs before squashing, (2, B)."""
        scaling = self.scaling
        x = torch.cat((scaling.observation(observation), scaling.action(action)), dim=-1)
        x = x.expand(2, *x.shape)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        output: Tensor = self.layers[-1](x).squeeze(-1)
        return output

    def risk(self, observation: Tensor, action: Tensor) -> Tensor:
        """The larger of the twins, (B,): what the shield compares with eps."""
        return self(observation, action).amax(dim=0)


class RecoveryActor(nn.Module):  # type: ignore[misc]
    """The model-free recovery policy: tanh of a network, deterministic.

    `gaussian` adds a learned deviation, one per action, in parts of half the action box; the
    original's was 0.1 in physical units, as wide as the maze's whole box.
    """

    def __init__(self, sizes: Sizes, gaussian: bool = False) -> None:
        """Build for the given sizes."""
        super().__init__()
        self.scaling = Scaling(sizes)
        self.network = mlp(sizes.observation, sizes.hidden, sizes.action)
        start = torch.full((sizes.action,), math.log(0.1))
        self.log_std = nn.Parameter(start) if gaussian else None

    def forward(self, observation: Tensor) -> Tensor:
        """The deterministic action, (B, O) -> (B, A)."""
        return self.scaling.to_action(
            torch.tanh(self.network(self.scaling.observation(observation)))
        )

    def sample(self, observation: Tensor, generator: torch.Generator) -> Tensor:
        """An action inside the box, differentiable; the deterministic one unless gaussian."""
        if self.log_std is None:
            action: Tensor = self(observation)
            return action
        unit = torch.tanh(self.network(self.scaling.observation(observation)))
        noise = torch.randn(unit.shape, generator=generator)
        spread = self.log_std.clamp(min=math.log(1e-6)).exp()
        return self.scaling.to_action((unit + spread * noise).clamp(-1.0, 1.0))


class DynamicsEnsemble(nn.Module):  # type: ignore[misc]
    """E probabilistic networks that predict the change of the observation.

    Inputs are standardised by the data; so are the targets, unlike in the original, because a
    maze step of 0.02 m would otherwise vanish beside the log-variance bounds.
    """

    input_mean: Tensor
    input_scale: Tensor
    change_mean: Tensor
    change_scale: Tensor

    def __init__(self, sizes: Sizes, members: int) -> None:
        """Build; weights truncated normal (2 sigma) with deviation 1/(2 sqrt(fan_in))."""
        super().__init__()
        self.members = members
        o, inputs = sizes.observation, sizes.observation + sizes.action
        self.layers = batched_layers(members, (inputs, *sizes.hidden, 2 * o))
        for layer in self.layers:
            deviation = 0.5 / math.sqrt(layer.weight.shape[1])
            nn.init.trunc_normal_(layer.weight, 0.0, deviation, -2 * deviation, 2 * deviation)
        self.log_variance_min = nn.Parameter(torch.full((o,), LOG_VARIANCE_RANGE[0]))
        self.log_variance_max = nn.Parameter(torch.full((o,), LOG_VARIANCE_RANGE[1]))
        self.register_buffer("input_mean", torch.zeros(inputs))
        self.register_buffer("input_scale", torch.ones(inputs))
        self.register_buffer("change_mean", torch.zeros(o))
        self.register_buffer("change_scale", torch.ones(o))

    def fit_normaliser(self, inputs: Tensor, change: Tensor) -> None:
        """Take statistics from inputs (B, O + A) and changes (B, O)."""
        for name, data in (("input", inputs), ("change", change)):
            deviation = data.std(dim=0, correction=0)
            scale = torch.where(deviation < 1e-12, torch.ones_like(deviation), deviation)
            getattr(self, f"{name}_mean").copy_(data.mean(dim=0))
            getattr(self, f"{name}_scale").copy_(scale)

    def predict(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the standardised change: (E, N, O + A) -> 2 x (E, N, O)."""
        x = (inputs - self.input_mean) / self.input_scale
        for layer in self.layers[:-1]:
            x = F.silu(layer(x))
        mean, log_variance = self.layers[-1](x).chunk(2, dim=-1)
        log_variance = self.log_variance_max - F.softplus(self.log_variance_max - log_variance)
        log_variance = self.log_variance_min + F.softplus(log_variance - self.log_variance_min)
        return mean, log_variance

    def forward(self, observation: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        """A sample of the next observation, all (E, N, .)."""
        mean, log_variance = self.predict(torch.cat((observation, action), dim=-1))
        change = mean + (0.5 * log_variance).exp() * noise
        return observation + self.change_mean + self.change_scale * change
