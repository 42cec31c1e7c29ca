"""The networks that are trained, in torch; `export` turns each into the ONNX file that flies.

Letters: S seeds, B batch, O observation, F features of it, A action, K critics, E ensemble
members, N rows per member. A batch of small problems trains as one: the seed is the leading
dimension of every weight, buffer and input, and S = 1 is the usual case; `member` takes one seed's
network out. All take and give physical units: normalisers are buffers inside, so they are saved and
exported with the weights. Sources: SAC as in Haarnoja et al. 2018 (arXiv 1812.05905), Q_risk and
recovery policy as in Recovery RL (arXiv 2010.15920), dynamics as in PETS (arXiv 1805.12114).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows

from safetypilot.models.encoders import Encoder, EncoderSizes
from safetypilot.models.latent import LatentEncoder, LatentSizes
from safetypilot.models.squashed import LOG_STD_RANGE, squash
from safetypilot.models.stacked import StackedMLP

LOG_VARIANCE_RANGE = (-10.0, 0.5)  # first bounds of the dynamics' log-variance; they are learned

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Sizes:
    """What the networks of one task have in common.

    Attributes:
        observation: O.
        low: smallest action, (A,).
        high: largest action, (A,).
        hidden: widths of the hidden layers.
        seeds: S, how many copies train side by side.
        image: the encoder of observations that are images, one that learns with the network or
            the frozen one of a latent model; None for vectors.
    """

    observation: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    hidden: tuple[int, ...] = (64, 64)
    seeds: int = 1
    image: EncoderSizes | LatentSizes | None = None

    @property
    def action(self) -> int:
        return len(self.low)

    @property
    def features(self) -> int:
        """F: what a network sees of an observation."""
        if isinstance(self.image, LatentSizes):
            return self.image.latent
        return self.observation if self.image is None else self.image.features


class Scaling(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Physical units to about [-1, 1] and back: by statistics, and by the action box."""

    observation_mean: Tensor  # (S, 1, O)
    observation_scale: Tensor
    action_middle: Tensor  # (S, 1, A)
    action_half: Tensor

    def __init__(self, sizes: Sizes) -> None:
        """Start with observations unscaled."""
        super().__init__()
        low, high = torch.tensor(sizes.low), torch.tensor(sizes.high)
        rows = (sizes.seeds, 1, 1)
        self.register_buffer("observation_mean", torch.zeros(sizes.seeds, 1, sizes.observation))
        self.register_buffer("observation_scale", torch.ones(sizes.seeds, 1, sizes.observation))
        self.register_buffer("action_middle", ((low + high) / 2).repeat(rows))
        self.register_buffer("action_half", ((high - low) / 2).repeat(rows))

    def fit(self, observations: Tensor, seed: int = 0) -> None:
        """Take mean and deviation from observations (B, O); a constant entry keeps scale 1."""
        deviation = observations.std(dim=0, correction=0)
        self.observation_mean[seed, 0] = observations.mean(dim=0)
        self.observation_scale[seed, 0] = torch.where(
            deviation < 1e-6, torch.ones_like(deviation), deviation
        )

    def observation(self, observation: Tensor) -> Tensor:
        return (observation - self.observation_mean) / self.observation_scale

    def action(self, action: Tensor) -> Tensor:
        return (action - self.action_middle) / self.action_half

    def to_action(self, unit: Tensor) -> Tensor:
        """From [-1, 1] to the action box."""
        return torch.addcmul(self.action_middle, self.action_half, unit)


class _Network(nn.Module):  # type: ignore[misc]
    """What actors and critics share: the scaling, and the encoder where they see pixels."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.scaling = Scaling(sizes)
        self.encoder: Encoder | LatentEncoder | None = None
        if isinstance(sizes.image, LatentSizes):
            frozen = LatentEncoder(replace(sizes.image, seeds=sizes.seeds))
            self.encoder = frozen.requires_grad_(False)
        elif sizes.image is not None:
            self.encoder = Encoder(replace(sizes.image, seeds=sizes.seeds))

    def encode(self, observation: Tensor) -> Tensor:
        """Features of observations, (S, B, O) -> (S, B, F)."""
        if self.encoder is None:
            return self.scaling.observation(observation)
        features: Tensor = self.encoder(observation)
        return features


class GaussianActor(_Network):
    """The task policy: a squashed Gaussian; deployed as the squashed mean."""

    def __init__(self, sizes: Sizes) -> None:
        """Build for the given sizes."""
        super().__init__(sizes)
        self.network = StackedMLP(sizes.seeds, (sizes.features, *sizes.hidden, 2 * sizes.action))

    def forward(self, observation: Tensor) -> Tensor:
        """The deterministic action, (S, B, O) -> (S, B, A)."""
        mean, _ = self.distribution(observation)
        return self.scaling.to_action(torch.tanh(mean))

    def sample(
        self, observation: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """An action (S, B, A), differentiable, and its log-density (S, B).

        The density is that of the action scaled to [-1, 1], so a target entropy means the same
        whatever the units.
        """
        return self._squashed(self.network(self.encode(observation)), generator)

    def draw(
        self, observation: Tensor, count: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """N actions (S, N, A) and log-densities (S, N) in one observation each, (S, 1, O)."""
        output = self.network(self.encode(observation))
        return self._squashed(output.expand(-1, count, -1), generator)

    def _squashed(self, output: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        shape = (*output.shape[:-1], self.sizes.action)
        noise = torch.randn(shape, generator=generator, device=output.device)
        return squash(output, noise, self.scaling.action_middle, self.scaling.action_half)

    def distribution(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-deviation before squashing, (S, B, O) -> 2 x (S, B, A)."""
        mean, log_std = self.network(self.encode(observation)).chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD_RANGE)


