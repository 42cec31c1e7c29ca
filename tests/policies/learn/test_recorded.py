"""A recorded update is the update, bit for bit, and none of its Python runs again."""

import math

import pytest
import torch

from safetypilot.models.stacked import StackedMLP
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.optimiser import Adam
from safetypilot.policies.learn.recorded import Recorded


class Regression:
    """A network, its optimiser, a source of chance; counts how often Python is asked."""

    def __init__(self):
        torch.manual_seed(3)
        self.network = StackedMLP(2, (3, 8, 1))
        self.optimiser = Adam(self.network.parameters(), 1e-2)
        self.generator = torch.Generator().manual_seed(0)
        self.level = torch.zeros(2)
        self.asked = 0

    def update(self, batch):
        self.asked += 1
        x, y = batch
        x = x + 0.1 * torch.randn(x.shape, generator=self.generator)
        error = self.network(x) - y - self.level[:, None, None]
        loss = error.square().mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.level.mul_(0.9).add_(error.detach().mean(dim=(1, 2)))
        largest, _ = error.detach().flatten().max(dim=0)
        return {"loss": loss.detach(), "largest": largest}


def batches(count, rows=16, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield tuple(torch.randn(2, rows, width, generator=generator) for width in (3, 1))


def same(first, second):
    pairs = zip(first.network.parameters(), second.network.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs) and torch.equal(first.level, second.level)


def test_the_bits_are_those_of_the_update_and_python_is_asked_once():
    plain, other = Regression(), Regression()
    recorded = Recorded(other.update)
    for batch in batches(10):
        wanted, found = plain.update(batch), recorded(batch)
        assert list(found) == list(wanted)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        assert not found["loss"].requires_grad
    assert same(plain, other)
    assert torch.equal(plain.generator.get_state(), other.generator.get_state())
    assert plain.asked == 10
    assert other.asked == 1


def test_another_shape_is_recorded_for_itself():
    plain, other = Regression(), Regression()
    recorded = Recorded(other.update)
    for rows in (16, 4, 16, 4):
        for batch in batches(2, rows):
            plain.update(batch)
            recorded(batch)
    assert same(plain, other)
    assert other.asked == 2


def test_what_changes_in_place_from_outside_is_seen():
    plain, other = Regression(), Regression()
    recorded = Recorded(other.update)
    for number, batch in enumerate(batches(6)):
        for each in (plain, other):
            with torch.no_grad():
                each.level.fill_(float(number))
                each.network.bias_1.add_(1.0)
        plain.update(batch)
        recorded(batch)
    assert same(plain, other)


def test_gradients_are_not_copied():
    other = Regression()
    recorded = Recorded(other.update)
    recorded(next(batches(1)))
    (track,) = recorded._tracks.values()
    assert "copy_" not in track.code.__self__.code
    assert len(track.given) == 4 * 3 + 1 + 1 + 1  # weights, moments; steps, chance, level


def test_copies_that_matter_stay():
    held = torch.zeros(2, 3)

    def update(batch):
        kept = batch[0].clone()
        batch[0].add_(1.0)
        held.copy_(kept)
        return {"sum": kept.sum()}

    recorded = Recorded(update)
    for value in (1.0, 2.0, 3.0):
        found = recorded((torch.full((2, 3), value),))
        assert found["sum"].item() == 6 * value
        assert held[0, 0] == value


def test_a_value_that_decides_is_refused():
    def update(batch):
        return {"loss": batch[0] * (1.0 if batch[0].sum() > math.pi else 2.0)}

    with pytest.raises(LearnError, match=r"takes a number out of a tensor; set capture=false"):
        Recorded(update)((torch.ones(3),))
