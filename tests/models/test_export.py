"""torch and ONNX agree, files are reproducible, and nothing half made is left behind."""

import hashlib
from copy import deepcopy

import numpy as np
import onnx
import pytest
import torch

from safetypilot.models import export, runtime
from safetypilot.models.errors import ModelError
from safetypilot.models.networks import DynamicsEnsemble, TwinCritic

KINDS = ("task_policy", "safety_critic", "dynamics", "recovery_policy", "filtered_policy")


def torch_answer(network, inputs):
    """What the network makes of inputs by name, as an ONNX file would be asked."""
    tensors = [torch.from_numpy(array) for array in inputs.values()]
    call = network.risk if isinstance(network, TwinCritic) else network
    with torch.no_grad():
        if isinstance(network, DynamicsEnsemble):
            return call(*tensors).numpy()
        return call(*(each[None] for each in tensors))[0].numpy()  # of the one seed


@pytest.fixture(autouse=True)
def seeded():
    """Weights start the same in every run, whatever other tests drew before."""
    torch.manual_seed(0)


def rows(model, count, rng):
    lead = (model.members, count) if model.members else (count,)
    widths = {"observation": 3, "action": 2, "noise": 3}
    return {
        name: rng.standard_normal((*lead, widths[name])).astype(np.float32)
        for name in model.input_shapes
    }


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("count", [1, 7, 300])
def test_onnx_agrees_with_torch(name, count, files, torch_networks):
    model = runtime.load(files[name])
    inputs = rows(model, count, np.random.default_rng(count))
    wanted = torch_answer(torch_networks[name], inputs)
    (got,) = model.run(**inputs).values()
    np.testing.assert_allclose(got, wanted, atol=2e-5)


@pytest.mark.parametrize("name", KINDS)
def test_the_same_weights_give_the_same_bytes(name, files, torch_networks, contract, tmp_path):
    again = export.export(torch_networks[name], tmp_path / "again.onnx", contract)
    assert again.path.read_bytes() == files[name].read_bytes()


def test_contract_survives_and_hash_is_of_the_bare_graph(files, contract):
    model = runtime.load(files["safety_critic"])
    assert model.contract.kind == "safety_critic"
    assert model.contract.observation_names == contract.observation_names
    assert model.contract.run == {"seed": 0}
    assert len(model.contract.golden["inputs"]["observation"]) == 4
    data = files["safety_critic"].read_bytes()
    assert model.version == f"test@{hashlib.sha256(data).hexdigest()[:12]}"
    bare = onnx.load_from_string(data)
    del bare.metadata_props[:]
    digest = hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()
    assert model.contract.graph_sha256 == digest


def test_diverged_weights_leave_the_old_file(files, torch_networks, contract, tmp_path):
    path = tmp_path / "policy.onnx"
    path.write_bytes(files["task_policy"].read_bytes())
    network = torch_networks["task_policy"]
    bias = network.network.bias_0
    saved = bias[0, 0, 0].item()
    with torch.no_grad():
        bias[0, 0, 0] = float("nan")
    try:
        with pytest.raises(ModelError, match=r"network\.bias_0 is not finite"):
            export.export(network, path, contract)
    finally:
        with torch.no_grad():
            bias[0, 0, 0] = saved
    assert path.read_bytes() == files["task_policy"].read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["policy.onnx"]


def test_a_network_without_a_graph_is_refused(contract, tmp_path):
    with pytest.raises(ModelError, match="no ONNX graph for a Linear"):
        export.export(torch.nn.Linear(3, 2), tmp_path / "x.onnx", contract)


def test_a_filtered_policy_without_a_clear_choice_is_exported(tmp_path, torch_networks, files):
    network = deepcopy(torch_networks["filtered_policy"])
    for twins in network.critic.parameters():
        twins.data.zero_()  # every candidate has a risk of one half
    network.eps = 0.1
    contract = runtime.load(files["filtered_policy"]).contract
    model = export.export(network, tmp_path / "alike.onnx", contract)
    assert model.contract.golden == {}
    rows = np.zeros((5, contract.observation_size), np.float32)
    offered = network.candidates(torch.from_numpy(rows)[None]).detach().numpy()
    apart = np.abs(model.run(observation=rows)["action"][:, None] - offered).max(axis=2)
    assert apart.min(axis=1).max() < 1e-5


def test_a_filtered_policy_takes_safe_actions_only(files, torch_networks):
    model = runtime.load(files["filtered_policy"])
    network = torch_networks["filtered_policy"]
    observation = 3.0 * np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
    action = model.run(observation=observation)["action"]
    with torch.no_grad():
        rows = torch.from_numpy(observation)[None]
        risk = network.critic.risk(rows, torch.from_numpy(action)[None])[0]
        mean = network.critic.risk(rows, network.actor(rows))[0]
    assert 20 < int((mean > network.eps).sum()) < 180  # the mean alone would often be unsafe
    assert int((risk > network.eps).sum()) < int((mean > network.eps).sum())
    safe = mean <= network.eps
    assert bool((risk[safe] <= network.eps + 1e-5).all())
