"""The latent model: sizes, seeds, and what of it flies agrees with torch."""

import math
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from safetypilot.models import graphs, graphs_image, images, networks
from safetypilot.models.encoders import array
from safetypilot.models.images import Convolution, Deconvolution
from safetypilot.models.latent import LatentModel, LatentSizes, PixelRisk

LOW, HIGH = (-0.1, -0.2), (0.1, 0.4)
SMALL = LatentSizes(
    (16, 24, 3),
    LOW,
    HIGH,
    latent=6,
    convolutions=(Convolution(8, 4, 4), Convolution(8, 3, 2, 1)),
    dense=(20,),
    transition=(16, 16),
    decoder=(12,),
)


@pytest.fixture(autouse=True)
def seeded():
    """Weights start the same in every run, whatever other tests drew before."""
    torch.manual_seed(0)


def pixels(sizes, *lead):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (*lead, sizes.observation), generator=generator).float()


def lively(model):
    """As after some training: no weight is zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def run(model, **inputs):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    assert {each.name for each in session.get_inputs()} == set(inputs)
    return session.run(None, {name: np.float32(each) for name, each in inputs.items()})[0]


@pytest.mark.parametrize("image", [(64, 64, 3), (48, 64, 3)])
@pytest.mark.parametrize("published", [False, True])
def test_images_in_latents_between_images_out(image, published):
    make = LatentSizes.published if published else LatentSizes
    sizes = make(image, LOW, HIGH)
    model = LatentModel(sizes)
    observation = pixels(sizes, 1, 2)
    mean, log_std = model.encoder.distribution(observation)
    assert mean.shape == log_std.shape == (1, 2, sizes.latent)
    shown = model.decoder(model.transition(mean, torch.zeros(1, 2, 2)))
    assert shown.shape == observation.shape
    assert 0 <= shown.min() and shown.max() <= 255
    if published:
        assert sizes.latent == 256 and model.encoder.dense.sizes[1] == 512
        assert model.encoder.trunk.outputs == {64: 1024, 48: 512}[image[0]]
        assert model.transition.network.sizes == (258, 128, 128, 128, 256)
        assert images.grown(sizes.grid, sizes.deconvolutions) == (3, *image[:2])


@pytest.mark.parametrize("image", [(8, 8, 1), (17, 31, 3), (40, 64, 3)])
def test_any_image_size_is_decoded(image):
    sizes = LatentSizes(image, LOW, HIGH)
    assert LatentModel(sizes).decoder(torch.randn(1, 3, 32)).shape == (1, 3, math.prod(image))


def test_seeds_are_separate_and_member_takes_one_out():
    model = lively(LatentModel(replace(SMALL, seeds=3)))
    observation, actions = pixels(SMALL, 3, 4), 0.1 * torch.randn(3, 4, 2, 2)
    together = model.imagine(observation, actions)
    assert together.shape == (3, 4, 2, SMALL.observation)
    for seed in range(3):
        one = slice(seed, seed + 1)
        alone = networks.member(model, seed).imagine(observation[one], actions[one])
        torch.testing.assert_close(alone[0], together[seed], rtol=1e-4, atol=1e-2)
    encoder = networks.member(model.encoder, 2)
    torch.testing.assert_close(encoder(observation[2:])[0], model.encoder(observation)[2])


def test_a_residual_transition_begins_by_standing_still():
    model = LatentModel(SMALL)
    latent = torch.randn(1, 5, 6)
    torch.testing.assert_close(model.transition(latent, torch.randn(1, 5, 2)), latent)
    plain = LatentModel(replace(SMALL, residual=False))
    assert not torch.equal(plain.transition(latent, torch.randn(1, 5, 2)), latent)


def test_the_background_is_the_picture_it_begins_with():
    model = LatentModel(SMALL)
    with torch.no_grad():
        for name, parameter in model.decoder.named_parameters():
            if name != "background":
                parameter.zero_()
    picture = pixels(SMALL, 1).clamp(2, 253)
    model.decoder.set_background(picture)
    torch.testing.assert_close(model.decoder(torch.zeros(1, 1, 6))[0], picture, atol=0.01, rtol=0)
    plain = LatentModel(replace(SMALL, background=False))
    plain.decoder.set_background(picture)
    assert "decoder.background" not in plain.state_dict()


def test_the_encoder_that_flies_gives_the_mean():
    encoder = lively(LatentModel(SMALL)).encoder
    observation = pixels(SMALL, 7)
    got = run(graphs_image.encoder(encoder.exported()), observation=observation)
    np.testing.assert_allclose(got, encoder(observation[None])[0].detach(), atol=1e-5)


@pytest.mark.parametrize("image", [(64, 64, 3), (48, 64, 3)])
def test_the_published_encoder_flies_too(image):
    encoder = LatentModel(LatentSizes.published(image, LOW, HIGH)).encoder
    observation = pixels(encoder.sizes, 2)
    got = run(graphs_image.encoder(encoder.exported()), observation=observation)
    np.testing.assert_allclose(got, encoder(observation[None])[0].detach(), atol=1e-5)


@pytest.mark.parametrize("residual", [False, True])
def test_the_transition_flies_as_dynamics_and_hears_no_noise(residual):
    transition = lively(LatentModel(replace(SMALL, residual=residual))).transition
    latent, action = torch.randn(1, 9, 6), 0.1 * torch.randn(1, 9, 2) + 0.1
    graph = graphs_image.latent_dynamics(transition.exported(), 6, residual)
    wanted = transition(latent, action).detach()
    for noise in (torch.zeros(1, 9, 6), 3 * torch.randn(1, 9, 6)):
        got = run(graph, observation=latent, action=action, noise=noise)
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_a_critic_of_latents_flies_behind_its_encoder():
    model = lively(LatentModel(SMALL))
    critic = networks.TwinCritic(networks.Sizes(6, LOW, HIGH, (8, 8)), probability=True)
    critic.scaling.fit(1 + 2 * torch.randn(50, 6))
    observation, action = pixels(SMALL, 5), 0.1 * torch.randn(5, 2)
    wanted = PixelRisk(model.encoder, critic).risk(observation[None], action[None])[0].detach()
    scaling = critic.scaling
    mean = np.concatenate((array(scaling.observation_mean), array(scaling.action_middle)), -1)
    scale = np.concatenate((array(scaling.observation_scale), array(scaling.action_half)), -1)
    twins = [
        graphs.fold_input(
            [(array(w[i]), array(b[i, 0])) for w, b in critic.network.layers],
            mean[0, 0],
            scale[0, 0],
        )
        for i in range(2)
    ]
    graph = graphs_image.safety_critic(model.encoder.exported(), twins)
    got = run(graph, observation=observation, action=action)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    latents = model.encoder(observation[None])[0].detach()
    graph = graphs.safety_critic(twins, 6)  # what the planner asks
    np.testing.assert_allclose(run(graph, observation=latents, action=action), wanted, atol=1e-5)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"latent": 0}, "latent 0"),
        ({"high": (0.1,)}, "2 lower and 1 upper"),
        ({"deconvolutions": (Deconvolution(3, (4, 4), 2),)}, "the decoder makes"),
        ({"deconvolutions": (Deconvolution(1, (16, 16), 8),)}, "the decoder makes"),
        ({"convolutions": (Convolution(4, 30, 1),)}, "nothing of an image"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **wrong)


def test_the_published_sizes_fit_two_images_only():
    with pytest.raises(ValueError, match="64x64 and 48x64"):
        LatentSizes.published((32, 32, 3), LOW, HIGH)
