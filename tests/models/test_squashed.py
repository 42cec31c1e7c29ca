"""The squashed Gaussian against torch's own distributions and finite differences."""

import pytest
import torch
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from safetypilot.models.squashed import LOG_STD_RANGE, squash


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def inputs(*shape):
    """A network's output, noise, and an action box that leads with the first dimension."""
    mean, log_std, noise = torch.randn(3, *shape, dtype=torch.float64)
    output = torch.cat((mean, 0.3 * log_std), dim=-1).requires_grad_()
    middle, half = torch.rand(2, shape[0], 1, shape[-1], dtype=torch.float64)
    return output, noise, middle, half + 0.5


def test_actions_and_densities_are_those_of_torchs_distributions():
    output, noise, middle, half = inputs(2, 5, 3)
    action, density = squash(output, noise, middle, half)
    mean, log_std = output.chunk(2, dim=-1)
    unit = torch.tanh(mean + log_std.exp() * noise)
    assert torch.allclose(action, middle + half * unit)
    theirs = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()])
    assert density.shape == (2, 5)
    assert torch.allclose(density, theirs.log_prob(unit).sum(dim=-1))


def test_gradients_agree_with_finite_differences():
    output, *rest = inputs(2, 3, 2)
    assert torch.autograd.gradcheck(lambda x: squash(x, *rest), (output,))
    for one in (0, 1):
        assert torch.autograd.gradcheck(lambda x, i=one: squash(x, *rest)[i], (output,))


def test_deviations_stop_at_their_bounds_and_so_do_their_gradients():
    low, high = LOG_STD_RANGE
    noise, middle, half = torch.ones(1, 3), torch.zeros(1, 3), torch.ones(1, 3)
    output = torch.tensor([[0.0, 0.0, 0.0, low - 5, high + 5, 0.5]], requires_grad=True)
    inside = torch.tensor([[0.0, 0.0, 0.0, low, high, 0.5]])
    for mine, wanted in zip(
        squash(output, noise, middle, half), squash(inside, noise, middle, half), strict=True
    ):
        assert torch.equal(mine.detach(), wanted)
    squash(output, noise, middle, half)[1].sum().backward()
    assert output.grad[0, 3] == 0
    assert output.grad[0, 4] == 0
    assert output.grad[0, 5] != 0


def test_no_digits_are_lost_where_tanh_saturates():
    output = torch.tensor([[-60.0, 60.0, 0.0, 0.0]], requires_grad=True)
    box = torch.zeros(1, 2), torch.ones(1, 2)
    action, density = squash(output, torch.zeros(1, 2), *box)
    assert action.tolist() == [[-1.0, 1.0]]
    # log(1 - tanh(60)^2) is 2 log 2 - 120
    wanted = 2 * (-0.9189385 - 1.3862944 + 120.0)
    assert density.item() == pytest.approx(wanted, rel=1e-6)
    density.sum().backward()
    assert output.grad[0, :2].tolist() == [-2.0, 2.0]
    assert torch.isfinite(output.grad).all()


def test_arguments_are_left_as_they_were():
    values = inputs(4, 3, 2)
    copies = [value.detach().clone() for value in values]
    action, density = squash(*values)
    (action.sum() + density.sum()).backward()
    for value, copy in zip(values, copies, strict=True):
        assert torch.equal(value.detach(), copy)
