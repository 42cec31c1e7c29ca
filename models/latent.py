"""Latent visual dynamics: an image becomes a few numbers, in which one can look ahead.

Encoder (mean and deviation of the latent), deterministic transition, decoder; the decoder serves
training and pictures alone. Recovery RL's visual variant (arXiv 2010.15920), whose sizes are
`LatentSizes.published`. Letters: S seeds, B rows, H rows, W columns, C channels of an image,
O = H W C, A action, L latent. Images are rows of O values 0 ... 255.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows

from safetypilot.models import images
from safetypilot.models.encoders import ConvolutionTrunk, array, exported_dense
from safetypilot.models.images import Convolution, Deconvolution, ExportedImageLayers, Shape
from safetypilot.models.stacked import StackedMLP

_LOG_STD_RANGE = (-10.0, 2.0)
_PUBLISHED_ENCODER = tuple(
    layer
    for channels in (32, 64, 128, 256)
    for layer in (Convolution(channels, 4, 2), Convolution(channels, 3, 1, 1))
)
_PUBLISHED_KERNELS = {  # image rows and columns -> kernels of the four deconvolutions
    (64, 64): ((5, 5), (5, 5), (6, 6), (6, 6)),
    (48, 64): ((4, 5), (4, 5), (5, 6), (4, 6)),
}


@dataclass(frozen=True)
class LatentSizes:
    """What a latent model looks like.

    Attributes:
        image: (H, W, C).
        low: smallest action, (A,).
        high: largest action, (A,).
        latent: L.
        convolutions: of the encoder.
        dense: widths between its convolutions and the latent.
        transition: hidden widths.
        residual: the transition predicts the change of the latent.
        decoder: hidden widths between latent and the first grid.
        start: that grid, (channels, rows, columns); None: an eighth of the image.
        deconvolutions: from there to at least H times W; what is beyond is cut off.
        background: the decoder learns an image of its own, beside what the latent says.
        seeds: S.
    """

    image: Shape
    low: tuple[float, ...]
    high: tuple[float, ...]
    latent: int = 32
    convolutions: tuple[Convolution, ...] = images.FAST
    dense: tuple[int, ...] = (128,)
    transition: tuple[int, ...] = (128, 128)
    residual: bool = True
    decoder: tuple[int, ...] = (128,)
    start: Shape | None = None
    deconvolutions: tuple[Deconvolution, ...] = ()
    background: bool = True
    seeds: int = 1

    def __post_init__(self) -> None:
        """Fill in the decoder, and refuse sizes that do not fit together."""
        images.grids(self.image, self.convolutions)
        height, width, channels = self.image
        if self.start is None:
            object.__setattr__(self, "start", (32, -(-height // 8), -(-width // 8)))
        if not self.deconvolutions:
            layers = (Deconvolution(32, (4, 4), 2, 1), Deconvolution(channels, (4, 4), 4))
            object.__setattr__(self, "deconvolutions", layers)
        if self.latent < 1 or self.seeds < 1 or not self.low or len(self.low) != len(self.high):
            raise ValueError(
                f"latent {self.latent}, seeds {self.seeds}, {len(self.low)} lower and "
                f"{len(self.high)} upper limits; each must be at least 1, and the limits as many"
            )
        made = images.grown(self.grid, self.deconvolutions)
        if made[0] != channels or made[1] < height or made[2] < width:
            raise ValueError(
                f"the decoder makes (channels, rows, columns) {made}, the image needs at least "
                f"{(channels, height, width)}; change start or deconvolutions"
            )

    @classmethod
    def published(
        cls, image: Shape, low: tuple[float, ...], high: tuple[float, ...], seeds: int = 1
    ) -> LatentSizes:
        """As in Recovery RL, for images of 64x64 and 48x64."""
        kernels = _PUBLISHED_KERNELS.get(image[:2])
        if kernels is None:
            known = " and ".join(f"{h}x{w}" for h, w in _PUBLISHED_KERNELS)
            raise ValueError(f"image is {image}, the published sizes fit {known}; use your own")
        channels = (128, 64, 32, image[2])
        return cls(
            image,
            low,
            high,
            latent=256,
            convolutions=_PUBLISHED_ENCODER,
            dense=(512,),
            transition=(128, 128, 128),
            residual=False,
            decoder=(128, 128),
            start=(128, 1, 1),
            deconvolutions=tuple(
                Deconvolution(count, kernel, 2)
                for count, kernel in zip(channels, kernels, strict=True)
            ),
            background=False,
            seeds=seeds,
        )

    @property
    def observation(self) -> int:
        return math.prod(self.image)

    @property
    def action(self) -> int:
        return len(self.low)

    @property
    def grid(self) -> Shape:
        """The decoder's first grid, (channels, rows, columns)."""
        if self.start is None:
            raise ValueError("start is filled in when the sizes are made")
        return self.start


