"""Several multilayer perceptrons of one shape, trained and evaluated as one.

Critic ensembles, seeds side by side and a lone policy are all stacks: one batched matrix product
per layer does the work of every member. Letters: N members, B rows per member.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows

# In place, and by overload, which is found sooner than by what was passed.
_relu_gradient = torch.ops.aten.threshold_backward.grad_input
_tanh_gradient = torch.ops.aten.tanh_backward.grad_input
_silu_gradient = torch.ops.aten.silu_backward.grad_input
# name: (forward, its gradient from what `_Stacked` kept, whether it keeps the output or the input)
ACTIVATIONS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], bool]] = {
    "relu": (torch.relu_, lambda g, y: _relu_gradient(g, y, 0.0, grad_input=g), True),
    "tanh": (torch.tanh_, lambda g, y: _tanh_gradient(g, y, grad_input=g), True),
    "silu": (F.silu, lambda g, x: _silu_gradient(g, x, grad_input=g), False),
}


class StackedMLP(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """N same-shaped multilayer perceptrons as one, the activation between layers.

    Attributes:
        members: N.
        sizes: widths, first the input and last the output.
        activation: `relu`, `silu` or `tanh`.
    """

    def __init__(self, members: int, sizes: Sequence[int], activation: str = "relu") -> None:
        """Xavier-uniform weights per member, zero biases, from torch's global generator.

        Raises:
            ValueError: an unknown activation, no member, or fewer than two widths.
        """
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation is {activation!r}; choose one of {', '.join(ACTIVATIONS)}"
            )
        if members < 1 or len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(
                f"{members} members of widths {tuple(sizes)} make no network; give at least one "
                "member and the widths of an input and an output"
            )
        self.members, self.sizes, self.activation = members, tuple(sizes), activation
        for index, (inputs, outputs) in enumerate(pairwise(sizes)):
            bound = math.sqrt(6.0 / (inputs + outputs))
            weight = torch.empty(members, inputs, outputs).uniform_(-bound, bound)
            self.register_parameter(f"weight_{index}", nn.Parameter(weight))
            bias = nn.Parameter(torch.zeros(members, 1, outputs))
            self.register_parameter(f"bias_{index}", bias)

    @property
    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Weight (N, in, out) and bias (N, 1, out) of each layer."""
        count = len(self.sizes) - 1
        return [(getattr(self, f"weight_{i}"), getattr(self, f"bias_{i}")) for i in range(count)]

    def forward(self, *parts: Tensor) -> Tensor:
        """Each a part of the input, side by side: (M, B, in_1), (M, B, in_2), ... -> (N, B, out).

        With fewer rows of members than networks, M < N, neighbours share theirs: N / M critics see
        the same observations.
        """
        layers = self._parameters.values()
        output: Tensor = _Stacked.apply(self.activation, len(parts), *parts, *layers)
        return output


class _Stacked(torch.autograd.Function):  # type: ignore[misc]
    """All layers as one node of the graph: fewer tensors, nothing computed that nobody wants.

    Autograd's own would be right, too. This overwrites activations and gradients in place, and
    leaves out products that nobody asked for: for the weights under an actor, for the observation
    beside its action.
    """

    @staticmethod
    def forward(ctx: Any, activation: str, count: int, *tensors: Tensor) -> Tensor:
        """`count` parts of the input, then weight and bias of each layer."""
        parts, weights, biases = tensors[:count], tensors[count::2], tensors[count + 1 :: 2]
        x = parts[0] if count == 1 else torch.cat(parts, dim=-1)
        members, (given, rows, width) = len(weights[0]), x.shape
        if given < members:
            x = x[:, None].expand(given, members // given, rows, width)
            x = x.reshape(members, rows, width)
        act, _, keeps_output = ACTIVATIONS[activation]
        inputs, kept = [x], []
        for weight, bias in zip(weights[:-1], biases, strict=False):
            before = torch.baddbmm(bias, x, weight)
            x = act(before)
            inputs.append(x)
            kept.append(x if keeps_output else before)
        ctx.activation, ctx.given = activation, given
        ctx.widths = [part.shape[-1] for part in parts]
        ctx.save_for_backward(*inputs, *kept, *weights)
        return torch.baddbmm(biases[-1], x, weights[-1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the arguments of `forward`, where wanted."""
        refuse_second_derivative()
        saved, needed = ctx.saved_tensors, ctx.needs_input_grad
        depth, first = (len(saved) + 1) // 3, 2 + len(ctx.widths)
        inputs, kept, weights = saved[:depth], saved[depth : 2 * depth - 1], saved[2 * depth - 1 :]
        of_activation = ACTIVATIONS[ctx.activation][1]
        found: list[Tensor | None] = [None] * len(needed)
        for layer in range(depth - 1, -1, -1):
            if needed[first + 2 * layer]:
                found[first + 2 * layer] = _weight_gradient(inputs[layer], gradient)
            if needed[first + 2 * layer + 1]:
                found[first + 2 * layer + 1] = gradient.sum(1, True)
            if layer > 0:
                gradient = of_activation(torch.bmm(gradient, weights[layer].mT), kept[layer - 1])
        start = 0
        for part, width in enumerate(ctx.widths, 2):
            if needed[part]:
                mine = torch.bmm(gradient, weights[0][:, start : start + width].mT)
                found[part] = mine if len(mine) == ctx.given else _over_members(mine, ctx.given)
            start += width
        return tuple(found)


def _over_members(gradient: Tensor, given: int) -> Tensor:
    """The sum over those that shared an input, (N, B, in) -> (M, B, in)."""
    total: Tensor = gradient.view(given, -1, *gradient.shape[1:]).sum(1)
    return total


def refuse_second_derivative() -> None:
    """For derivatives by hand, which autograd cannot derive again but would not say so.

    Raises:
        RuntimeError: a second derivative was asked for.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            "a derivative written by hand has no second one; for create_graph=True build the "
            "network of torch.nn.Linear"
        )


def _weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """x (N, B, in), gradient (N, B, out) -> (N, in, out)."""
    if gradient.shape[-1] == 1:  # a row times a matrix is five times as fast as matrix times column
        row: Tensor = torch.bmm(gradient.mT, x)
        return row.view(len(x), -1, 1)
    product: Tensor = torch.bmm(x.mT, gradient)
    return product
