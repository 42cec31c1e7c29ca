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
from torch.autograd.function import once_differentiable
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

    def forward(self, x: Tensor) -> Tensor:
        """(N, B, in) -> (N, B, out)."""
        parameters = [tensor for layer in self.layers for tensor in layer]
        output: Tensor = _Stacked.apply(x, self.activation, *parameters)
        return output


class _Stacked(torch.autograd.Function):  # type: ignore[misc]
    """All layers as one node of the graph: fewer tensors, nothing computed that nobody wants.

    Autograd's own would be right, too. This overwrites activations and gradients in place, and
    skips the products for the weights where only the input's gradient is wanted (a third of a
    critic's pass under an actor).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: str, *parameters: Tensor) -> Tensor:
        """x (N, B, in), then weight (N, in, out) and bias (N, 1, out) of each layer."""
        act, _, keeps_output = ACTIVATIONS[activation]
        inputs, kept, last = [x], [], len(parameters) // 2 - 1
        for layer in range(last):
            before = torch.baddbmm(parameters[2 * layer + 1], inputs[-1], parameters[2 * layer])
            inputs.append(act(before))
            kept.append(inputs[-1] if keeps_output else before)
        ctx.activation, ctx.depth = activation, last + 1
        ctx.save_for_backward(*inputs, *kept, *parameters[::2])
        return torch.baddbmm(parameters[-1], inputs[-1], parameters[-2])

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, of the activation's name (none), and of each parameter."""
        depth, needed = ctx.depth, ctx.needs_input_grad
        inputs, kept = ctx.saved_tensors[:depth], ctx.saved_tensors[depth : 2 * depth - 1]
        weights = ctx.saved_tensors[2 * depth - 1 :]
        found: list[Tensor | None] = [None] * len(needed)
        for layer in reversed(range(depth)):
            if needed[2 + 2 * layer]:
                found[2 + 2 * layer] = _weight_gradient(inputs[layer], gradient)
            if needed[3 + 2 * layer]:
                found[3 + 2 * layer] = gradient.sum(dim=1, keepdim=True)
            if layer == 0 and not needed[0]:
                break
            gradient = torch.bmm(gradient, weights[layer].transpose(1, 2))
            if layer > 0:
                gradient = ACTIVATIONS[ctx.activation][1](gradient, kept[layer - 1])
            else:
                found[0] = gradient
        return tuple(found)


def _weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """x (N, B, in), gradient (N, B, out) -> (N, in, out)."""
    if gradient.shape[-1] == 1:  # a row times a matrix is five times as fast as matrix times column
        row: Tensor = torch.bmm(gradient.transpose(1, 2), x)
        return row.view(len(x), -1, 1)
    product: Tensor = torch.bmm(x.transpose(1, 2), gradient)
    return product
