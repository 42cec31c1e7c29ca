"""The latent model learns to predict a moving dot; its curriculum, resumption and complaints."""

import math
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from safetypilot.models import graphs, graphs_image, networks
from safetypilot.models.encoders import array, exported_dense
from safetypilot.models.images import Convolution
from safetypilot.models.latent import LatentModel, LatentSizes
from safetypilot.policies.learn import checkpoint, latent, sequences
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.latent import LatentConfig, Training
from safetypilot.policies.learn.sequences import Sequences
from safetypilot.policies.planning import PlannerConfig
from safetypilot.policies.recovery import RecoveryConfig, RecoveryPlanner

SIDE = 16
SIZES = LatentSizes(
    (SIDE, SIDE, 1),
    (-2.0, -2.0),
    (2.0, 2.0),
    latent=8,
    convolutions=(Convolution(16, 4, 4), Convolution(16, 3, 2, 1)),
    dense=(64,),
    transition=(64,),
    decoder=(64,),
)
FAST = LatentConfig(steps=360, batch=32, length=3, ahead=2, kl=1.0, learning_rate=3e-3)


@pytest.fixture(autouse=True)
def seeded():
    """Weights start the same in every run, whatever other tests drew before."""
    torch.manual_seed(0)


def picture(place):
    """A soft dot of radius 2 at (x, y) on a bright ground, (SIDE * SIDE,) bytes."""
    row, column = np.mgrid[:SIDE, :SIDE]
    distance = np.hypot(row - place[1], column - place[0])
    return np.round(220 - 200 * np.clip(2.5 - distance, 0, 1)).astype(np.uint8).ravel()


def dots(rows=400, seed=0, length=10):
    """A dot that goes where the action says, within walls; episodes of `length` steps."""
    rng = np.random.default_rng(seed)
    data = {name: [] for name in ("observation", "action", "next_observation", "truncated")}
    place = rng.uniform(3, SIDE - 4, 2)
    for row in range(rows):
        action = rng.uniform(-2, 2, 2).astype(np.float32)
        following = np.clip(place + action, 2, SIDE - 3)
        data["observation"].append(picture(place))
        data["action"].append(action)
        data["next_observation"].append(picture(following))
        data["truncated"].append(row % length == length - 1)
        place = rng.uniform(3, SIDE - 4, 2) if data["truncated"][-1] else following
    return {name: np.array(column) for name, column in data.items()}


def training(config=FAST, sizes=SIZES):
    torch.manual_seed(0)
    return Training(LatentModel(sizes), config, list(range(sizes.seeds)))


@pytest.fixture(scope="module")
def learnt():
    made = training()
    seen = []
    latent.fit(made, [Sequences(dots())], report=lambda step, metrics: seen.append((step, metrics)))
    return made, seen


def test_it_learns_to_predict_a_moving_dot(learnt):
    made, seen = learnt
    unseen = [Sequences(dots(200, seed=9))]
    errors = latent.prediction_errors(made.model, unseen, ahead=2)
    assert errors["latent/error_1"] < 0.4 * errors["latent/baseline"]
    assert errors["latent/error_2"] < 0.6 * errors["latent/baseline"]
    fresh = latent.prediction_errors(LatentModel(SIZES), unseen, ahead=2)
    assert errors["latent/error_1"] < 0.2 * fresh["latent/error_1"]
    assert [step for step, _ in seen] == list(range(1, 361))
    assert all(value.ndim == 0 and value.isfinite() for value in seen[-1][1].values())


def test_what_it_predicts_depends_on_the_action(learnt):
    model = learnt[0].model
    start = torch.from_numpy(np.stack([picture((7.5, 7.5))]))[None]
    places = []
    for action in ((-2.0, 0.0), (2.0, 0.0), (0.0, -2.0), (0.0, 2.0)):
        with torch.no_grad():
            image = model.imagine(start, torch.tensor(action).expand(1, 1, 2, 2))[0, 0, -1]
        dark = (220 - image.reshape(SIDE, SIDE)).clamp(min=0) ** 2
        grid = torch.arange(SIDE) - 7.5
        places.append(((dark.sum(0) @ grid) / dark.sum(), (dark.sum(1) @ grid) / dark.sum()))
    assert places[1][0] - places[0][0] > 3 and places[3][1] - places[2][1] > 3


