"""Captured updates, as far as a CPU can show: a tape with a graph's rules stands in for it."""

import copy

import pytest
import torch
from choosing import choosing, fill_choices
from ledge import INTERFACE, batch_of, fill, learner, step
from tape import Tape, Taped

from safetypilot.models.networks import Sizes
from safetypilot.policies.learn import capture, sac
from safetypilot.policies.learn.catalogue import ALGORITHMS
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.learner import Learner
from safetypilot.policies.learn.recorded import Recorded

SIZES = Sizes(2, (-1.0, -1.0), (1.0, 1.0), (16,))
CONFIG = Config(hidden=16, layers=1, automatic_alpha=True)
CPU = torch.device("cpu")
VECTORS = [name for name in ALGORITHMS if name != "recovery-rl-visual"]


def generator():
    return torch.Generator().manual_seed(0)


def batches(count):
    rng = torch.Generator().manual_seed(1)
    rows = sac.TaskBatch.of(batch_of([step()] * 8))
    for _ in range(count):
        yield rows._replace(reward=torch.randn(1, 8, generator=rng))


def taped(update, device, noise, wanted):
    return Taped(update, device, noise)


def weights(agent):
    return [value.clone() for net in (agent.actor, agent.target) for value in net.parameters()]


def trained(wrap):
    """Weights and metrics of one agent after ten updates."""
    torch.manual_seed(0)
    agent, noise = sac.Sac(SIZES, CONFIG), generator()
    update = wrap(lambda batch: sac.update(agent, batch, CONFIG, noise), noise)
    losses = [update(batch)["task/critic_loss"].item() for batch in batches(10)]
    return weights(agent), losses


def test_a_replayed_update_gives_the_same_numbers():
    plain, losses = trained(lambda update, noise: update)
    replayed, again = trained(lambda update, noise: Taped(update, CPU, noise))
    assert losses == again
    assert all(torch.equal(a, b) for a, b in zip(plain, replayed, strict=True))


def test_each_call_is_one_update_from_the_first_on():
    seen = []

    def update(batch):
        seen.append(batch.reward.clone())
        return {"loss": batch.reward.sum()}

    replayed = Taped(update, CPU, generator())
    given = list(batches(capture.WARM_UP + 3))
    sums = [replayed(batch)["loss"].item() for batch in given]
    assert sums == pytest.approx([batch.reward.sum().item() for batch in given])
    assert len(seen) == capture.WARM_UP + 1  # nothing of Python's runs in a replay


def test_what_replays_an_update_is_up_to_the_device():
    def update(batch):
        return {}

    cpu, gpu = CPU, torch.device("cuda")
    assert isinstance(capture.captured(update, cpu, generator()), Recorded)
    assert isinstance(capture.captured(update, gpu, generator()), capture.Captured)
    for device in (cpu, gpu):
        assert capture.captured(update, device, generator(), wanted=False) is update
    made = learner("lr", capture=False)
    assert made._task_step == made._update_task
    assert made._risk_step == made._update_risk


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("choices", [False, True])
@pytest.mark.parametrize("how", [taped, capture.captured])
def test_every_algorithm_can_be_captured(name, choices, how, monkeypatch):
    """All that outlasts an update is changed in place, and nothing in it waits for the device."""
    monkeypatch.setattr(capture, "captured", lambda update, *_: update)

    def run():
        make, met = (choosing, fill_choices) if choices else (learner, fill)
        made = make(name, seeds=(0, 1), automatic_alpha=True, bootstrap="composite")
        met(made)
        made.algorithm.start_episode(0, 1)
        metrics = made.update(capture.WARM_UP + 2)
        made.algorithm.start_episode(0, 400)
        again = made.update(4)
        return made, metrics, again

    plain, *wanted = run()
    monkeypatch.setattr(capture, "captured", how)
    other, *found = run()
    assert found == wanted
    for key, network in plain.networks().items():
        state = other.networks()[key].state_dict()
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert torch.equal(plain.generator.get_state(), other.generator.get_state())


def test_rows_of_another_shape_are_refused():
    update = Taped(lambda batch: {}, CPU, generator())
    update(sac.TaskBatch.of(batch_of([step()] * 8)))
    with pytest.raises(LearnError, match=r"rows of \(1, 8, 2\), not \(1, 1, 2\)"):
        update(sac.TaskBatch.of(batch_of([step()])))


def test_the_tape_refuses_what_a_capture_refuses():
    with pytest.raises(RuntimeError, match="not permitted"), Tape():
        torch.ones(1).item()


def test_a_restored_learner_records_afresh(monkeypatch):
    monkeypatch.setattr(capture, "captured", taped)
    made = learner("lr")
    fill(made)
    made.update(6)
    state = copy.deepcopy(made.state())
    wanted = made.update(6)
    made.restore(state)
    assert made._task_step._graph is None
    assert made.update(6) == wanted


def test_random_numbers_begin_anew_on_another_device():
    made, other = learner("sac"), learner("sac")
    fill(made)
    state = {**made.state(), "device": "cuda", "generator": torch.zeros(16, dtype=torch.uint8)}
    other.restore(state)
    assert not torch.equal(other.generator.get_state(), made.generator.get_state())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpu", "networks learn on cpu or cuda"),
        ("mps", "networks learn on cpu or cuda"),
        ("cuda", r"torch.cuda.is_available\(\) is False.*use --device cpu"),
        ("cuda:1", r"torch.cuda.is_available\(\) is False.*use --device cpu"),
    ],
)
def test_a_device_that_is_not_there(name, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LearnError, match=message):
        capture.usable(name)


def test_a_gpu_beyond_the_last(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert capture.usable("cuda:0") == torch.device("cuda:0")
    with pytest.raises(LearnError, match="there are 1 GPUs"):
        capture.usable("cuda:1")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_numbers_captured_or_not():
    def run(wanted):
        small = learner("lr", capture=wanted, automatic_alpha=True)
        made = Learner("lr", small.config, INTERFACE, device="cuda")
        fill(made)
        return made.update(12)

    plain, replayed = run(False), run(True)
    for name, value in plain.items():
        assert replayed[name] == pytest.approx(value, rel=1e-4, abs=1e-5)
