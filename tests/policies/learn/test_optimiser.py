"""Adam is torch's, bit for bit, also across a restart; targets follow; frozen networks stay."""

from copy import deepcopy

import pytest
import torch

from safetypilot.models.stacked import StackedMLP
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.optimiser import Adam, frozen, polyak


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def network():
    return StackedMLP(2, (3, 8, 1))


def descend(model, optimiser, steps, seed=1):
    """The same sequence of losses for everybody."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(2, 16, 3, generator=generator)
        optimiser.zero_grad()
        model(x).square().mean().backward()
        optimiser.step()


def same(first, second):
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_steps_are_those_of_torchs_adam():
    mine = network()
    theirs = deepcopy(mine)
    descend(mine, Adam(mine.parameters(), 1e-2), 20)
    descend(theirs, torch.optim.Adam(theirs.parameters(), 1e-2, fused=True), 20)
    assert same(mine, theirs)


def test_a_restored_optimiser_goes_on_bit_for_bit():
    straight = network()
    stopped = deepcopy(straight)
    optimiser = Adam(straight.parameters(), 1e-2)
    descend(straight, optimiser, 5, seed=1)
    descend(straight, optimiser, 5, seed=2)

    optimiser = Adam(stopped.parameters(), 1e-2)
    descend(stopped, optimiser, 5, seed=1)
    state = optimiser.state_dict()
    other = deepcopy(stopped)
    descend(stopped, optimiser, 1, seed=3)  # must not reach into the saved state
    fresh = Adam(other.parameters(), 0.5)
    fresh.load_state_dict(state)
    assert fresh.rate == 1e-2
    descend(other, fresh, 5, seed=2)
    assert same(other, straight)
    assert not same(stopped, straight)


def test_what_has_no_gradient_stays():
    model = network()
    before = deepcopy(model)
    optimiser = Adam(model.parameters(), 1e-2)
    optimiser.step()
    assert same(model, before)
    model.weight_0.grad = torch.ones_like(model.weight_0)
    optimiser.step()
    assert not torch.equal(model.weight_0, before.weight_0)
    assert torch.equal(model.weight_1, before.weight_1)
    assert int(optimiser.count) == 2
    optimiser.zero_grad()
    assert model.weight_0.grad is None


def test_members_do_not_feel_each_other():
    """The seed as a leading dimension: member 0 moves the same whatever member 1 does."""
    model = network()
    other = deepcopy(model)
    for each, factor in ((model, 1.0), (other, 100.0)):
        optimiser = Adam(each.parameters(), 1e-2)
        for _ in range(3):
            optimiser.zero_grad()
            value = each(torch.ones(2, 4, 3)).square().mean(dim=(1, 2))
            (value[0] + factor * value[1]).backward()
            optimiser.step()
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine[0], theirs[0])


def test_a_state_of_other_sizes_is_refused_and_changes_nothing():
    optimiser = Adam(network().parameters(), 1e-2)
    other = Adam(StackedMLP(2, (4, 8, 1)).parameters(), 0.5)
    for state in (other.state_dict(), {}):
        with pytest.raises(LearnError, match="resume with the sizes"):
            optimiser.load_state_dict(state)
    assert optimiser.rate == 1e-2


def test_a_target_moves_by_its_rate():
    target, source = network().requires_grad_(False), network()
    old = deepcopy(target)
    polyak(target, source, 0.25)
    for now, was, to in zip(
        target.parameters(), old.parameters(), source.parameters(), strict=True
    ):
        assert torch.allclose(now, was + 0.25 * (to - was))
        assert not now.requires_grad


def test_frozen_networks_pass_gradients_and_keep_none():
    model = network()
    model.bias_1.requires_grad_(False)
    x = torch.randn(2, 4, 3, requires_grad=True)
    with frozen(model):
        loss = model(x).sum()
    loss.backward()
    assert x.grad is not None
    assert all(value.grad is None for value in model.parameters())
    assert [value.requires_grad for value in model.parameters()] == [True, True, True, False]
    with pytest.raises(RuntimeError, match="inside"), frozen(model):
        raise RuntimeError("inside")
    assert model.weight_0.requires_grad
