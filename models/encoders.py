"""From pixels to a few numbers: the one image encoder of actors, critics and Q_risk.

Letters: S seeds, B batch, H rows, W columns, C channels of an image, O = H W C, F features,
h, w of a grid inside. As everywhere in `models`, every tensor leads with the seed, and images come
as rows of O values 0 ... 255 (uint8 is welcome: it is a quarter of the memory).

The published encoder (Recovery RL, arXiv 2010.15920) normalises over the batch, and its authors
never switched that to its statistics: a single image was normalised by itself, and the target
networks' statistics were never moved. The default here normalises over an image's own features
instead, as DrQ does (Kostrikov et al. 2020, arXiv 2004.13649): the same in training, in targets and
in flight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows

from safetypilot.models import images
from safetypilot.models.images import (
    Convolution,
    ExportedConvolution,
    ExportedImageLayers,
    Shape,
)
from safetypilot.models.stacked import StackedMLP

_MOMENTUM = 0.1  # of batch statistics, torch's own
_EPSILON = 1e-5  # under every square root of a variance


@dataclass(frozen=True)
class EncoderSizes:
    """What an image encoder looks like.

    Attributes:
        image: (H, W, C).
        layers: convolutions, each with a ReLU.
        features: F.
        norm: "layer" standardises the features of each image, then tanh; "batch" standardises
            every convolution over the batch while training (published; mind `eval()` before
            acting, and target networks need the buffers, too); "none" does not. The latter two
            end in a ReLU.
        seeds: S.
    """

    image: Shape
    layers: tuple[Convolution, ...] = images.FAST
    features: int = 128
    norm: Literal["layer", "batch", "none"] = "layer"
    seeds: int = 1

    def __post_init__(self) -> None:
        """Refuse sizes that fit no image."""
        images.grids(self.image, self.layers)
        if self.norm not in ("layer", "batch", "none"):
            raise ValueError(f"norm is {self.norm!r}; choose layer, batch or none")
        if self.features < 1 or self.seeds < 1:
            raise ValueError(f"features {self.features} and seeds {self.seeds} must be at least 1")

    @classmethod
    def published(cls, image: Shape, seeds: int = 1) -> EncoderSizes:
        """The trunk of Recovery RL; 12 to 26 times the work of the default."""
        return cls(image, images.PUBLISHED, 256, "batch", seeds)

    @property
    def observation(self) -> int:
        return math.prod(self.image)


class ConvolutionTrunk(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Convolutions with ReLU over flat images, one set of weights per seed.

    Attributes:
        image: (H, W, C).
        layers: the convolutions.
        outputs: values per image, channel by channel.
    """

    def __init__(
        self, image: Shape, layers: Sequence[Convolution], seeds: int, batch_norm: bool = False
    ) -> None:
        """Build with torch's usual weights: uniform, within 1/sqrt(fan_in)."""
        super().__init__()
        shapes = images.grids(image, layers)
        self.image, self.layers, self.batch_norm = image, tuple(layers), batch_norm
        self.outputs = math.prod(shapes[-1])
        for index, layer in enumerate(layers):
            inputs, channels = shapes[index][0], layer.channels
            bound = 1 / math.sqrt(inputs * layer.kernel**2)
            weight = torch.empty(seeds, channels, inputs, layer.kernel, layer.kernel)
            self._add(f"weight_{index}", weight.uniform_(-bound, bound))
            self._add(f"bias_{index}", torch.empty(seeds, channels).uniform_(-bound, bound))
            if batch_norm:
                self._add(f"gain_{index}", torch.ones(seeds, channels))
                self._add(f"shift_{index}", torch.zeros(seeds, channels))
                self.register_buffer(f"mean_{index}", torch.zeros(seeds, channels))
                self.register_buffer(f"variance_{index}", torch.ones(seeds, channels))

    def _add(self, name: str, tensor: Tensor) -> None:
        self.register_parameter(name, nn.Parameter(tensor))

    def forward(self, observation: Tensor) -> Tensor:
        """(S, B, O) -> (S, B, outputs).

        Seeds go one after the other: a convolution has work enough for a core, and grouping them
        gains nothing.
        """
        if observation.shape[0] == 1:
            return self._one(observation[0], 0)[None]
        return torch.stack([self._one(rows, seed) for seed, rows in enumerate(observation)])

    def _one(self, rows: Tensor, seed: int) -> Tensor:
        x = rows.reshape(-1, *self.image).permute(0, 3, 1, 2)  # (B, C, H, W), channel last
        if not x.is_floating_point():
            x = x.to(self.weight_0.dtype)
        for index, layer in enumerate(self.layers):
            weight, bias = self._of("weight", index)[seed], self._of("bias", index)[seed]
            if index == 0:
                weight = weight / images.FULL  # cheaper than dividing the images
            x = F.conv2d(x, weight, bias, stride=layer.stride, padding=layer.padding)
            if self.batch_norm:
                x = self._standardise(x, index, seed)
            x = torch.relu_(x)
        return x.flatten(1)

    def _standardise(self, x: Tensor, index: int, seed: int) -> Tensor:
        mean, variance, gain, shift = (
            self._of(name, index)[seed] for name in ("mean", "variance", "gain", "shift")
        )
        return F.batch_norm(x, mean, variance, gain, shift, self.training, _MOMENTUM, _EPSILON)

    def _of(self, name: str, index: int) -> Tensor:
        tensor: Tensor = getattr(self, f"{name}_{index}")
        return tensor

    def exported(self) -> list[ExportedConvolution]:
        """The first seed's weights, with the division by 255 and batch statistics folded in."""
        found = []
        for index, layer in enumerate(self.layers):
            weight, bias = (array(self._of(name, index)[0]) for name in ("weight", "bias"))
            if index == 0:
                weight = weight / images.FULL
            if self.batch_norm:
                mean, variance, gain, shift = (
                    array(self._of(name, index)[0])
                    for name in ("mean", "variance", "gain", "shift")
                )
                factor = gain / np.sqrt(variance + _EPSILON)
                weight = weight * factor[:, None, None, None]
                bias = (bias - mean) * factor + shift
            found.append(ExportedConvolution(weight, bias, layer.stride, layer.padding))
        return found


