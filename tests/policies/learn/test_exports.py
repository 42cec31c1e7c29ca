"""What every algorithm leaves to fly: the same answers as in training, and no torch to load it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ledge import INTERFACE, fill, learner, offline

from safetypilot.models import runtime
from safetypilot.policies.learn import catalogue

PLAIN = [name for name in catalogue.ALGORITHMS if name != "recovery-rl-visual"]
KINDS = {
    "sac": {"task_policy"},
    "rp": {"task_policy"},
    "recovery-rl": {"task_policy", "safety_critic", "dynamics"},
    "recovery-rl-model-free": {"task_policy", "safety_critic", "dynamics", "recovery_policy"},
    "safety-editor": {"task_policy", "safety_critic", "dynamics", "recovery_policy"},
}
ROWS = np.linspace(-2, 2, 65, dtype=np.float32)[:, None]


@pytest.fixture(scope="module", params=PLAIN)
def made(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Any:
    """A learner of two seeds after a few updates, and the second one's files."""
    torch.manual_seed(0)
    one = learner(request.param, (1, 2), positive_fraction=0.1, **many(request.param))
    for index in range(2):
        one.load_offline(offline("ledge", 200, index), index)
    fill(one)
    one.update(5)
    if one.algorithm.uses_risk:
        one.fit_dynamics(1, 1)
    directory = tmp_path_factory.mktemp(request.param)
    return request.param, one, one.export(directory, "v1", {"seed": 2}, index=1)


def many(name: str) -> dict[str, Any]:
    return {"samples": 20, "eps": 0.4} if name in ("sqrl", "csc") else {}


def second(rows: np.ndarray) -> torch.Tensor:
    """As input of both seeds; the answer of the second counts."""
    return torch.from_numpy(rows).expand(2, -1, -1)


def test_each_algorithm_leaves_what_it_learned(made: Any) -> None:
    name, _, files = made
    others = {"task_policy", "safety_critic", "dynamics"}
    assert set(files) == KINDS.get(name, others)
    for kind, path in files.items():
        staged = "task_policy" if kind == "recovery_policy" else kind
        model = runtime.stage(path, staged, INTERFACE)
        assert model.contract.run == {"seed": 2}
        assert model.contract.version == "v1"


def test_the_files_answer_as_the_networks_do(made: Any) -> None:
    name, one, files = made
    policy = runtime.load(files["task_policy"]).run(observation=ROWS)["action"]
    with torch.no_grad():
        deployed = one.algorithm.deployed(1)
        assert np.allclose(policy, deployed(torch.from_numpy(ROWS)[None])[0], atol=1e-5)
        if name not in ("sqrl", "csc", "safety-editor"):
            assert np.allclose(policy, one.sac.actor(second(ROWS))[1], atol=1e-5)
        if "safety_critic" in files:
            action = np.flip(ROWS / 2).copy()
            risk = runtime.load(files["safety_critic"]).run(observation=ROWS, action=action)
            wanted = one.risk.critic.risk(second(ROWS), second(action))[1]
            assert np.allclose(risk["risk"], wanted, atol=1e-5)
        if "recovery_policy" in files:
            recovery = runtime.load(files["recovery_policy"]).run(observation=ROWS)["action"]
            assert np.allclose(recovery, one.risk.recovery(second(ROWS))[1], atol=1e-5)


@pytest.mark.parametrize("name", ["sqrl", "csc", "recovery-rl"])
@pytest.mark.parametrize("eps", [0.0, 0.4, 0.5, 1.0])
def test_a_filter_flies_as_one_file(name: str, eps: float, tmp_path: Path) -> None:
    one = learner(name, samples=20, eps=eps, positive_fraction=0.1)
    one.load_offline(offline("ledge", 200, 0))
    for _ in range(20):
        one.update_risk()
    policy = runtime.load(one.export(tmp_path)["task_policy"])
    action = policy.run(observation=ROWS)["action"]
    with torch.no_grad():
        rows = torch.from_numpy(ROWS)[None]
        assert np.allclose(action, one.algorithm.deployed(0)(rows)[0], atol=1e-5)
        risk = one.risk.critic.risk(rows, torch.from_numpy(action)[None])[0]
        mean = one.risk.critic.risk(rows, one.sac.actor(rows))[0]
    safe = mean <= eps - 1e-5
    assert bool((risk[safe] <= eps + 1e-5).all())
    if eps == 0.0:  # nothing is allowed: the least risky of the table, the mean among them
        assert bool((risk <= mean + 1e-5).all())
    if eps == 1.0:  # all is allowed: the densest is near the mean
        assert policy.run(observation=ROWS[:1])["action"].shape == (1, 1)


def test_files_load_where_there_is_no_torch(tmp_path: Path) -> None:
    paths = []
    for name in ("sqrl", "recovery-rl-model-free"):
        one = learner(name)
        one.load_offline(offline("ledge", 50, 0))
        one.fit_dynamics(1)
        paths += [str(path) for path in one.export(tmp_path / name).values()]
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "from safetypilot.models import runtime\n"
        f"for path in {paths}:\n"
        "    runtime.load(path)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_exporting_moves_nothing(made: Any, tmp_path: Path) -> None:
    """A run goes on after it exported: the networks are where they were, and as they were."""
    _, one, _ = made
    before = {name: id(network) for name, network in one.networks().items()}
    metrics = one.export(tmp_path, index=0)
    assert metrics.keys() >= {"task_policy"}
    assert before == {name: id(network) for name, network in one.networks().items()}
    one.update()
