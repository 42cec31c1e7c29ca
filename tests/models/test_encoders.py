"""Image encoders: shapes, what they tell apart, batch independence, and parity with ONNX."""

import math

import numpy as np
import onnxruntime
import pytest
import torch

from safetypilot.models import graphs, graphs_image, images, networks
from safetypilot.models.encoders import ConvolutionTrunk, Encoder, EncoderSizes
from safetypilot.models.images import Convolution

IMAGE = (16, 24, 3)
TINY = (Convolution(8, 4, 4), Convolution(6, 3, 2, 1))
NORMS = pytest.mark.parametrize("norm", ["layer", "batch", "none"])


@pytest.fixture(autouse=True)
def seeded():
    """Weights start the same in every run, whatever other tests drew before."""
    torch.manual_seed(0)


def sizes(norm="layer", seeds=1):
    return EncoderSizes(IMAGE, TINY, 10, norm, seeds)


def pixels(*lead, image=IMAGE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*lead, math.prod(image)), generator=generator).float()


def run(model, **inputs):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {name: array.numpy() for name, array in inputs.items()})[0]


def settled(encoder):
    """With batch statistics of some data, and gains that are not one."""
    encoder.train()
    with torch.no_grad():
        for _ in range(30):
            encoder(pixels(encoder.sizes.seeds, 16, seed=1))
        for name, parameter in encoder.named_parameters():
            if "gain" in name or "shift" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder.eval()


@NORMS
@pytest.mark.parametrize("seeds", [1, 3])
def test_shapes_and_ranges(norm, seeds):
    encoder = Encoder(sizes(norm, seeds)).eval()
    features = encoder(pixels(seeds, 5))
    assert features.shape == (seeds, 5, 10) and bool(features.isfinite().all())
    assert features.abs().max() > 0
    if norm == "layer":
        assert features.abs().max() < 1
    else:
        assert features.min() >= 0


@NORMS
def test_seeds_are_separate_networks_and_member_takes_one_out(norm):
    encoder = settled(Encoder(sizes(norm, 3)))
    observation = pixels(3, 5)
    together = encoder(observation)
    for seed in range(3):
        alone = networks.member(encoder, seed).eval()
        torch.testing.assert_close(alone(observation[seed : seed + 1])[0], together[seed])
    loss = encoder(observation)[1].sum()
    loss.backward()
    for parameter in encoder.parameters():
        assert float(parameter.grad[0].abs().sum()) == float(parameter.grad[2].abs().sum()) == 0


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_one_image_is_seen_alike_alone_in_a_batch_in_training_and_in_flight(norm):
    encoder = Encoder(sizes(norm)).train()
    observation = pixels(1, 6)
    together = encoder(observation)
    alone = encoder.eval()(observation[:, 2:3])
    torch.testing.assert_close(together[:, 2:3], alone)


def test_batch_statistics_move_while_training_only():
    encoder = Encoder(sizes("batch"))
    before = encoder.trunk.mean_0.clone()
    encoder.eval()(pixels(1, 6))
    assert torch.equal(encoder.trunk.mean_0, before)
    encoder.train()(pixels(1, 6))
    assert not torch.equal(encoder.trunk.mean_0, before)


def test_bytes_and_floats_are_the_same_and_rows_are_height_width_channel():
    encoder = Encoder(sizes())
    observation = pixels(1, 4)
    torch.testing.assert_close(encoder(observation.to(torch.uint8)), encoder(observation))
    trunk = ConvolutionTrunk((4, 4, 3), (Convolution(1, 4, 4),), 1)
    image = torch.zeros(4, 4, 3)
    image[1, 2, 0] = 255.0
    seen = trunk(image.reshape(1, 1, -1))
    wanted = trunk.weight_0[0, 0, 0, 1, 2] + trunk.bias_0[0, 0]
    torch.testing.assert_close(seen[0, 0, 0], torch.relu(wanted))


@pytest.mark.parametrize("image, flat", [((64, 64, 3), 1024), ((48, 64, 3), 768)])
def test_the_published_trunk_has_the_published_sizes(image, flat):
    encoder = Encoder(EncoderSizes.published(image))
    assert encoder.trunk.outputs == flat
    assert encoder.dense.sizes == (flat, 256)
    assert [encoder.trunk.weight_0.shape[1], encoder.trunk.weight_2.shape[1]] == [128, 16]


