"""Files of other makers: what they compute, behind the plant's names, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import makers
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from safetypilot.models import runtime
from safetypilot.models.runtime import ModelError
from safetypilot.policies.critic import SafetyCritic
from safetypilot.policies.task import TaskPolicy

AS_THE_PLANT = {
    key: "plant" for side in ("observation", "action") for key in (f"{side}_names", f"{side}_units")
} | {"action_low": "plant", "action_high": "plant"}
PLANT = makers.Plant()
ROW = np.array([0.3, -0.2, 1.0, -2.0, 0.0, 0.1, -0.9, 0.5], np.float32)  # (O,)
SIZE = len(ROW)


def stage(path: Path, contract: dict[str, Any] | None = None, kind: str = "task_policy") -> Any:
    return runtime.stage(path, kind, PLANT, budget_s=1.0, supplement=contract)


def torched(module: nn.Module, row: np.ndarray, *state: Any) -> Any:
    with torch.no_grad():
        return module(torch.from_numpy(np.asarray(row, np.float32))[None], *state)


def test_a_plain_export_flies_once_somebody_says_what_it_takes(tmp_path: Path) -> None:
    net = makers.mlp(SIZE, 2)
    path = makers.export(net, (torch.zeros(1, SIZE),), tmp_path / "plain.onnx", dynamo=True)
    with pytest.raises(ModelError, match=r"says nothing about observation_names.*contract:"):
        stage(path)
    model = stage(path, AS_THE_PLANT)
    assert model.version.startswith("plain+") and model.contract.observation_names
    policy = TaskPolicy(model)
    for _ in range(2):
        np.testing.assert_allclose(policy.act(ROW), torched(net, ROW)[0], atol=1e-5)


@pytest.mark.parametrize("dynamo", [True, False])
def test_both_exporters_of_torch_with_open_and_fixed_rows(tmp_path: Path, dynamo: bool) -> None:
    net = makers.mlp(SIZE, 2)
    path = tmp_path / "p.onnx"
    options: dict[str, Any] = {"input_names": ["obs"], "output_names": ["actions"]}
    if dynamo:
        options["dynamic_shapes"] = ({0: torch.export.Dim("rows", min=1, max=64)},)
        makers.export(net, (torch.zeros(2, SIZE),), path, dynamo=True, **options)
    else:
        makers.export(net, (torch.zeros(1, SIZE),), path, **options)
    np.testing.assert_allclose(
        TaskPolicy(stage(path, AS_THE_PLANT)).act(ROW), torched(net, ROW)[0], atol=1e-5
    )


def test_a_network_without_a_dimension_of_rows(tmp_path: Path) -> None:
    net = makers.mlp(SIZE, 2)
    path = makers.export(net, (torch.zeros(SIZE),), tmp_path / "flat.onnx")
    np.testing.assert_allclose(
        TaskPolicy(stage(path, AS_THE_PLANT)).act(ROW), torched(net, ROW)[0], atol=1e-5
    )


def test_weights_in_a_file_beside_it_are_read_and_count_for_the_hash(tmp_path: Path) -> None:
    net = makers.mlp(SIZE, 2, width=2048)
    path = makers.export(net, (torch.zeros(1, SIZE),), tmp_path / "big.onnx", dynamo=True)
    beside = tmp_path / "big.onnx.data"
    assert beside.exists()
    model = stage(path, AS_THE_PLANT)
    np.testing.assert_allclose(TaskPolicy(model).act(ROW), torched(net, ROW)[0], atol=1e-5)
    data = bytearray(beside.read_bytes())
    data[100] ^= 1
    beside.write_bytes(data)
    assert stage(path, AS_THE_PLANT).sha256 != model.sha256
    beside.unlink()
    with pytest.raises(ModelError, match=r"big\.onnx\.data does not exist"):
        stage(path, AS_THE_PLANT)


def test_names_in_another_order_are_refused_or_mapped_by_name(tmp_path: Path) -> None:
    net = makers.mlp(4, 2)
    path = makers.export(net, (torch.zeros(1, 4),), tmp_path / "mixed.onnx")
    contract = {
        **AS_THE_PLANT,
        "observation_names": ["v_knee", "command", "knee_pos", "hip_pos"],
        "rename": {"v_knee": "knee_vel"},
        "action_names": ["knee", "hip"],
    }
    with pytest.raises(ModelError, match="observation size 4, the plant has 8"):
        stage(path, contract)
    model = stage(path, {**contract, "remap": "names", "action_scale": "limits"})
    wanted = torched(net, ROW[[3, 7, 1, 0]])[0].numpy()[::-1] * [1.5, 2.0]
    np.testing.assert_allclose(TaskPolicy(model).act(ROW), wanted, atol=1e-5)
    only_actions = {**AS_THE_PLANT, "action_names": ["knee", "hip"]}
    wide = makers.export(makers.mlp(SIZE, 2), (torch.zeros(1, SIZE),), tmp_path / "wide.onnx")
    with pytest.raises(ModelError, match="action names in another order"):
        stage(wide, only_actions)


def test_normalisation_scale_offset_and_clip_are_those_of_the_maker(tmp_path: Path) -> None:
    net = makers.mlp(SIZE, 2, squash=False)
    path = makers.export(net, (torch.zeros(1, SIZE),), tmp_path / "raw.onnx")
    mean, std = np.linspace(-1, 1, SIZE), np.linspace(0.1, 2, SIZE)
    contract = {
        **AS_THE_PLANT,
        "observation_mean": mean.tolist(),
        "observation_std": std.tolist(),
        "observation_clip": 1.5,
        "action_scale": [3.0, 20.0],
        "action_offset": 0.2,
    }
    with pytest.raises(ModelError, match="scale or squash"):
        stage(path, contract)
    policy = TaskPolicy(stage(path, {**contract, "action_clip": True}))
    raw = torched(net, np.clip((ROW - mean) / std, -1.5, 1.5))[0].numpy()
    wanted = np.clip(raw * [3.0, 20.0] + 0.2, [-1.5, -2.0], [1.5, 2.0])
    np.testing.assert_allclose(policy.act(ROW), wanted, atol=1e-4)


@pytest.mark.parametrize("rnn", ["", "gru", "lstm"])
def test_isaac_labs_export_with_its_metadata(tmp_path: Path, rnn: str) -> None:
    net = makers.IsaacPolicy(makers.ISAAC_SIZE, 2, rnn)
    path = makers.isaac_file(tmp_path / "isaac.onnx", net, makers.ISAAC, makers.ISAAC_SIZE)
    with pytest.raises(ModelError, match="says nothing about action_low, action_high"):
        stage(path)
    with pytest.raises(ModelError, match="observation term 'joint_pos' is not an observation"):
        stage(path, {**makers.ISAAC_CONTRACT, "terms": {}})
    model = stage(path, makers.ISAAC_CONTRACT)
    assert model.contract.run["joint_stiffness"] == [40.0, 30.0]
    policy = TaskPolicy(model)
    rng = np.random.default_rng(0)
    for _ in range(2):  # the second time after a reset
        state = tuple(torch.zeros(1, 1, 8) for _ in {"": "", "gru": "h", "lstm": "hc"}[rnn])
        previous = np.zeros(2)
        policy.reset()
        for _ in range(5):
            row = rng.standard_normal(SIZE).astype(np.float32)
            command, gravity = row[7:], row[4:7]
            pos, vel = row[:2] - [0.1, -0.4], row[2:4] * 0.05
            fed = np.concatenate((command, gravity, pos, vel, previous))
            found = torched(net, fed, *state)
            raw, state = (found[0], found[1:]) if rnn else (found, ())
            previous = raw[0].numpy()
            wanted = np.clip(previous * 0.25 + [0.1, -0.4], [-1.5, -2.0], [1.5, 2.0])
            np.testing.assert_allclose(policy.act(row), wanted, atol=1e-4)


def test_what_the_file_says_is_not_contradicted(tmp_path: Path) -> None:
    net = makers.IsaacPolicy(makers.ISAAC_SIZE, 2)
    path = makers.isaac_file(tmp_path / "isaac.onnx", net, makers.ISAAC, makers.ISAAC_SIZE)
    with pytest.raises(ModelError, match=r"the file says action_names = .*'hip', 'knee'"):
        stage(path, {**makers.ISAAC_CONTRACT, "action_names": ["knee", "hip"]})
    stage(path, {**makers.ISAAC_CONTRACT, "action_scale": 0.25})  # the same, said twice
    other = {**makers.ISAAC, "joint_names": ["hip", "ankle"]}
    path = makers.isaac_file(tmp_path / "other.onnx", net, other, makers.ISAAC_SIZE)
    with pytest.raises(ModelError, match="the plant has no 'ankle'"):
        stage(path, makers.ISAAC_CONTRACT)
    stage(path, {**makers.ISAAC_CONTRACT, "rename": {"ankle": "knee"}})
    bad = {**makers.ISAAC, "default_joint_pos": [0.1, 0.2, 0.3]}
    path = makers.isaac_file(tmp_path / "bad.onnx", net, bad, makers.ISAAC_SIZE)
    with pytest.raises(ModelError, match="2 joint_names and 3 default_joint_pos"):
        stage(path, makers.ISAAC_CONTRACT)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        makers.seeded(5)
        self.cell, self.head = nn.GRUCell(SIZE, 6), makers.mlp(6, 2)
        self.eval()

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        following = self.cell(x, state)
        return self.head(following), following


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        (("obs", "hx"), ("actions", "hx_out"), {}),
        (("observation", "h0"), ("action", "hn"), {}),
        (("obs", "memory_in"), ("mean", "memory_out"), {}),
        (("obs", "state"), ("mean", "next_state"), {}),
        (("a", "b"), ("c", "d"), {"recurrent": [["b", "d"]]}),
        (("a", "b"), ("c", "d"), {"recurrent": [["b", "d"]], "tensors": {"action": 0}}),
    ],
)
def test_recurrent_state_by_any_name(tmp_path: Path, inputs: Any, outputs: Any, said: Any) -> None:
    net = Recurrent()
    path = makers.export(
        net,
        (torch.zeros(1, SIZE), torch.zeros(1, 6)),
        tmp_path / "r.onnx",
        input_names=list(inputs),
        output_names=list(outputs),
    )
    policy = TaskPolicy(stage(path, {**AS_THE_PLANT, **said}))
    state = torch.zeros(1, 6)
    for step in range(4):
        action, state = torched(net, ROW + step, state)
        np.testing.assert_allclose(policy.act(ROW + step), action[0], atol=1e-5)
    assert policy.recurrent


def test_recurrent_state_that_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    args = (torch.zeros(1, SIZE), torch.zeros(1, 6))
    path = makers.export(
        Recurrent(), args, tmp_path / "r.onnx", input_names=["obs", "p"], output_names=["q", "r"]
    )
    with pytest.raises(ModelError, match=r"cannot be told from their names.*recurrent: \[\["):
        stage(path, AS_THE_PLANT)
    with pytest.raises(ModelError, match=r"recurrent pair p, q: \[1, 6\].*must agree"):
        stage(path, {**AS_THE_PLANT, "recurrent": [["p", "q"]]})
    with pytest.raises(ModelError, match=r"recurrent pair \['x', 'r'\]: the file takes obs, p"):
        stage(path, {**AS_THE_PLANT, "recurrent": [["x", "r"]]})


def test_recurrent_state_is_carried_over_where_it_fits(tmp_path: Path) -> None:
    args = (torch.zeros(1, SIZE), torch.zeros(1, 6))
    names = {"input_names": ["obs", "hx"], "output_names": ["actions", "hx_out"]}
    path = makers.export(Recurrent(), args, tmp_path / "r.onnx", **names)
    plain = makers.export(makers.mlp(SIZE, 2), (torch.zeros(1, SIZE),), tmp_path / "p.onnx")
    first, second = (TaskPolicy(stage(path, AS_THE_PLANT)) for _ in range(2))
    for _ in range(3):
        first.act(ROW)
    assert second.carry(first) == "carried"
    np.testing.assert_array_equal(first.act(ROW), second.act(ROW))
    assert second.carry(TaskPolicy(stage(plain, AS_THE_PLANT))) == "reset"
    fresh = TaskPolicy(stage(path, AS_THE_PLANT))
    np.testing.assert_array_equal(fresh.act(ROW), second.act(ROW))
    assert TaskPolicy(stage(plain, AS_THE_PLANT)).carry(first) == ""


class Judge(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(makers.mlp(SIZE + 2, 1, squash=False), nn.Sigmoid())
        self.eval()

    def forward(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return self.net(torch.cat((state, action), dim=1))


def test_a_critic_of_another_maker(tmp_path: Path) -> None:
    net, args = Judge(), (torch.zeros(1, SIZE), torch.zeros(1, 2))
    path = makers.export(net, args, tmp_path / "c.onnx", input_names=["s", "a"], output_names=["q"])
    with pytest.raises(ModelError, match=r"which of s .* is the observation"):
        stage(path, AS_THE_PLANT, "safety_critic")
    said = {"tensors": {"observation": "s", "action": 1}, "action_names": ["knee", "hip"]}
    model = stage(path, {**AS_THE_PLANT, **said, "remap": "names"}, "safety_critic")
    wanted = net(torch.from_numpy(ROW)[None], torch.tensor([[0.7, -0.3]])).item()
    found = SafetyCritic(model).risk(ROW, np.array([-0.3, 0.7], np.float32))
    assert found == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(ModelError, match="a critic takes actions as they are"):
        stage(
            path, {**AS_THE_PLANT, **said, "remap": "names", "action_clip": True}, "safety_critic"
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observation_names": ["x"] * SIZE}, "the plant has no 'x'"),
        ({"observation_mean": [0.0]}, None),
        ({"observation_mean": [0.0, 1.0]}, "8 of them, was wanted"),
        ({"observation_std": 0.0}, "all above 0"),
        ({"action_scale": "much"}, "action_scale is 'much'"),
        ({"action_scale": "limits", "action_offset": 1.0}, "remove action_offset"),
        ({"tensors": {"action": "mu"}}, "action is 'mu'; the file has act"),
        ({"tensors": {"act": "act"}}, "tensors names act; this kind has observation, action"),
        ({"normalise": True}, "normalise is not known"),
        ({"observation_units": ["deg"] * 6}, "observation units differ"),
        ({"action_high": [9.0, 9.0]}, "action_high of 'hip' is 9"),
        ({"kind": "dynamics"}, "only a task_policy or a safety_critic can be adapted"),
    ],
)
def test_contracts_that_do_not_fit(tmp_path: Path, change: Any, message: str | None) -> None:
    path = makers.export(
        makers.mlp(SIZE, 2), (torch.zeros(1, SIZE),), tmp_path / "p.onnx", output_names=["act"]
    )
    if message is None:
        stage(path, {**AS_THE_PLANT, **change})
        return
    with pytest.raises(ModelError, match=message):
        stage(path, {**AS_THE_PLANT, **change})


def test_another_type_and_another_size_are_refused(tmp_path: Path) -> None:
    net = makers.mlp(SIZE, 2).double()
    path = makers.export(net, (torch.zeros(1, SIZE).double(),), tmp_path / "d.onnx")
    with pytest.raises(ModelError, match=r"is a tensor\(double\), tensor\(float\) was wanted"):
        stage(path, AS_THE_PLANT)
    path = makers.export(makers.mlp(5, 2), (torch.zeros(1, 5),), tmp_path / "5.onnx")
    with pytest.raises(ModelError, match="takes 5 values, the contract names 8"):
        stage(path, AS_THE_PLANT)
    path = makers.export(makers.mlp(SIZE, 3), (torch.zeros(1, SIZE),), tmp_path / "3.onnx")
    with pytest.raises(ModelError, match="3 outputs for 2 actions"):
        stage(path, AS_THE_PLANT)


def test_our_own_files_need_no_contract_and_ignore_what_is_for_others(
    files: Any, contract: Any
) -> None:
    model = runtime.stage(files["task_policy"], "task_policy", contract, supplement=AS_THE_PLANT)
    assert model.version.startswith("test@")


class TestStableBaselines3:
    """As its documentation says: docs/guide/export.rst of v2.3 and later."""

    @pytest.fixture
    def spaces(self) -> Any:
        pytest.importorskip("stable_baselines3")
        gymnasium = pytest.importorskip("gymnasium")

        class Env(gymnasium.Env):
            observation_space = gymnasium.spaces.Box(-10, 10, (SIZE,), np.float32)
            action_space = gymnasium.spaces.Box(
                np.array(PLANT.action_low, np.float32), np.array(PLANT.action_high, np.float32)
            )

            def reset(self, *, seed: Any = None, options: Any = None) -> Any:
                return np.zeros(SIZE, np.float32), {}

            def step(self, action: Any) -> Any:
                return np.zeros(SIZE, np.float32), 0.0, False, False, {}

        return Env()

    def test_ppo(self, tmp_path: Path, spaces: Any) -> None:
        from stable_baselines3 import PPO

        class OnnxableSB3Policy(nn.Module):
            def __init__(self, policy: Any) -> None:
                super().__init__()
                self.policy = policy

            def forward(self, observation: torch.Tensor) -> Any:
                return self.policy(observation, deterministic=True)

        agent = PPO("MlpPolicy", spaces, seed=0, device="cpu")
        with torch.no_grad():
            agent.policy.action_net.weight.mul_(300.0)  # beyond the limits, here and there
        path = makers.export(
            OnnxableSB3Policy(agent.policy),
            (torch.zeros(1, SIZE),),
            tmp_path / "ppo.onnx",
            input_names=["input"],
        )
        with pytest.raises(ModelError, match=r"is the action\? say so"):
            stage(path, {**AS_THE_PLANT, "action_clip": True})
        said = {"tensors": {"action": 0}, "action_clip": True}
        policy = TaskPolicy(stage(path, {**AS_THE_PLANT, **said}))
        rng = np.random.default_rng(0)
        clipped = 0
        for _ in range(20):
            row = rng.standard_normal(SIZE).astype(np.float32)
            wanted, _ = agent.predict(row, deterministic=True)
            clipped += bool(np.isin(wanted, [*PLANT.action_low, *PLANT.action_high]).any())
            np.testing.assert_allclose(policy.act(row), wanted, atol=1e-3)
        assert 0 < clipped < 20

    def test_sac(self, tmp_path: Path, spaces: Any) -> None:
        from stable_baselines3 import SAC

        class OnnxablePolicy(nn.Module):
            def __init__(self, actor: Any) -> None:
                super().__init__()
                self.actor = actor

            def forward(self, observation: torch.Tensor) -> Any:
                return self.actor(observation, deterministic=True)

        agent = SAC("MlpPolicy", spaces, seed=0, device="cpu", buffer_size=10)
        path = makers.export(
            OnnxablePolicy(agent.policy.actor),
            (torch.zeros(1, SIZE),),
            tmp_path / "sac.onnx",
            input_names=["input"],
        )
        policy = TaskPolicy(stage(path, {**AS_THE_PLANT, "action_scale": "limits"}))
        rng = np.random.default_rng(0)
        for _ in range(20):
            row = 3 * rng.standard_normal(SIZE).astype(np.float32)
            wanted, _ = agent.predict(row, deterministic=True)
            np.testing.assert_allclose(policy.act(row), wanted, atol=1e-4)


def test_a_deployed_node_needs_neither_torch_nor_onnx_for_it(tmp_path: Path) -> None:
    path = makers.export(makers.mlp(SIZE, 2), (torch.zeros(1, SIZE),), tmp_path / "p.onnx")
    assert onnx.load(path).metadata_props is not None
    code = (
        "import sys; from safetypilot.models import runtime\n"
        f"names = {[f'x{i}' for i in range(SIZE)]!r}\n"
        "said = dict(observation_names=names, observation_units=names, action_names=['a', 'b'],"
        " action_units=['', ''], action_low=[-1, -1], action_high=[1, 1])\n"
        f"runtime.stage({str(path)!r}, 'task_policy', supplement=said)\n"
        "assert not {'torch', 'onnx', 'yaml', 'pydantic'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