class Flying:
    """A graph as a node would run it."""

    members = 1

    def __init__(self, graph):
        self.session = onnxruntime.InferenceSession(
            graph.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        self.names = [each.name for each in self.session.get_outputs()]

    def run(self, **inputs):
        return dict(zip(self.names, self.session.run(None, inputs), strict=True))


def judge_of_the_left(encoder):
    """A critic of latents to which less than 5 pixels from the left edge is a violation."""
    data = dots(600, seed=5)
    latents = torch.from_numpy(latent.encode(encoder, data["observation"]))[None]
    actions = torch.from_numpy(data["action"])[None]
    dark = 220.0 - data["next_observation"].reshape(-1, SIDE, SIDE)
    centre = (dark.sum(axis=1) @ np.arange(SIDE)) / dark.sum(axis=(1, 2))
    risky = torch.from_numpy((centre < 5).astype(np.float32))
    critic = networks.TwinCritic(networks.Sizes(8, (-2.0, -2.0), (2.0, 2.0), (32,)), True)
    critic.scaling.fit(latents[0])
    optimiser = torch.optim.Adam(critic.parameters(), 1e-2)
    for _ in range(150):
        logits = critic.logits(latents, actions)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, risky.expand_as(logits))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return critic


def test_a_planner_on_its_latents_leads_away_from_a_learnt_danger(learnt):
    model = learnt[0].model
    critic = judge_of_the_left(model.encoder)
    box = critic.scaling
    joint = [
        np.concatenate((array(a[0, 0]), array(b[0, 0])))
        for a, b in (
            (box.observation_mean, box.action_middle),
            (box.observation_scale, box.action_half),
        )
    ]
    twins = [graphs.fold_input(exported_dense(critic.network, i), *joint) for i in range(2)]
    planner = RecoveryPlanner(
        RecoveryConfig(PlannerConfig.published_visual(4), particles=5, action_penalty=0.0),
        Flying(graphs_image.latent_dynamics(model.transition.exported(), 8, True)),
        Flying(graphs.safety_critic(twins, 8)),
        [-2.0, -2.0],
        [2.0, 2.0],
        encoder=Flying(graphs_image.encoder(model.encoder.exported())),
    )
    for seq, row in enumerate((5.0, 7.5, 10.0)):
        place = np.array([5.2, row])
        plan = planner.plan(picture(place).astype(np.float32), seq)
        assert plan.actions[0, 0] > 0 and plan.risks.max() < 0.3
        for action in plan.actions:
            place = np.clip(place + action, 2, SIDE - 3)
            assert place[0] >= 4.5
        toward = np.tile(np.array([-2.0, 0.0], np.float32), (1, 4, 1))
        start = model.encoder(torch.from_numpy(picture([5.2, row]))[None, None])[0, 0].detach()
        noise = np.zeros((3, 1, 1, 8), np.float32)
        assert planner._risks(start.numpy(), toward, noise).max() > 0.7


def test_the_curriculum_goes_from_none_to_all_in_equal_stages():
    config = LatentConfig.published()
    stages = [config.ahead_at(step) for step in range(0, 20_000, 100)]
    assert stages == sorted(stages) and set(stages) == {0, 1, 2, 3, 4, 5}
    assert {stages.count(ahead) for ahead in range(6)} == {33, 34}
    assert config.ahead_at(10**9) == 5


def test_the_loss_is_the_published_one():
    model = LatentModel(SIZES)
    data = [Sequences(dots(50))]
    stretch = sequences.draw(data, [np.random.default_rng(0)], 4, 3)
    got, parts = latent.loss(model, stretch, 1, 10.0, torch.Generator().manual_seed(1))
    frames, actions, valid = stretch
    errors, apart, counted, starts = [], [], 0.0, 0.0
    mean, log_std = model.encoder.distribution(frames[:, :, :3].flatten(1, 2))
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(1))
    for row in range(4):
        for start in range(3):
            at = row * 3 + start
            z = mean[:, at : at + 1] + log_std[:, at : at + 1].exp() * noise[:, at : at + 1]
            for ahead in range(2):
                weight = float(valid[0, row, start + ahead])
                shown = model.decoder(z)[0, 0]
                errors.append(weight * (shown - frames[0, row, start + ahead]).square().mean())
                counted += weight
                z = model.transition(z, actions[:, row : row + 1, start])
            sigma = log_std[0, at].exp()
            kl = 0.5 * (mean[0, at] ** 2 + sigma**2 - (sigma**2).log() - 1).mean()
            apart.append(float(valid[0, row, start]) * kl)
            starts += float(valid[0, row, start])
    wanted = sum(errors) / counted + 10.0 * sum(apart) / starts
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(parts["latent/kl"], (sum(apart) / starts).detach())


def test_stretches_end_where_episodes_do():
    data = dots(30, length=10)
    data["terminated"] = np.zeros(30, np.bool_)
    data["terminated"][14] = True
    read = Sequences(data)
    assert list(read.left[[0, 9, 10, 14, 15, 19, 20, 29]]) == [10, 1, 5, 1, 5, 1, 10, 1]
    frames, actions, valid = read.draw(np.random.default_rng(0), 200, 4)
    assert frames.dtype == np.uint8 and frames.shape == (200, 5, 256)
    assert actions.shape == (200, 4, 2) and valid.shape == (200, 5)
    for row in range(200):
        (start,) = np.flatnonzero((data["observation"] == frames[row, 0]).all(axis=1))[:1]
        span = min(read.left[start], 4)
        assert list(valid[row]) == [1.0] * (span + 1) + [0.0] * (4 - span)
        following = data["next_observation"][start : start + span]
        np.testing.assert_array_equal(frames[row, 1 : span + 1], following)
        np.testing.assert_array_equal(actions[row, :span], data["action"][start : start + span])


