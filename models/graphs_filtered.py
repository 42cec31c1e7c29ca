"""Writes a task policy with its own risk filter as one graph; `filtered` has the arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from safetypilot.models import graphs_image
from safetypilot.models.graphs import Graph, Layer, Matrix, axes, columns
from safetypilot.models.images import ExportedImageLayers


@dataclass(frozen=True)
class Filter:
    """What `filtered_policy` needs beside its networks.

    Attributes:
        middle, half: of the action box, (A,).
        noise: of the candidates, (N, A).
        eps: risk that is allowed.
        log_std: bounds of the log-deviation.
        images: encoders of actor and critic, where they see pixels.
    """

    middle: Matrix
    half: Matrix
    noise: Matrix
    eps: float
    log_std: tuple[float, float]
    images: tuple[ExportedImageLayers, ExportedImageLayers] | None = None


def filtered_policy(
    layers: Sequence[Layer], twins: Sequence[Sequence[Layer]], settings: Filter
) -> Any:
    """The densest of N candidates with a risk of at most eps, or the least risky of all.

    See `models/filtered.py` for the arithmetic. Shapes: B batch, N candidates, A actions.

    Args:
        layers: of the actor, ending in the A means and A log-deviations.
        twins: of the critic.
        settings: candidates, box and eps.
    """
    graph = Graph()
    count, actions = settings.noise.shape
    observations = len(layers[0][0])
    features = critic_features = "observation"
    if settings.images is not None:
        features, critic_features = (
            graphs_image.encode(graph, "observation", image) for image in settings.images
        )
        observations = math.prod(settings.images[0].image)
    output = graph.layers(features, layers, "relu")
    mean = graph.node("Unsqueeze", columns(graph, output, 0, actions, 1), axes(graph, 1))
    spread = columns(graph, output, actions, 2 * actions, 1)
    bounds = (graph.constant(bound) for bound in settings.log_std)
    log_std = graph.node("Unsqueeze", graph.node("Clip", spread, *bounds), axes(graph, 1))
    noise = graph.constant(settings.noise[None])
    raw = graph.node("Add", mean, graph.node("Mul", graph.node("Exp", log_std), noise))
    unit = graph.node("Tanh", raw)  # (B, N, A)
    action = graph.node(
        "Add", graph.node("Mul", unit, graph.constant(settings.half)),
        graph.constant(settings.middle),
    )  # fmt: skip
    risk = _risk(graph, critic_features, action, twins, (count, actions))
    score = _score(graph, raw, log_std, risk, settings)
    best = graph.node("ArgMax", score, axis=1, keepdims=1)  # (B, 1)
    chosen = graph.node("OneHot", best, graph.constant(count, np.int64), graph.constant([0, 1]))
    picked = graph.node("MatMul", chosen, action)  # (B, 1, N) x (B, N, A)
    graph.node("Squeeze", picked, axes(graph, 1), output="action")
    return graph.finish({"observation": ["B", observations]}, {"action": ["B", actions]})


def _risk(
    graph: Graph,
    features: str,
    action: str,
    twins: Sequence[Sequence[Layer]],
    sizes: tuple[int, int],
) -> str:
    """Q_risk of N candidates (B, N, A) where the features are (B, F): (B, N)."""
    count, actions = sizes
    width = len(twins[0][0][0])
    repeated = graph.node(
        "Expand",
        graph.node("Unsqueeze", features, axes(graph, 1)),
        graph.constant([1, count, width - actions], np.int64),
    )
    joined = graph.node("Concat", repeated, action, axis=2)
    rows = graph.node("Reshape", joined, graph.constant([-1, width], np.int64))
    logits = [graph.layers(rows, layers, "relu") for layers in twins]
    risk = graph.node("Sigmoid", graph.node("Max", *logits))
    return graph.node("Reshape", risk, graph.constant([-1, count], np.int64))


def _score(graph: Graph, raw: str, log_std: str, risk: str, settings: Filter) -> str:
    """Log-density of the safe candidates, and for the others how unsafe they are, (B, N)."""
    minus_two, two = graph.constant(-2.0), graph.constant(2.0)
    soft = graph.node("Softplus", graph.node("Mul", raw, minus_two))
    inner = graph.node("Sub", graph.node("Sub", graph.constant(np.log(2.0)), raw), soft)
    squash = graph.node("Mul", inner, two)
    gauss = graph.constant(-0.5 * np.square(settings.noise)[None])
    each = graph.node("Sub", graph.node("Sub", gauss, log_std), squash)
    density = graph.node("ReduceSum", each, axes(graph, 2), keepdims=0)
    unsafe = graph.node("Mul", graph.node("Add", risk, graph.constant(1.0)), graph.constant(-1e6))
    safe = graph.node("LessOrEqual", risk, graph.constant(settings.eps))
    return graph.node("Where", safe, density, unsafe)
