"""Small models of every kind, made once; makes the helpers beside the tests importable."""

import sys
from pathlib import Path

import pytest
import torch

from safetypilot.models import export, networks
from safetypilot.models.contract import Contract
from safetypilot.models.filtered import FilteredPolicy

sys.path.append(str(Path(__file__).parent))

LOW, HIGH = (-0.1, -0.2), (0.1, 0.4)


@pytest.fixture(scope="session")
def contract() -> Contract:
    return Contract(
        kind="task_policy",
        observation_names=("x", "y", "heading"),
        observation_units=("m", "m", "rad"),
        action_names=("force_x", "force_y"),
        action_units=("N", "N"),
        action_low=LOW,
        action_high=HIGH,
        version="test",
        rate_hz=20.0,
        run={"seed": 0},
    )


@pytest.fixture(scope="session")
def torch_networks() -> dict[str, torch.nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = networks.Sizes(3, LOW, HIGH, (16, 16))
        made: dict[str, torch.nn.Module] = {
            "task_policy": networks.GaussianActor(sizes),
            "safety_critic": networks.TwinCritic(sizes, probability=True),
            "dynamics": networks.DynamicsEnsemble(sizes, members=3),
            "recovery_policy": networks.RecoveryActor(sizes),
        }
        data = 0.3 + 2.0 * torch.randn(200, 3)
        for network in made.values():
            if isinstance(network, networks.DynamicsEnsemble):
                network.fit_normaliser(torch.randn(200, 5) + 1.0, 0.02 * torch.randn(200, 3))
            else:
                network.scaling.fit(data)
        critic = made["safety_critic"]
        with torch.no_grad():
            middle = critic.risk(data[None], made["task_policy"](data[None])).median().item()
        made["filtered_policy"] = FilteredPolicy(made["task_policy"], critic, middle, 30)
        return made


@pytest.fixture(scope="session")
def files(tmp_path_factory, contract, torch_networks) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("models")
    return {
        name: export.export(network, directory / f"{name}.onnx", contract).path
        for name, network in torch_networks.items()
    }
