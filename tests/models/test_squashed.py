"""The squashed Gaussian against torch's own distributions and finite differences."""

import pytest
import torch
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from safetypilot.models.squashed import squash


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def inputs(*shape):
    mean, log_std, noise = torch.randn(3, *shape, dtype=torch.float64)
    return mean.requires_grad_(), (0.3 * log_std).requires_grad_(), noise


def test_actions_and_densities_are_those_of_torchs_distributions():
    mean, log_std, noise = inputs(2, 5, 3)
    action, density = squash(mean, log_std, noise)
    assert torch.allclose(action, torch.tanh(mean + log_std.exp() * noise))
    theirs = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()])
    assert density.shape == (2, 5)
    assert torch.allclose(density, theirs.log_prob(action).sum(dim=-1))


def test_gradients_agree_with_finite_differences():
    mean, log_std, noise = inputs(2, 3, 2)
    assert torch.autograd.gradcheck(lambda a, b: squash(a, b, noise), (mean, log_std))
    assert torch.autograd.gradcheck(lambda a, b: squash(a, b, noise)[1], (mean, log_std))
    assert torch.autograd.gradcheck(lambda a: squash(a, log_std, noise)[0], (mean,))


def test_no_digits_are_lost_where_tanh_saturates():
    mean = torch.tensor([[-60.0, 60.0]], requires_grad=True)
    log_std = torch.zeros(1, 2, requires_grad=True)
    action, density = squash(mean, log_std, torch.zeros(1, 2))
    assert action.tolist() == [[-1.0, 1.0]]
    # log(1 - tanh(60)^2) is 2 log 2 - 120
    wanted = 2 * (-0.9189385 - 1.3862944 + 120.0)
    assert density.item() == pytest.approx(wanted, rel=1e-6)
    density.sum().backward()
    assert mean.grad.tolist() == [[-2.0, 2.0]]
    assert torch.isfinite(log_std.grad).all()


def test_arguments_are_left_as_they_were():
    values = inputs(4, 2)
    copies = [value.detach().clone() for value in values]
    action, density = squash(*values)
    (action.sum() + density.sum()).backward()
    for value, copy in zip(values, copies, strict=True):
        assert torch.equal(value.detach(), copy)
