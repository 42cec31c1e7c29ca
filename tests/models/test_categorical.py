"""A choice among n: the policy, the networks that are asked about preferences, their ONNX files."""

import numpy as np
import pytest
import torch

from safetypilot.models import categorical, export, runtime
from safetypilot.models.categorical import (
    CategoricalActor,
    ChoiceCritic,
    ChoiceDynamics,
    FilteredChoice,
    one_hot,
)
from safetypilot.models.contract import Contract
from safetypilot.models.encoders import EncoderSizes
from safetypilot.models.networks import Sizes, TwinCritic, member

N = 4
LOW, HIGH = (0.0,) * N, (1.0,) * N
SIZES = Sizes(3, LOW, HIGH, (16, 16))
PIXELS = Sizes(12 * 12 * 3, LOW, HIGH, (16,), image=EncoderSizes((12, 12, 3), features=8))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def contract(names=("x", "y", "z")):
    return Contract(
        kind="task_policy",
        observation_names=names,
        observation_units=("",) * len(names),
        action_names=tuple(f"choice_{index}" for index in range(N)),
        action_units=("",) * N,
        action_low=LOW,
        action_high=HIGH,
        version="test",
    )


@pytest.fixture
def actor():
    torch.manual_seed(0)
    return CategoricalActor(Sizes(3, LOW, HIGH, (16,), seeds=2))


def sure(logits):
    """An actor whose logits are these, wherever it is."""
    made = CategoricalActor(Sizes(1, (0.0,) * len(logits), (1.0,) * len(logits), ()))
    with torch.no_grad():
        weight, bias = made.network.layers[-1]
        weight.zero_()
        bias.copy_(torch.tensor(logits))
    return made


def test_the_largest_preference_is_the_choice_and_the_first_of_equals():
    rows = torch.tensor([[0.1, 0.9, 0.9], [0.0, 0.0, 0.0], [-2.0, -3.0, -1.0]])
    assert one_hot(rows).tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_preferences_are_probabilities(actor):
    rows = torch.randn(2, 5, 3)
    with torch.no_grad():
        preferences = actor(rows)
        probability, log = actor.distribution(rows)
    assert preferences.shape == (2, 5, N)
    assert torch.equal(preferences, probability)
    assert torch.allclose(preferences.sum(dim=-1), torch.ones(2, 5))
    assert torch.allclose(log.exp(), probability)


def test_samples_are_one_hot_with_their_log_probability(actor):
    rows = torch.randn(2, 7, 3)
    chosen, density = actor.sample(rows, generator())
    assert sorted(chosen.unique().tolist()) == [0.0, 1.0]
    assert torch.equal(chosen.sum(dim=-1), torch.ones(2, 7))
    _, log = actor.distribution(rows)
    assert torch.allclose(density, log.gather(-1, chosen.argmax(dim=-1, keepdim=True))[..., 0])
    assert density.requires_grad
    assert not chosen.requires_grad
    again, _ = actor.sample(rows, generator())
    assert torch.equal(chosen, again)


def test_samples_come_as_often_as_they_should():
    probability = [0.6, 0.3, 0.1]
    made = sure(np.log(probability).tolist())
    chosen, _ = made.sample(torch.zeros(1, 20_000, 1), generator())
    assert chosen.mean(dim=1)[0].tolist() == pytest.approx(probability, abs=0.015)


def test_a_draw_holds_every_choice_once(actor):
    rows = torch.randn(2, 1, 3)
    action, density = actor.draw(rows, 6, generator())
    assert action.shape == (2, 6, N)
    assert density.shape == (2, 6)
    assert torch.equal(action[:, :N].sum(dim=1), torch.ones(2, N))
    _, log = actor.distribution(rows)
    assert torch.allclose((action[:, :N] * log).sum(-1), density[:, :N])
    assert (density[:, N:] == -torch.inf).all()
    assert torch.allclose(density.exp().sum(dim=1), torch.ones(2))
    fewer, _ = actor.draw(rows, 2, generator())
    assert torch.equal(fewer, action[:, :2])