class TwinCritic(_Network):
    """K critics of an action as one batched network; two, unless told otherwise."""

    def __init__(self, sizes: Sizes, probability: bool, critics: int = 2) -> None:
        """Build.

        Args:
            sizes: of the task.
            probability: squash the outputs into [0, 1] (Q_risk); otherwise they are free (SAC).
            critics: K.
        """
        super().__init__(sizes)
        self.probability = probability
        self.critics = critics
        self.network = StackedMLP(
            sizes.seeds * critics, (sizes.features + sizes.action, *sizes.hidden, 1)
        )

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """(S, B, O), (S, B, A) -> (S, K, B)."""
        x = self.logits(observation, action)
        return torch.sigmoid(x) if self.probability else x

    def logits(self, observation: Tensor, action: Tensor) -> Tensor:
        """The outputs before squashing, (S, K, B)."""
        return self.logits_of(self.encode(observation), action)

    def logits_of(self, features: Tensor, action: Tensor) -> Tensor:
        """The same from features (S, B, F), where they are known already."""
        output: Tensor = self.network(features, self.scaling.action(action))
        return output.view(self.sizes.seeds, self.critics, -1)

    def risk(self, observation: Tensor, action: Tensor) -> Tensor:
        """The larger of the twins, (S, B): what the shield compares with eps."""
        return self.risk_of(self.encode(observation), action)

    def risk_of(self, features: Tensor, action: Tensor) -> Tensor:
        """The same from features (S, B, F)."""
        largest = self.logits_of(features, action).amax(dim=1)
        return torch.sigmoid(largest) if self.probability else largest

    def risk_alone(self, seed: int, observation: Tensor, action: Tensor) -> Tensor:
        """`risk` of one seed, (B, O), (B, A) -> (B,), without gradient."""
        if self.sizes.seeds == 1:
            return self.risk(observation[None], action[None])[0]
        scaling, count = self.scaling, self.critics
        x = torch.cat(
            (
                (observation - scaling.observation_mean[seed]) / scaling.observation_scale[seed],
                (action - scaling.action_middle[seed]) / scaling.action_half[seed],
            ),
            dim=-1,
        )
        output = _forward_of(self.network, seed * count, count, x.expand(count, *x.shape))
        largest = output.squeeze(-1).amax(dim=0)
        return torch.sigmoid(largest) if self.probability else largest


class RecoveryActor(_Network):
    """The model-free recovery policy: tanh of a network, deterministic.

    With a `deviation`, as in the original's code, it is a Gaussian whose deviation is learned, one
    per action, starting there, in parts of half the action box; the original's was 0.1 in physical
    units, as wide as the maze's whole box.
    """

    def __init__(self, sizes: Sizes, deviation: float = 0.0) -> None:
        """Build for the given sizes."""
        super().__init__(sizes)
        self.deviation = deviation
        self.network = StackedMLP(sizes.seeds, (sizes.features, *sizes.hidden, sizes.action))
        start = torch.full((sizes.seeds, 1, sizes.action), math.log(max(deviation, 1e-6)))
        self.log_std = nn.Parameter(start) if deviation > 0 else None

    def forward(self, observation: Tensor) -> Tensor:
        """The deterministic action, (S, B, O) -> (S, B, A)."""
        return self.scaling.to_action(self._unit(observation))

    def sample(self, observation: Tensor, generator: torch.Generator | None) -> Tensor:
        """An action inside the box, differentiable; the deterministic one without a deviation."""
        unit = self._unit(observation)
        if self.log_std is not None:
            noise = torch.randn(unit.shape, generator=generator, device=unit.device)
            spread = self.log_std.clamp(min=math.log(1e-6)).exp()
            unit = (unit + spread * noise).clamp(-1.0, 1.0)
        return self.scaling.to_action(unit)

    def _unit(self, observation: Tensor) -> Tensor:
        return torch.tanh(self.network(self.encode(observation)))


def _forward_of(network: StackedMLP, first: int, count: int, x: Tensor) -> Tensor:
    """What some neighbours of a stack make of (count, B, in): (count, B, out); ReLU between."""
    *hidden, (weight, bias) = network.layers
    mine = slice(first, first + count)
    for inner, offset in hidden:
        x = torch.relu(torch.baddbmm(offset[mine], x, inner[mine]))
    return torch.baddbmm(bias[mine], x, weight[mine])


def member(network: Network, seed: int) -> Network:
    """One seed's network, a copy with S = 1.

    Every tensor leads with the seed, so its rows are the seed's share of the first dimension.
    """
    seeds = network.sizes.seeds
    sizes = replace(network.sizes, seeds=1)
    alone: Network
    if isinstance(network, TwinCritic):
        alone = TwinCritic(sizes, network.probability, network.critics)
    elif isinstance(network, RecoveryActor):
        alone = RecoveryActor(sizes, network.deviation)
    else:
        alone = type(network)(sizes)
    state = network.state_dict().items()
    alone.load_state_dict(
        {name: tensor.view(seeds, -1, *tensor.shape[1:])[seed] for name, tensor in state}
    )
    return alone


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
