"""Several seeds side by side learn exactly what each would learn alone.

The same weights, batches and noise go into one learner of three seeds and three of one; whatever
mixes seeds (a mean over the wrong dimension, a shared multiplier, a broadcast) tears them apart.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ledge import fill, learner

from safetypilot.models.networks import DynamicsEnsemble, member
from safetypilot.policies.learn import catalogue
from safetypilot.policies.learn.replay import Transition

SEEDS = (5, 6, 7)
OPTIONS = {
    "automatic_alpha": True, "learning_rate": 3e-3, "risk_learning_rate": 3e-3,
    "positive_fraction": 0.2, "bootstrap": "composite", "recovery_deviation": 0.1,
    "capture": False,  # for `Noise`, which a recording would not ask again
}  # fmt: skip
LAGRANGE = {"nu": 7.0, "nu_learning_rate": 0.1, "eps": 0.5}
OWN = {
    "lr": LAGRANGE,
    "sqrl": LAGRANGE,
    "csc": LAGRANGE | {"conservative": 0.3},
    "rspo": {"nu": 7.0, "episodes": 3},
    "rp": {"penalty": 5.0},
    "rcpo": {"penalty": 5.0, "penalty_learning_rate": 0.1, "eps": 0.5},
    "safety-editor": {"editor_weight": 0.7},
}
ROUNDS = 4
MULTIPLIED = ("lr", "sqrl", "csc", "rspo", "rcpo")


def multiplier(made):
    algorithm = made.algorithm
    return algorithm.multiplier.value if made.name == "rcpo" else algorithm.nu


class Noise:
    """Stands in for torch.randn: what three seeds together have drawn, each alone gets its part."""

    def __init__(self, monkeypatch):
        self.drawn, self.seed, self.position = [], None, 0
        self._randn = torch.randn
        monkeypatch.setattr(torch, "randn", self)

    def __call__(self, *shape, **options):
        if self.seed is None:
            self.drawn.append(self._randn(*shape, **options))
            return self.drawn[-1]
        self.position += 1
        return self.drawn[self.position - 1][self.seed : self.seed + 1]

    def replay(self, seed):
        self.seed, self.position = seed, 0


def part(rows, seed):
    return Transition(*(column[seed : seed + 1] for column in rows))


def fed(made, batches):
    """Both replays give these batches, one after another."""
    for name in ("task_replay", "risk_replay"):
        queue = iter(batches[name])
        getattr(made, name).sample = lambda *_, queue=queue: next(queue)
    return made


def updated(made):
    for number in range(ROUNDS):
        for index in range(len(made.seeds)):
            # of different episodes, so that scheduled multipliers differ
            made.algorithm.start_episode(index, 1 + (number + made.seeds[index]) % 3)
        made.update_task()
        made.update_risk()
    return made


@pytest.mark.parametrize("name", [n for n in catalogue.ALGORITHMS if "visual" not in n])
def test_one_update_of_three_seeds_is_three_updates_of_one(name, monkeypatch):
    options = OPTIONS | OWN.get(name, {})
    together = learner(name, SEEDS, **options)
    alone = [learner(name, (seed,), **options) for seed in SEEDS]
    fill(together, 60)
    rng = np.random.default_rng(0)
    batches = {
        kind: [getattr(together, kind).sample(rng, 16, 0.2) for _ in range(ROUNDS)]
        for kind in ("task_replay", "risk_replay")
    }
    for index, made in enumerate(alone):
        fill(made, 1)  # or else it takes demonstrations only
        for key, network in made.networks().items():
            if not isinstance(network, DynamicsEnsemble):
                own = member(together.networks()[key], index)
                network.load_state_dict(own.state_dict())

    noise = Noise(monkeypatch)
    updated(fed(together, batches))
    assert noise.drawn
    for index, made in enumerate(alone):
        noise.replay(index)
        own = {kind: [part(rows, index) for rows in given] for kind, given in batches.items()}
        updated(fed(made, own))
        assert noise.position == len(noise.drawn)
        for key, network in made.networks().items():
            if isinstance(network, DynamicsEnsemble):
                continue
            wanted = member(together.networks()[key], index).state_dict()
            for field, tensor in network.state_dict().items():
                torch.testing.assert_close(tensor, wanted[field], atol=2e-6, rtol=1e-4)
        torch.testing.assert_close(made.sac.log_alpha, together.sac.log_alpha[index : index + 1])
        if name in MULTIPLIED:
            value, wanted = multiplier(made), multiplier(together)[index : index + 1]
            torch.testing.assert_close(value, wanted)
    if name in MULTIPLIED:  # and seeds differ, so that mixing them would show
        assert len(set(multiplier(together).tolist())) == len(SEEDS)


def test_what_acts_and_judges_keeps_seeds_apart():
    together = learner("recovery-rl", SEEDS)
    rows = np.linspace(-1, 1, 3)[:, None]
    actions = rows[::-1].copy()
    risks = together.risks(rows, actions)
    for index in range(3):
        one = member(together.risk.critic, index)
        inputs = (torch.tensor(x[index][None, None], dtype=torch.float32) for x in (rows, actions))
        with torch.no_grad():
            assert risks[index] == pytest.approx(one.risk(*inputs).item(), abs=1e-6)
            row = torch.tensor(rows[index], dtype=torch.float32)
            recovery = member(together.risk.recovery, index)(row[None, None])[0, 0]
        assert together.recover(rows[index], index) == pytest.approx(recovery.numpy(), abs=1e-6)


def test_seeds_start_from_different_weights_and_the_same_seed_from_the_same():
    first, again = (learner("recovery-rl", SEEDS) for _ in range(2))
    for parameter, same in zip(
        first.sac.actor.parameters(), again.sac.actor.parameters(), strict=True
    ):
        assert torch.equal(parameter, same)
    weight, _ = first.sac.actor.network.layers[0]
    assert not torch.equal(weight[0], weight[1])


def test_each_seed_has_its_own_scale():
    made = learner("recovery-rl", (0, 1))
    for index, offset in enumerate((0.0, 100.0)):
        for value in range(20):
            row = np.array([offset + value])
            made.add(Transition(row, np.zeros(1), np.zeros(1), 0.0, 0.0, row, False, False), index)
    made.fit_scale()
    assert made.sac.actor.scaling.observation_mean.ravel().tolist() == [9.5, 109.5]
    assert made.risk.critic.scaling.observation_mean.ravel().tolist() == [9.5, 109.5]