def test_what_comes_after_an_end_teaches_nothing():
    model = LatentModel(SIZES)
    stretch = sequences.draw([Sequences(dots(40))], [np.random.default_rng(0)], 8, 3)
    cut = torch.ones_like(stretch.valid)
    cut[:, :4, 2:] = 0.0
    first, second = stretch._replace(valid=cut), stretch._replace(valid=cut)
    second = second._replace(frames=second.frames.clone(), actions=second.actions.clone())
    second.frames[:, :4, 2:] = 7
    second.actions[:, :4, 1:] = 1.5
    losses = [
        latent.loss(model, each, 2, 1.0, torch.Generator().manual_seed(0))[0]
        for each in (first, second)
    ]
    torch.testing.assert_close(losses[0], losses[1])


def test_a_resumed_training_goes_on_as_if_it_had_not_stopped(tmp_path):
    config = replace(FAST, steps=8, batch=4)
    data = [Sequences(dots(40))]
    whole, first, second = training(config), training(config), training(config)
    wanted = latent.fit(whole, data)
    latent.fit(first, data, until=3)
    latent.refine(first, data, steps=1, batch=4)
    checkpoint.save(tmp_path / "latent.pt", {"latent": first.state()})
    torch.manual_seed(99)
    second.restore(checkpoint.load(tmp_path / "latent.pt")["latent"])
    assert second.step == 3
    latent.fit(first, data)
    got = latent.fit(second, data)
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], tensor)
    assert got["latent/loss"] != wanted["latent/loss"]  # refined in between
    third = training(config)
    latent.fit(third, data, until=5)
    assert latent.fit(third, data) == wanted


def test_refining_moves_the_transition_alone_and_helps(learnt):
    made = learnt[0]
    again = training()
    again.restore(made.state())
    with torch.no_grad():
        for parameter in again.model.transition.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    before = {name: tensor.clone() for name, tensor in again.model.state_dict().items()}
    data = [Sequences(dots(seed=3))]
    worse = latent.prediction_errors(again.model, data, 1)["latent/error_1"]
    latent.refine(again, data, steps=40, batch=64)
    assert latent.prediction_errors(again.model, data, 1)["latent/error_1"] < 0.8 * worse
    moved = {n.split(".")[0] for n, t in again.model.state_dict().items() if (t != before[n]).any()}
    assert moved == {"transition"}
    assert all(parameter.requires_grad for parameter in again.model.parameters())


def test_seeds_learn_side_by_side():
    sizes = replace(SIZES, seeds=2)
    config = replace(FAST, steps=2, batch=4)
    made = training(config, sizes)
    data = [Sequences(dots(40, seed=seed)) for seed in range(2)]
    latent.fit(made, data, until=1)
    alone = networks.member(made.model, 1)
    rows = dots(5, seed=5)["observation"]
    found = latent.encode(alone.encoder, rows, chunk=2)
    together = made.model.encoder(torch.from_numpy(rows).expand(2, 5, -1))[1]
    np.testing.assert_allclose(found, together.detach(), atol=1e-5)
    with pytest.raises(LearnError, match="member"):
        latent.encode(made.model.encoder, rows)


def test_no_images_have_no_latents():
    assert latent.encode(LatentModel(SIZES).encoder, np.zeros((0, 256), np.uint8)).shape == (0, 8)


def test_what_cannot_be_learnt_from_is_named():
    data = dots(10)
    with pytest.raises(LearnError, match="next_observation"):
        Sequences({name: data[name] for name in ("observation", "action")})
    with pytest.raises(LearnError, match=r"\[9, 10\] rows"):
        Sequences({**data, "action": data["action"][:9]})
    with pytest.raises(LearnError, match="seeds given"):
        Training(LatentModel(SIZES), FAST, [0, 1])
    with pytest.raises(LearnError, match="ahead=9"):
        replace(FAST, ahead=9)
    with pytest.raises(LearnError, match="another latent model"):
        training(sizes=replace(SIZES, latent=4)).restore(training().state())


def test_divergence_names_the_step():
    made = training(replace(FAST, batch=4))
    data = [Sequences(dots(20))]
    latent.fit(made, data, until=2)
    with torch.no_grad():
        made.model.encoder.dense.layers[0][0].fill_(math.nan)
    with pytest.raises(LearnError, match="step 2: latent/loss nan"):
        latent.fit(made, data, until=4)
