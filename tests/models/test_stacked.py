"""The stack is N ordinary networks: same values, same gradients, same checkpoints."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from safetypilot.models.stacked import ACTIVATIONS, StackedMLP

MODULES = {"relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def stack(members=3, sizes=(5, 8, 7, 2), activation="relu", dtype=torch.float64):
    network = StackedMLP(members, sizes, activation).to(dtype)
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.1 * torch.randn_like(value))  # biases, too
    return network


def ordinary(network, member):
    """The same member as a chain of nn.Linear."""
    layers = []
    for weight, bias in network.layers:
        linear = nn.Linear(*weight.shape[1:]).to(weight.dtype)
        with torch.no_grad():
            linear.weight.copy_(weight[member].t())
            linear.bias.copy_(bias[member, 0])
        layers += [linear, MODULES[network.activation]()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", [(5, 8, 7, 2), (5, 8, 1), (5, 3)])
@pytest.mark.parametrize("members", [1, 3])
def test_values_and_gradients_are_those_of_ordinary_networks(members, sizes, activation):
    network = stack(members, sizes, activation)
    x = torch.randn(members, 6, 5, dtype=torch.float64, requires_grad=True)
    y = network(x)
    seen = torch.randn_like(y)
    y.backward(seen)
    for member in range(members):
        alone = ordinary(network, member)
        rows = x.detach()[member].clone().requires_grad_()
        wanted = alone(rows)
        wanted.backward(seen[member])
        assert torch.allclose(y[member], wanted)
        assert torch.allclose(x.grad[member], rows.grad)
        linears = [layer for layer in alone if isinstance(layer, nn.Linear)]
        for (weight, bias), linear in zip(network.layers, linears, strict=True):
            assert torch.allclose(weight.grad[member], linear.weight.grad.t())
            assert torch.allclose(bias.grad[member, 0], linear.bias.grad)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_agree_with_finite_differences(activation):
    network = stack(2, (3, 4, 4, 1), activation)
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in network.named_parameters()]

    def call(x, *values):
        return torch.func.functional_call(network, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *network.parameters()))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_only_what_is_wanted_gets_a_gradient(activation):
    network = stack(activation=activation)
    x = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    network(x).square().sum().backward()
    both = x.grad.clone()
    network.requires_grad_(False)
    x.grad, before = None, [value.grad.clone() for value in network.parameters()]
    network(x).square().sum().backward()
    assert torch.equal(x.grad, both)
    for value, old in zip(network.parameters(), before, strict=True):
        assert torch.equal(value.grad, old)
    network.requires_grad_(True)
    network.zero_grad()
    network(x.detach()).square().sum().backward()
    for value, old in zip(network.parameters(), before, strict=True):
        assert torch.equal(value.grad, old)


def test_neither_the_input_nor_what_comes_from_above_is_overwritten():
    network = stack()
    x = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    y = network(x)
    gradient = torch.randn_like(y)
    values, copy = x.detach().clone(), gradient.clone()
    y.backward(gradient)
    assert torch.equal(x.detach(), values)
    assert torch.equal(gradient, copy)


def test_neighbours_share_an_input_that_comes_in_parts():
    network = stack(members=6)
    first, second = torch.randn(2, 4, 2).double(), torch.randn(2, 4, 3).double()
    whole = torch.cat((first, second), dim=-1).repeat_interleave(3, dim=0).requires_grad_()
    wanted = network(whole)
    seen = torch.randn_like(wanted)
    wanted.backward(seen)
    gradients = [value.grad.clone() for value in network.parameters()]
    network.zero_grad()
    second.requires_grad_()
    output = network(first, second)
    assert torch.equal(output, wanted)
    output.backward(seen)
    assert torch.allclose(second.grad, whole.grad.view(2, 3, 4, 5).sum(1)[..., 2:])
    for value, gradient in zip(network.parameters(), gradients, strict=True):
        assert torch.allclose(value.grad, gradient)


def test_an_input_may_be_a_view_that_repeats():
    network = stack()
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    network(x.expand(3, 4, 5)).sum().backward()
    one = x.grad.clone()
    x.grad = None
    network(x.repeat(3, 1, 1).view(3, 4, 5)).sum().backward()
    assert torch.allclose(one, x.grad)


def test_two_passes_before_one_backward_add_up():
    network = stack()
    first, second = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    (network(first).sum() + network(second).sum()).backward()
    together = [value.grad.clone() for value in network.parameters()]
    network.zero_grad()
    network(first).sum().backward()
    network(second).sum().backward()
    for value, wanted in zip(network.parameters(), together, strict=True):
        assert torch.allclose(value.grad, wanted)


def test_without_gradients_the_same_values():
    network = stack()
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        y = network(x)
    assert not y.requires_grad
    assert torch.equal(y, network(x).detach())


def test_a_second_derivative_is_refused():
    network = stack()
    x = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="no second one"):
        torch.autograd.grad(network(x).sum(), x, create_graph=True)


def test_copies_and_checkpoints():
    network = stack(dtype=torch.float32)
    assert list(network.state_dict()) == [
        *("weight_0", "bias_0", "weight_1", "bias_1", "weight_2", "bias_2"),
    ]
    assert network.weight_1.shape == (3, 8, 7)
    assert network.bias_1.shape == (3, 1, 7)
    x = torch.randn(3, 4, 5)
    copy, fresh = deepcopy(network), StackedMLP(3, (5, 8, 7, 2))
    fresh.load_state_dict(network.state_dict())
    wanted = network(x)
    with torch.no_grad():
        network.weight_0.add_(1.0)
    for other in (copy, fresh):
        assert torch.equal(other(x), wanted)
    assert not torch.equal(network(x), wanted)


def test_weights_start_xavier_uniform_and_biases_at_zero():
    network = StackedMLP(4, (30, 50, 2))
    bound = (6 / 80) ** 0.5
    weight = network.weight_0.detach()
    assert float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.05)
    assert not torch.equal(weight[0], weight[1])
    assert not network.bias_0.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, (2, 3), "gelu"), "activation is 'gelu'; choose one of relu"),
        ((0, (2, 3)), "0 members"),
        ((1, (2,)), "at least one member"),
        ((1, (2, 0, 1)), "no network"),
    ],
)
def test_wrong_shapes_and_names(arguments, message):
    with pytest.raises(ValueError, match=message):
        StackedMLP(*arguments)