class LatentEncoder(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Images to latents; deployed as the mean, kind `encoder`."""

    def __init__(self, sizes: LatentSizes) -> None:
        """Build for the given sizes."""
        super().__init__()
        self.sizes = sizes
        self.trunk = ConvolutionTrunk(sizes.image, sizes.convolutions, sizes.seeds)
        widths = (self.trunk.outputs, *sizes.dense, 2 * sizes.latent)
        self.dense = StackedMLP(sizes.seeds, widths)

    def forward(self, observation: Tensor) -> Tensor:
        """The mean latent, (S, B, O) -> (S, B, L)."""
        return self.distribution(observation)[0]

    def distribution(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-deviation, (S, B, O) -> 2 x (S, B, L)."""
        mean, log_std = self.dense(self.trunk(observation)).chunk(2, dim=-1)
        return mean, log_std.clamp(*_LOG_STD_RANGE)

    def exported(self) -> ExportedImageLayers:
        """The first seed's mean as arrays; take others out with `networks.member`."""
        *hidden, (weight, bias) = exported_dense(self.dense)
        size = self.sizes.latent
        dense = [*hidden, (weight[:, :size], bias[:size])]
        return ExportedImageLayers(self.sizes.image, self.trunk.exported(), dense)


class LatentTransition(nn.Module):  # type: ignore[misc]
    """One step ahead in the latent, deterministic; deployed as kind `dynamics`, E = 1."""

    action_middle: Tensor
    action_half: Tensor

    def __init__(self, sizes: LatentSizes) -> None:
        """Build; a residual one starts as standing still."""
        super().__init__()
        self.sizes = sizes
        widths = (sizes.latent + sizes.action, *sizes.transition, sizes.latent)
        self.network = StackedMLP(sizes.seeds, widths)
        if sizes.residual:
            nn.init.zeros_(self.network.layers[-1][0])
        low, high = torch.tensor(sizes.low), torch.tensor(sizes.high)
        rows = (sizes.seeds, 1, 1)
        self.register_buffer("action_middle", ((low + high) / 2).repeat(rows))
        self.register_buffer("action_half", ((high - low) / 2).repeat(rows))

    def forward(self, latent: Tensor, action: Tensor) -> Tensor:
        """(S, B, L), (S, B, A) in physical units -> (S, B, L)."""
        unit = (action - self.action_middle) / self.action_half
        change = self.network(torch.cat((latent, unit), dim=-1))
        return latent + change if self.sizes.residual else change

    def exported(self) -> list[tuple[images.Matrix, images.Matrix]]:
        """The first seed's layers as arrays, from latent and action as they come."""
        (weight, bias), *rest = exported_dense(self.network)
        middle, half = array(self.action_middle[0, 0]), array(self.action_half[0, 0])
        size = self.sizes.latent
        scaled = weight[size:] / half[:, None]
        weight = weight.copy()
        weight[size:] = scaled
        return [(weight, bias - middle @ scaled), *rest]


class LatentDecoder(nn.Module):  # type: ignore[misc]
    """Latents back to images."""

    def __init__(self, sizes: LatentSizes) -> None:
        """Build with torch's usual weights: uniform, within 1/sqrt(fan_in)."""
        super().__init__()
        self.sizes = sizes
        seeds = sizes.seeds
        widths = (sizes.latent, *sizes.decoder, math.prod(sizes.grid))
        self.dense = StackedMLP(seeds, widths)
        inputs = sizes.grid[0]
        for index, layer in enumerate(sizes.deconvolutions):
            bound = 1 / math.sqrt(layer.channels * math.prod(layer.kernel))
            weight = torch.empty(seeds, inputs, layer.channels, *layer.kernel)
            self._add(f"weight_{index}", weight.uniform_(-bound, bound))
            self._add(f"bias_{index}", torch.empty(seeds, layer.channels).uniform_(-bound, bound))
            inputs = layer.channels
        height, width, channels = sizes.image
        if sizes.background:
            self._add("background", torch.zeros(seeds, channels, height, width))

    def _add(self, name: str, tensor: Tensor) -> None:
        self.register_parameter(name, nn.Parameter(tensor))

    def forward(self, latent: Tensor) -> Tensor:
        """(S, B, L) -> (S, B, O), each 0 ... 255."""
        grids = self.dense(latent)
        return torch.stack([self._one(grid, seed) for seed, grid in enumerate(grids)])

    def _one(self, grid: Tensor, seed: int) -> Tensor:
        sizes = self.sizes
        x = grid.reshape(-1, *sizes.grid)
        for index, layer in enumerate(sizes.deconvolutions):
            weight = getattr(self, f"weight_{index}")[seed]
            bias = getattr(self, f"bias_{index}")[seed]
            x = F.conv_transpose2d(x, weight, bias, stride=layer.stride, padding=layer.padding)
            if index < len(sizes.deconvolutions) - 1:
                x = torch.relu(x)
        height, width, _ = sizes.image
        x = x[:, :, :height, :width]
        if sizes.background:
            x = x + self.background[seed]
        return images.FULL * torch.sigmoid(x).permute(0, 2, 3, 1).flatten(1)

    def set_background(self, image: Tensor) -> None:
        """Begin from a picture, such as the mean of the data, (S, O), 0 ... 255."""
        if not self.sizes.background:
            return
        rows = image.reshape(-1, *self.sizes.image).permute(0, 3, 1, 2)
        with torch.no_grad():
            self.background.copy_(torch.logit((rows / images.FULL).clamp(0.004, 0.996)))


class LatentModel(nn.Module):  # type: ignore[misc]
    """All three; `networks.member` takes one seed's out, whole or in parts."""

    def __init__(self, sizes: LatentSizes) -> None:
        """Build for the given sizes."""
        super().__init__()
        self.sizes = sizes
        self.encoder = LatentEncoder(sizes)
        self.transition = LatentTransition(sizes)
        self.decoder = LatentDecoder(sizes)

    def imagine(self, observation: Tensor, actions: Tensor) -> Tensor:
        """The images that follow, (S, B, O), (S, B, T, A) -> (S, B, T, O)."""
        latent, found = self.encoder(observation), []
        for step in range(actions.shape[2]):
            latent = self.transition(latent, actions[:, :, step])
            found.append(self.decoder(latent))
        return torch.stack(found, dim=2)


class PixelRisk(nn.Module):  # type: ignore[misc]
    """A critic of latents behind its frozen encoder: what the safety_critic node flies."""

    def __init__(self, encoder: LatentEncoder, critic: nn.Module) -> None:
        """Wrap; neither is copied.

        Args:
            encoder: images to latents.
            critic: has `risk(latent, action)`, (S, B, L), (S, B, A) -> (S, B).
        """
        super().__init__()
        self.encoder, self.critic = encoder, critic

    def risk(self, observation: Tensor, action: Tensor) -> Tensor:
        """(S, B, O), (S, B, A) -> (S, B)."""
        found: Tensor = self.critic.risk(self.encoder(observation), action)
        return found
