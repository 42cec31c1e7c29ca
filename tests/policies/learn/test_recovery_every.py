"""The recovery policy may learn less often than Q_risk, and keeps its turn across a restart."""

import copy

import torch
from ledge import fill, learner


def made(**settings):
    found = learner("recovery-rl", recovery="model-free", **settings)
    fill(found)
    return found


def moved(found):
    """Whether one update moved the recovery policy, and whether Q_risk."""
    networks = (found.risk.recovery, found.risk.critic)
    before = [copy.deepcopy(network.state_dict()) for network in networks]
    found.update_risk()
    return tuple(
        any(not torch.equal(value, old[name]) for name, value in network.state_dict().items())
        for network, old in zip(networks, before, strict=True)
    )


def test_every_second_update_moves_the_recovery_policy():
    for capture in (True, False):
        found = made(capture=capture)
        assert [moved(found) for _ in range(6)] == [(True, True), (False, True)] * 3


def test_every_update_moves_it_where_told_to():
    found = made(recovery_every=1)
    assert [moved(found) for _ in range(3)] == [(True, True)] * 3


def test_a_restored_learner_keeps_the_turn():
    found = made(recovery_every=3)
    for _ in range(4):
        found.update_risk()
    other = made(recovery_every=3)
    other.restore(copy.deepcopy(found.state()))
    turns = [(moved(found)[0], moved(other)[0]) for _ in range(4)]
    assert turns == [(False, False), (False, False), (True, True), (False, False)]
    for mine, theirs in zip(
        found.risk.recovery.parameters(), other.risk.recovery.parameters(), strict=True
    ):
        assert torch.equal(mine, theirs)
