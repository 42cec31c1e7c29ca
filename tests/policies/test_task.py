"""Task policy and safety critic over exported networks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from safetypilot.models.contract import Contract
from safetypilot.models.export import export
from safetypilot.models.networks import GaussianActor, Sizes, TwinCritic
from safetypilot.models.runtime import Model
from safetypilot.policies.critic import SafetyCritic
from safetypilot.policies.task import TaskPolicy

LOW, HIGH = (-0.1, -0.1), (0.1, 0.3)
OBSERVATION = np.array([0.2, -0.1], np.float32)
ACTION = np.array([0.05, 0.3], np.float32)


def contract(kind: str, size: int = 2) -> Contract:
    names = tuple(f"x{i}" for i in range(size))
    return Contract(
        kind=kind,
        observation_names=names,
        observation_units=("m",) * size,
        action_names=("force_x", "force_y"),
        action_units=("N", "N"),
        action_low=LOW,
        action_high=HIGH,
    )


def model(folder: Path, kind: str, seed: int, size: int = 2) -> Model:
    torch.manual_seed(seed)
    sizes = Sizes(size, LOW, HIGH, (16, 16))
    network = GaussianActor(sizes) if kind == "task_policy" else TwinCritic(sizes, True)
    return export(network, folder / f"{kind}{seed}.onnx", contract(kind, size))


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> list[Model]:
    folder = tmp_path_factory.mktemp("policies")
    return [model(folder, "task_policy", seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def critics(tmp_path_factory: pytest.TempPathFactory) -> list[Model]:
    folder = tmp_path_factory.mktemp("critics")
    return [model(folder, "safety_critic", seed) for seed in (0, 1)]


def test_acts_as_its_model(policies: list[Model]) -> None:
    policy = TaskPolicy(policies[0])
    for observation in (OBSERVATION, -OBSERVATION):
        wanted = policies[0].run(observation=observation[None])["action"][0]
        np.testing.assert_allclose(policy.act(observation), wanted, rtol=1e-6)
    assert policy.act(OBSERVATION).shape == (2,) and policy.act([0, 1]).dtype == np.float32


def test_an_action_is_the_callers_to_keep(policies: list[Model]) -> None:
    policy = TaskPolicy(policies[0])
    first = policy.act(OBSERVATION)
    kept = first.copy()
    policy.act(-5 * OBSERVATION)
    np.testing.assert_array_equal(first, kept)


def test_a_swap_is_whole(policies: list[Model], tmp_path: Path) -> None:
    policy = TaskPolicy(policies[0])
    before = policy.act(OBSERVATION)
    policy.swap(policies[1])
    assert policy.model is policies[1]
    assert not np.allclose(policy.act(OBSERVATION), before)
    policy.swap(policies[0])
    np.testing.assert_array_equal(policy.act(OBSERVATION), before)
    wider = model(tmp_path, "task_policy", 2, size=3)
    policy.swap(wider)
    assert policy.act([0.0, 0.0, 0.0]).shape == (2,)


def test_a_swap_that_fails_changes_nothing(policies: list[Model], critics: list[Model]) -> None:
    policy = TaskPolicy(policies[0])
    before = policy.act(OBSERVATION)
    with pytest.raises(ValueError):
        policy.swap(critics[0])
    assert policy.model is policies[0]
    np.testing.assert_array_equal(policy.act(OBSERVATION), before)


def test_judges_as_its_model(critics: list[Model]) -> None:
    critic = SafetyCritic(critics[0])
    rows = {"observation": OBSERVATION[None], "action": ACTION[None]}
    wanted = float(critics[0].run(**rows)["risk"][0])
    assert critic.risk(OBSERVATION, ACTION) == pytest.approx(wanted, rel=1e-6)
    assert isinstance(critic.risk(OBSERVATION, ACTION), float)
    assert 0 < wanted < 1


def test_judges_many_as_it_judges_one(critics: list[Model]) -> None:
    critic = SafetyCritic(critics[0])
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(9, 2)).astype(np.float32)
    actions = rng.uniform(LOW, HIGH, (9, 2)).astype(np.float32)
    single = [critic.risk(o, a) for o, a in zip(observations, actions, strict=True)]
    np.testing.assert_allclose(critic.risks(observations, actions), single, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_no_risk(critics: list[Model], bad: float) -> None:
    critic = SafetyCritic(critics[0])
    broken = np.array([bad, 0.0], np.float32)
    assert np.isnan(critic.risk(broken, ACTION))
    assert np.isnan(critic.risk(OBSERVATION, broken))
    rows = np.stack([OBSERVATION, broken]), np.stack([ACTION, ACTION])
    np.testing.assert_array_equal(np.isnan(critic.risks(*rows)), [False, True])
    assert np.isfinite(critic.risk(OBSERVATION, ACTION))


def test_a_critic_is_swapped_whole(critics: list[Model], policies: list[Model]) -> None:
    critic = SafetyCritic(critics[0])
    before = critic.risk(OBSERVATION, ACTION)
    critic.swap(critics[1])
    assert critic.model is critics[1] and critic.risk(OBSERVATION, ACTION) != before
    with pytest.raises(ValueError):
        critic.swap(policies[0])
    assert critic.model is critics[1]