def test_the_first_of_a_draw_that_passes_a_filter_is_the_policy_under_that_filter():
    made = sure(np.log([0.5, 0.3, 0.2]).tolist())
    first, after_filter, source = np.zeros(3), np.zeros(3), generator()
    for _ in range(4000):
        order = made.draw(torch.zeros(1, 1, 1), 3, source)[0][0].argmax(dim=-1).tolist()
        first[order[0]] += 1
        after_filter[next(choice for choice in order if choice != 0)] += 1
    assert (first / 4000).tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    assert (after_filter / 4000).tolist() == pytest.approx([0.0, 0.6, 0.4], abs=0.03)


def test_one_seed_of_several(actor):
    rows = torch.randn(2, 5, 3)
    assert torch.allclose(member(actor, 1)(rows[1:]), actor(rows)[1:], atol=1e-6)


def test_a_critic_judges_the_choice_that_preferences_make():
    torch.manual_seed(0)
    plain = TwinCritic(Sizes(3, LOW, HIGH, (16,), seeds=2), probability=True)
    critic = ChoiceCritic(plain.sizes, probability=True)
    critic.load_state_dict(plain.state_dict())
    rows, preferences = torch.randn(2, 9, 3), torch.rand(2, 9, N)
    choice = one_hot(preferences)
    assert torch.equal(critic.risk(rows, preferences), plain.risk(rows, choice))
    assert torch.equal(critic.risk(rows, choice), plain.risk(rows, choice))
    alone = critic.risk_alone(1, rows[1], preferences[1])
    assert torch.allclose(alone, plain.risk(rows, choice)[1], atol=1e-6)


def test_dynamics_predict_from_the_choice_that_preferences_make():
    ensemble = ChoiceDynamics(SIZES, 2)
    rows, preferences, noise = torch.randn(2, 9, 3), torch.rand(2, 9, N), torch.randn(2, 9, 3)
    found = ensemble(rows, preferences, noise)
    assert torch.equal(found, ensemble(rows, one_hot(preferences), noise))


@pytest.mark.parametrize("probability", [True, False])
def test_all_choices_at_once_are_as_one_by_one(probability):
    critic = TwinCritic(Sizes(3, LOW, HIGH, (16,), seeds=2), probability=probability)
    rows = torch.randn(2, 5, 3)
    values = categorical.each_choice(critic, rows)
    assert values.shape == (2, 2, 5, N)
    for choice in range(N):
        action = torch.eye(N)[choice].expand(2, 5, N)
        assert torch.allclose(values[..., choice], critic(rows, action), atol=1e-6)


def filtered(probability, risk, eps):
    """The preferences of a filter over three choices of these probabilities and risks."""
    actor = sure(np.log(probability).tolist())
    critic = TwinCritic(actor.sizes, probability=True)
    logits = torch.logit(torch.tensor(risk))
    with torch.no_grad():
        weight, bias = critic.network.layers[-1]
        weight.zero_()
        weight[:, 1:, 0] = 0.5 * logits  # of an action in [-1, 1]
        bias.fill_(0.5 * logits.sum())
        return FilteredChoice(actor, critic, eps)(torch.zeros(1, 1, 1))[0, 0].tolist()


def test_a_filter_takes_the_likeliest_that_is_safe():
    found = filtered([0.7, 0.2, 0.1], [0.9, 0.1, 0.2], eps=0.3)
    assert found == pytest.approx([0.05, 0.6, 0.55], abs=1e-5)


def test_a_filter_takes_the_least_risky_where_nothing_is_safe():
    found = filtered([0.7, 0.2, 0.1], [0.9, 0.5, 0.4], eps=0.3)
    assert found == pytest.approx([0.05, 0.25, 0.3], abs=1e-5)


