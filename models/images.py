"""Plain facts about image networks, without torch: sizes, and weights on their way to ONNX.

Letters: H rows, W columns, C channels of an image; h, w of a grid inside a network. An image
travels as a float row of H*W*C values 0 ... 255, row by row and channel last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Shape = tuple[int, int, int]

FULL = 255.0  # the brightest value of a channel


class Convolution(NamedTuple):
    """One convolution with a square kernel, followed by a ReLU."""

    channels: int
    kernel: int
    stride: int
    padding: int = 0


class Deconvolution(NamedTuple):
    """One transposed convolution; kernels are (rows, columns)."""

    channels: int
    kernel: tuple[int, int]
    stride: int
    padding: int = 0


# A first stride of 4 leaves so little to do that an update is 12 to 26 times cheaper than with the
# published trunk (CPU time, forward and backward, 64x64x3); it finds a dot of 5 pixels as well.
FAST = (Convolution(32, 4, 4), Convolution(32, 3, 2, 1))
PUBLISHED = tuple(Convolution(channels, 3, 2, 1) for channels in (128, 64, 16))


class ExportedConvolution(NamedTuple):
    """Weights of one convolution, for a single network."""

    weight: Matrix  # (out, in, kernel, kernel)
    bias: Matrix  # (out,)
    stride: int
    padding: int


class ExportedImageLayers(NamedTuple):
    """A whole image encoder as arrays: convolutions, flatten, dense layers with ReLU between.

    Attributes:
        image: (H, W, C).
        convolutions: each followed by a ReLU; division by 255 and normalisation are inside.
        dense: weight (in, out) and bias (out,) of each.
        finish: what follows the last dense layer; "tanh" is of the values standardised over the
            features, times `gain`, plus `shift`.
        gain: (F,), or None.
        shift: (F,), or None.
    """

    image: Shape
    convolutions: Sequence[ExportedConvolution]
    dense: Sequence[tuple[Matrix, Matrix]]
    finish: Literal["linear", "relu", "tanh"] = "linear"
    gain: Matrix | None = None
    shift: Matrix | None = None


def check_image(image: Sequence[int]) -> None:
    """Refuse what is no (H, W, C)."""
    if len(image) != 3 or min(image) < 1:
        raise ValueError(f"image shape {tuple(image)} is not (height, width, channels), each >= 1")


def grids(image: Shape, layers: Sequence[Convolution]) -> list[Shape]:
    """Shape (channels, h, w) of the input and after every convolution.

    Raises:
        ValueError: the image is too small for these layers.
    """
    check_image(image)
    height, width, channels = image
    found = [(channels, height, width)]
    for layer in layers:
        height, width = (
            (size + 2 * layer.padding - layer.kernel) // layer.stride + 1
            for size in (height, width)
        )
        if min(height, width) < 1:
            raise ValueError(
                f"nothing of an image {image} is left after {layer}; use a larger image, or "
                "fewer or narrower convolutions"
            )
        found.append((layer.channels, height, width))
    return found


def grown(start: Shape, layers: Sequence[Deconvolution]) -> Shape:
    """Shape (channels, h, w) after transposed convolutions of a grid."""
    channels, height, width = start
    for layer in layers:
        height = (height - 1) * layer.stride - 2 * layer.padding + layer.kernel[0]
        width = (width - 1) * layer.stride - 2 * layer.padding + layer.kernel[1]
        channels = layer.channels
    return channels, height, width


def latent_name(graph_sha256: str, size: int) -> str:
    """The observation name of models that work on an encoder's latents, such as `latent-1a2b[32]`.

    It names the encoder by its graph, so that the comparison of names which every model passes
    before it flies keeps dynamics and critics away from the latents of another encoder.
    """
    return f"latent-{graph_sha256[:8]}[{size}]"