class Encoder(nn.Module):  # type: ignore[misc]
    """Flat images to features, (S, B, O) -> (S, B, F).

    Attributes:
        sizes: what it was built from.
    """

    def __init__(self, sizes: EncoderSizes) -> None:
        """Build for the given sizes."""
        super().__init__()
        self.sizes = sizes
        self.trunk = ConvolutionTrunk(
            sizes.image, sizes.layers, sizes.seeds, batch_norm=sizes.norm == "batch"
        )
        self.dense = StackedMLP(sizes.seeds, (self.trunk.outputs, sizes.features))
        if sizes.norm == "layer":
            # Small weights before a standardisation learn fast: it undoes their size, and a step
            # of Adam is then a large part of them.
            bound = 1 / math.sqrt(self.trunk.outputs)
            nn.init.uniform_(self.dense.layers[0][0], -bound, bound)
            self.gain = nn.Parameter(torch.ones(sizes.seeds, 1, sizes.features))
            self.shift = nn.Parameter(torch.zeros(sizes.seeds, 1, sizes.features))

    def forward(self, observation: Tensor) -> Tensor:
        """(S, B, O) -> (S, B, F)."""
        x = self.dense(self.trunk(observation))
        if self.sizes.norm != "layer":
            return torch.relu(x)
        x = F.layer_norm(x, (self.sizes.features,), eps=_EPSILON)
        return torch.tanh(x * self.gain + self.shift)

    def exported(self) -> ExportedImageLayers:
        """The first seed's encoder as arrays; take others out with `networks.member`."""
        dense = exported_dense(self.dense)
        convolutions = self.trunk.exported()
        if self.sizes.norm != "layer":
            return ExportedImageLayers(self.sizes.image, convolutions, dense, "relu")
        gain, shift = array(self.gain[0, 0]), array(self.shift[0, 0])
        return ExportedImageLayers(self.sizes.image, convolutions, dense, "tanh", gain, shift)


def array(tensor: Tensor) -> NDArray[np.float64]:
    """Double precision, so that folding rounds only once."""
    found: NDArray[np.float64] = tensor.detach().cpu().double().numpy()
    return found


def exported_dense(
    network: StackedMLP, member: int = 0
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Weight (in, out) and bias (out,) of each layer of one member."""
    return [(array(weight[member]), array(bias[member, 0])) for weight, bias in network.layers]
