"""Writes our networks as ONNX graphs, node by node.

Small multilayer perceptrons need no tracer: this takes milliseconds, while a robot runs beside it,
and the same weights give the same bytes. Normalisers are folded into the first and last layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8  # read by onnxruntime since 1.11

_FOLDABLE = 30.0  # means that are at most so many deviations lose no digits in a bias

Matrix = NDArray[np.float64]
Layer = tuple[Matrix, Matrix]  # weight (in, out) and bias (out,); or (E, in, out), (E, 1, out)


@dataclass
class Graph:
    """A graph under construction: one method call adds one node."""

    nodes: list[Any] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array, dtype), name))
        return name

    def node(self, operator: str, *inputs: str, output: str | None = None, **options: Any) -> str:
        name = output or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **options))
        return name

    def layers(self, x: str, layers: Sequence[Layer], activation: str) -> str:
        """Dense layers with an activation between them, for one network (rank 2) or E (rank 3)."""
        origin = getattr(layers, "origin", None)
        if origin is not None:
            x = self.node("Sub", x, self.constant(origin))
        if layers[0][0].ndim == 3 and len(layers[0][0]) > 1:
            return self._ensemble(x, layers, activation)
        for index, (weight, bias) in enumerate(layers):
            if weight.ndim == 2:
                x = self.node("Gemm", x, self.constant(weight), self.constant(bias))
            else:  # one network, whatever the rank of its rows
                product = self.node("MatMul", x, self.constant(weight))
                x = self.node("Add", product, self.constant(bias))
            if index < len(layers) - 1:
                x = self._activate(x, activation)
        return x

    def _ensemble(self, x: str, layers: Sequence[Layer], activation: str) -> str:
        """E networks on (E, N, in), one after the other.

        A product of E matrices at once takes an eighth longer in onnxruntime, and OpenVINO has no
        fast way at all to do it.
        """
        members = len(layers[0][0])
        parts = [f"n{len(self.nodes)}_{index}" for index in range(members)]
        self.nodes.append(helper.make_node("Split", [x], parts, axis=0))
        answers = []
        for index, part in enumerate(parts):
            own = [(weight[index], bias[index, 0]) for weight, bias in layers]
            rows = self.node("Squeeze", part, axes(self, 0))  # (1, N, in) -> (N, in)
            answers.append(
                self.node("Unsqueeze", self.layers(rows, own, activation), axes(self, 0))
            )
        return self.node("Concat", *answers, axis=0)

    def _activate(self, x: str, activation: str) -> str:
        if activation == "silu":
            return self.node("Mul", x, self.node("Sigmoid", x))
        return self.node("Relu", x)

    def finish(
        self, inputs: dict[str, list[int | str]], outputs: dict[str, list[int | str]]
    ) -> Any:
        """The checked model, without metadata."""
        graph = helper.make_graph(
            self.nodes, "safetypilot", _values(inputs), _values(outputs), self.tensors
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        onnx.checker.check_model(model)
        return model


def _values(shapes: dict[str, list[int | str]]) -> list[Any]:
    return [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]


class Folded(list[Layer]):
    """Layers that take an input in physical units.

    Attributes:
        origin: subtracted from the input first, (in,); None where the first bias has it.
    """

    origin: Matrix | None = None


def fold_input(layers: Sequence[Layer], mean: Matrix, scale: Matrix) -> Folded:
    """Layers that take x as it comes, from layers that took (x - mean) / scale.

    Where an entry hardly varies beside its mean, the difference of two large float32 products
    would be all that is left of it; then the mean is subtracted first, at the price of one node.
    """
    weight, bias = layers[0]
    weight = weight / scale[:, None]
    if (np.abs(mean) > _FOLDABLE * scale).any():
        folded = Folded([(weight, bias), *layers[1:]])
        folded.origin = mean
        return folded
    shift = mean @ weight  # (out,), or (E, out) beside a bias of (E, 1, out)
    return Folded([(weight, bias - shift.reshape(bias.shape)), *layers[1:]])


def task_policy(layers: Sequence[Layer], middle: Matrix, half: Matrix) -> Any:
    """tanh of the mean, scaled to the action box. `layers` end in the A means."""
    graph, actions = Graph(), len(middle)
    mean = graph.layers("observation", layers, "relu")
    scaled = graph.node("Mul", graph.node("Tanh", mean), graph.constant(half))
    graph.node("Add", scaled, graph.constant(middle), output="action")
    observations = len(layers[0][0])
    return graph.finish({"observation": ["B", observations]}, {"action": ["B", actions]})


def safety_critic(twins: Sequence[Sequence[Layer]], observations: int) -> Any:
    """The larger of the twins; sigmoid is monotonic, so it is applied once."""
    graph = Graph()
    x = graph.node("Concat", "observation", "action", axis=1)
    logits = [graph.layers(x, layers, "relu") for layers in twins]
    risk = graph.node("Sigmoid", graph.node("Max", *logits))
    graph.node("Squeeze", risk, graph.constant([1], np.int64), output="risk")
    actions = len(twins[0][0][0]) - observations
    return graph.finish(
        {"observation": ["B", observations], "action": ["B", actions]}, {"risk": ["B"]}
    )


def dynamics(layers: Sequence[Layer], low: Matrix, high: Matrix, scale: Matrix) -> Any:
    """observation + mean change + noise * deviation.

    Args:
        layers: of E networks, ending in the mean change (O, physical units) and log-variance (O).
        low: lower soft bound of the log-variance, (O,).
        high: upper soft bound, (O,).
        scale: physical size of one standardised change, (O,).
    """
    graph = Graph()
    members, inputs, o = len(layers[0][0]), layers[0][0].shape[1], len(low)
    x = graph.node("Concat", "observation", "action", axis=2)
    output = graph.layers(x, layers, "silu")
    mean = columns(graph, output, 0, o, 2)
    variance = columns(graph, output, o, 2 * o, 2)
    top, bottom = graph.constant(high), graph.constant(low)
    gap = graph.node("Softplus", graph.node("Sub", top, variance))
    capped = graph.node("Sub", top, gap)
    rise = graph.node("Softplus", graph.node("Sub", capped, bottom))
    variance = graph.node("Add", bottom, rise)
    deviation = graph.node("Exp", graph.node("Mul", variance, graph.constant(0.5)))
    noise = graph.node("Mul", "noise", graph.node("Mul", deviation, graph.constant(scale)))
    change = graph.node("Add", mean, noise)
    graph.node("Add", "observation", change, output="next_observation")
    rows: list[int | str] = [members, "N"]
    shapes = {"observation": [*rows, o], "action": [*rows, inputs - o], "noise": [*rows, o]}
    return graph.finish(shapes, {"next_observation": [*rows, o]})


def columns(graph: Graph, x: str, start: int, stop: int, axis: int) -> str:
    """Entries [start, stop) along an axis."""
    bounds = [graph.constant([value], np.int64) for value in (start, stop, axis)]
    return graph.node("Slice", x, *bounds)


def axes(graph: Graph, axis: int) -> str:
    """One axis, as operators want it."""
    return graph.constant([axis], np.int64)
