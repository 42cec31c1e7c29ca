"""Writes image and latent networks as ONNX graphs, node by node, as `graphs` does for the others.

Every graph takes the observation as it is published: rows of H*W*C floats 0 ... 255. Letters: B
batch, O observation, A action, L latent, K critics, N rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from safetypilot.models.graphs import Graph, Layer, Matrix
from safetypilot.models.images import ExportedImageLayers

_EPSILON = 1e-5  # that of `encoders`


def encode(graph: Graph, x: str, layers: ExportedImageLayers) -> str:
    """Nodes from rows of pixels (B, O) to features (B, F)."""
    x = graph.node("Reshape", x, graph.constant([-1, *layers.image], np.int64))
    x = graph.node("Transpose", x, perm=[0, 3, 1, 2])
    for weight, bias, stride, padding in layers.convolutions:
        x = graph.node(
            "Conv",
            x,
            graph.constant(weight),
            graph.constant(bias),
            strides=[stride, stride],
            pads=[padding] * 4,
        )
        x = graph.node("Relu", x)
    x = graph.layers(graph.node("Flatten", x, axis=1), layers.dense, "relu")
    if layers.finish == "relu":
        return graph.node("Relu", x)
    if layers.finish == "tanh":
        gain, shift = graph.constant(layers.gain), graph.constant(layers.shift)
        return graph.node(
            "Tanh", graph.node("LayerNormalization", x, gain, shift, epsilon=_EPSILON)
        )
    return x


def encoder(layers: ExportedImageLayers) -> Any:
    """Kind `encoder`: observation (B, O) -> latent (B, L)."""
    graph, latent = Graph(), len(layers.dense[-1][1])
    graph.node("Identity", encode(graph, "observation", layers), output="latent")
    return graph.finish({"observation": ["B", _size(layers)]}, {"latent": ["B", latent]})


def task_policy(
    image: ExportedImageLayers, layers: Sequence[Layer], middle: Matrix, half: Matrix
) -> Any:
    """Kind `task_policy`: features through `layers`, which end in the A means, tanh, scaled."""
    graph, actions = Graph(), len(middle)
    mean = graph.layers(encode(graph, "observation", image), layers, "relu")
    scaled = graph.node("Mul", graph.node("Tanh", mean), graph.constant(half))
    graph.node("Add", scaled, graph.constant(middle), output="action")
    return graph.finish({"observation": ["B", _size(image)]}, {"action": ["B", actions]})


def safety_critic(image: ExportedImageLayers, critics: Sequence[Sequence[Layer]]) -> Any:
    """Kind `safety_critic`: the largest of K critics that share an encoder.

    Args:
        image: the encoder.
        critics: layers of each, over features and action side by side.
    """
    graph = Graph()
    features = encode(graph, "observation", image)
    x = graph.node("Concat", features, "action", axis=1)
    logits = [graph.layers(x, layers, "relu") for layers in critics]
    largest = graph.node("Max", *logits) if len(logits) > 1 else logits[0]
    risk = graph.node("Sigmoid", largest)
    graph.node("Squeeze", risk, graph.constant([1], np.int64), output="risk")
    actions = len(critics[0][0][0]) - len(image.dense[-1][1])
    return graph.finish(
        {"observation": ["B", _size(image)], "action": ["B", actions]}, {"risk": ["B"]}
    )


def latent_dynamics(layers: Sequence[Layer], latent: int, residual: bool) -> Any:
    """Kind `dynamics` on latents: one deterministic net, E = 1; `noise` changes nothing.

    Args:
        layers: over latent and action side by side, to the next latent or to its change.
        latent: L.
        residual: the layers give the change.
    """
    graph, actions = Graph(), len(layers[0][0]) - latent
    x = graph.node("Concat", "observation", "action", axis=2)
    stacked = [(weight[None], bias[None, None]) for weight, bias in layers]
    x = graph.layers(x, stacked, "relu")
    if residual:
        x = graph.node("Add", "observation", x)
    # The input must be used: what is not used may be dropped from the file's signature.
    silence = graph.node("Mul", "noise", graph.constant(0.0))
    graph.node("Add", x, silence, output="next_observation")
    rows: list[int | str] = [1, "N"]
    shapes = {"observation": [*rows, latent], "action": [*rows, actions], "noise": [*rows, latent]}
    return graph.finish(shapes, {"next_observation": [*rows, latent]})


def _size(layers: ExportedImageLayers) -> int:
    return math.prod(layers.image)