def test_an_encoder_learns_where_a_dot_is():
    generator = torch.Generator().manual_seed(0)
    encoder = Encoder(EncoderSizes((16, 16, 3), (Convolution(16, 4, 4), Convolution(16, 3, 2, 1))))
    head = torch.nn.Linear(128, 2)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimiser = torch.optim.Adam(parameters, 1e-3)
    losses = []
    for _ in range(150):
        place = torch.randint(0, 14, (64, 2), generator=generator)
        image = torch.full((64, 16, 16, 3), 200.0)
        for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            image[torch.arange(64), place[:, 0] + row, place[:, 1] + column, 1:] = 20.0
        error = head(encoder(image.reshape(1, 64, -1)))[0] - (place - 6.5) / 6.5
        loss = error.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) / 10 < 0.1 * losses[0]


@NORMS
@pytest.mark.parametrize("count", [1, 7])
def test_onnx_agrees_with_torch(norm, count):
    encoder = settled(Encoder(sizes(norm)))
    observation = pixels(count)
    with torch.no_grad():
        wanted = encoder(observation[None])[0]
    got = run(graphs_image.encoder(encoder.exported()), observation=observation)
    np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize("image", [(64, 64, 3), (48, 64, 3), (17, 31, 1)])
def test_onnx_agrees_for_the_default_and_the_published_trunk(image):
    for shape in (EncoderSizes(image), EncoderSizes.published(image)):
        encoder = Encoder(shape).eval()
        observation = pixels(2, image=image)
        with torch.no_grad():
            wanted = encoder(observation[None])[0]
        got = run(graphs_image.encoder(encoder.exported()), observation=observation)
        np.testing.assert_allclose(got, wanted, atol=1e-5)


@NORMS
def test_a_policy_and_a_critic_on_pixels_agree_with_torch(norm):
    encoder = settled(Encoder(sizes(norm)))
    observation, action = pixels(5), 0.1 * torch.randn(5, 2)
    rest = networks.Sizes(10, (-0.1, -0.2), (0.1, 0.4), (8,))
    actor, critic = networks.GaussianActor(rest), networks.TwinCritic(rest, probability=True)
    with torch.no_grad():
        features = encoder(observation[None])
        wanted = actor(features)[0]
        risk = critic.risk(features, action[None])[0]
    layers = [(w[0].detach().numpy(), b[0, 0].detach().numpy()) for w, b in actor.network.layers]
    layers[-1] = (layers[-1][0][:, :2], layers[-1][1][:2])
    box = (
        tensor[0, 0].numpy() for tensor in (actor.scaling.action_middle, actor.scaling.action_half)
    )
    graph = graphs_image.task_policy(encoder.exported(), layers, *box)
    np.testing.assert_allclose(run(graph, observation=observation), wanted, atol=1e-5)
    middle = np.concatenate((np.zeros(10), critic.scaling.action_middle[0, 0].numpy()))
    half = np.concatenate((np.ones(10), critic.scaling.action_half[0, 0].numpy()))
    twins = [
        graphs.fold_input(
            [(w[i].detach().numpy(), b[i, 0].detach().numpy()) for w, b in critic.network.layers],
            middle,
            half,
        )
        for i in range(2)
    ]
    graph = graphs_image.safety_critic(encoder.exported(), twins)
    got = run(graph, observation=observation, action=action)
    np.testing.assert_allclose(got, risk, atol=1e-5)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"image": (4, 4, 3), "layers": (Convolution(8, 8, 2),)}, "nothing of an image"),
        ({"image": (16, 16)}, "height, width, channels"),
        ({"norm": "group"}, "layer, batch or none"),
        ({"features": 0}, "at least 1"),
    ],
)
def test_sizes_that_fit_no_image_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        EncoderSizes(**{"image": IMAGE, **wrong})


def test_grids_follow_torch():
    for layers in (images.FAST, images.PUBLISHED, TINY):
        x = torch.zeros(1, 3, 45, 61)
        channels = 3
        for layer, shape in zip(layers, images.grids((45, 61, 3), layers)[1:], strict=True):
            x = torch.nn.Conv2d(channels, *layer)(x)
            channels = layer.channels
            assert tuple(x.shape[1:]) == shape
