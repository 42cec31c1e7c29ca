"""Writes the ONNX graphs of a choice among n; `categorical` has the arithmetic.

Letters: B batch, n choices, F features of the observation, h width of a hidden layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from safetypilot.models import graphs_image
from safetypilot.models.graphs import Folded, Graph, Layer, axes
from safetypilot.models.images import ExportedImageLayers

Images = tuple[ExportedImageLayers, ...]  # the encoder of each network that sees pixels


def task_policy(layers: Sequence[Layer], images: Images = ()) -> Any:
    """Probabilities of the choices. `layers` end in n logits."""
    graph = Graph()
    logits = graph.layers(_features(graph, images, 0), layers, "relu")
    graph.node("Softmax", logits, output="action", axis=1)
    return _finished(graph, layers, images)


def filtered_policy(
    layers: Sequence[Layer], twins: Sequence[Sequence[Layer]], eps: float, images: Images = ()
) -> Any:
    """Prefers the likeliest choice with a risk of at most eps, or the least risky.

    Args:
        layers: of the actor, ending in n logits.
        twins: of the critic.
        eps: risk that is allowed.
        images: encoders of actor and critic, where they see pixels.
    """
    graph, count = Graph(), layers[-1][0].shape[-1]
    logits = graph.layers(_features(graph, images, 0), layers, "relu")
    probability = graph.node("Softmax", logits, axis=1)
    features = _features(graph, images, 1)
    risk = _risk(graph, features, twins, count)
    one = graph.constant(1.0)
    likely, harmless = graph.node("Add", one, probability), graph.node("Sub", one, risk)
    safe = graph.node("LessOrEqual", risk, graph.constant(eps))
    preference = graph.node("Where", safe, likely, harmless)
    graph.node("Mul", preference, graph.constant(0.5), output="action")
    return _finished(graph, layers, images)


def _features(graph: Graph, images: Images, index: int) -> str:
    return graphs_image.encode(graph, "observation", images[index]) if images else "observation"


def _finished(graph: Graph, layers: Sequence[Layer], images: Images) -> Any:
    observations = math.prod(images[0].image) if images else layers[0][0].shape[0]
    actions = layers[-1][0].shape[-1]
    return graph.finish({"observation": ["B", observations]}, {"action": ["B", actions]})


def _risk(graph: Graph, features: str, twins: Sequence[Sequence[Layer]], count: int) -> str:
    """Q_risk of every choice, (B, F) -> (B, n)."""
    logits = [_logits(graph, features, layers, count) for layers in twins]
    largest = graph.node("Max", *logits) if len(logits) > 1 else logits[0]
    return graph.node("Squeeze", graph.node("Sigmoid", largest), axes(graph, 2))


def _logits(graph: Graph, features: str, layers: Sequence[Layer], count: int) -> str:
    """One critic of every choice, (B, n, 1).

    The features meet the first layer once; a choice then only adds its row of the weights.
    """
    weight, bias = layers[0]
    origin = layers.origin if isinstance(layers, Folded) else None
    choices = np.eye(count)
    if origin is not None:
        features = graph.node("Sub", features, graph.constant(origin[:-count]))
        choices = choices - origin[-count:]
    shared = graph.node("Gemm", features, graph.constant(weight[:-count]), graph.constant(bias))
    own = graph.constant((choices @ weight[-count:])[None])  # (1, n, h)
    x = graph.node("Add", graph.node("Unsqueeze", shared, axes(graph, 1)), own)
    if len(layers) == 1:
        return x
    rest = [(weight[None], bias.reshape(1, 1, -1)) for weight, bias in layers[1:]]
    return graph.layers(graph.node("Relu", x), rest, "relu")


def projected(model: Any, count: int) -> Any:
    """The same graph, given the one-hot of its input `action` (..., n), so preferences will do."""
    graph = model.graph
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == "action":
                node.input[index] = "choice"
    largest = helper.make_node("ArgMax", ["action"], ["choice_index"], axis=-1, keepdims=0)
    inputs = ["choice_index", "choice_count", "choice_values"]
    chosen = helper.make_node("OneHot", inputs, ["choice"], axis=-1)
    for position, node in enumerate((largest, chosen)):
        graph.node.insert(position, node)
    constants = {"count": np.array(count, np.int64), "values": np.array([0, 1], np.float32)}
    for name, array in constants.items():
        graph.initializer.append(numpy_helper.from_array(array, f"choice_{name}"))
    return model