def networks(sizes):
    torch.manual_seed(0)
    actor = CategoricalActor(sizes)
    critic = ChoiceCritic(sizes, probability=True, critics=3)
    made = {"policy": actor, "critic": critic, "filtered": FilteredChoice(actor, critic, 0.5)}
    if sizes.image is None:
        made["dynamics"] = ChoiceDynamics(sizes, 3)
    return made


@pytest.mark.parametrize("name", ["policy", "critic", "filtered", "dynamics"])
@pytest.mark.parametrize("offset", [0.0, 1e5], ids=["near", "far"])
def test_onnx_agrees_with_torch(name, offset, tmp_path):
    """Far away the observation's mean is subtracted in the graph instead of folded away."""
    made = networks(SIZES)
    data = offset + torch.randn(200, 3)
    made["policy"].scaling.fit(data)
    made["critic"].scaling.fit(data)
    network = made[name]
    if name == "dynamics":
        network.fit_normaliser(torch.randn(200, 3 + N), torch.randn(200, 3))
    model = export.export(network, tmp_path / "x.onnx", contract())
    rng = np.random.default_rng(0)
    lead = (3, 50) if name == "dynamics" else (50,)
    inputs = {
        "observation": offset + rng.standard_normal((*lead, 3)),
        "action": rng.random((*lead, N)),
        "noise": rng.standard_normal((*lead, 3)),
    }
    inputs = {key: inputs[key].astype(np.float32) for key in model.input_shapes}
    with torch.no_grad():
        rows = [torch.from_numpy(array) for array in inputs.values()]
        if name == "dynamics":
            wanted = network(*rows)
        else:
            call = network.risk if name == "critic" else network
            wanted = call(*(row[None] for row in rows))[0]
    (found,) = model.run(**inputs).values()
    allowed = 0.02 if name == "dynamics" and offset else 2e-5  # float32 ends at 0.008 there
    np.testing.assert_allclose(found, wanted.numpy(), atol=allowed)
    assert model.contract.action_names[0] == "choice_0"


def test_an_exported_critic_takes_preferences(tmp_path):
    model = export.export(networks(SIZES)["critic"], tmp_path / "x.onnx", contract())
    preferences = np.array([[0.2, 0.9, 0.3, 0.9]], np.float32)
    row = np.ones((1, 3), np.float32)
    found = model.run(observation=row, action=preferences)["risk"]
    assert found == model.run(observation=row, action=np.eye(N, dtype=np.float32)[1:2])["risk"]


@pytest.mark.parametrize("name", ["policy", "critic", "filtered"])
def test_pixels(name, tmp_path):
    network = networks(PIXELS)[name]
    model = export.export(network, tmp_path / "x.onnx", contract(("image[12,12,3]",)))
    image = np.random.default_rng(0).integers(0, 256, (5, 432)).astype(np.float32)
    rows = (image, np.eye(N, dtype=np.float32)[[0, 1, 2, 3, 0]])[: len(model.input_shapes)]
    (found,) = model.run(**dict(zip(model.input_shapes, rows, strict=True))).values()
    with torch.no_grad():
        call = network.risk if name == "critic" else network
        wanted = call(*(torch.from_numpy(row)[None] for row in rows))[0]
    np.testing.assert_allclose(found, wanted.numpy(), atol=2e-5)


def test_the_same_weights_give_the_same_bytes(tmp_path):
    network = networks(SIZES)["filtered"]
    paths = [export.export(network, tmp_path / f"{i}.onnx", contract()).path for i in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_deployed_policy_stays_in_the_box(tmp_path):
    for name in ("policy", "filtered"):
        model = export.export(networks(SIZES)[name], tmp_path / "x.onnx", contract())
        rows = 100 * np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
        action = model.run(observation=rows)["action"]
        assert action.min() >= 0.0
        assert action.max() <= 1.0
    assert runtime.load(tmp_path / "x.onnx").contract.kind == "task_policy"
