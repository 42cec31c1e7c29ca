"""The models that ship: what they say, and that retraining comes out alike."""

import hashlib
import json
from pathlib import Path

import pytest

from safetypilot.envs import registry
from safetypilot.models import runtime
from safetypilot.models.contract import Contract

ZOO = Path(runtime.__file__).parent / "zoo"
KINDS = {
    "trained.onnx": "task_policy",
    "novice.onnx": "task_policy",
    "critic.onnx": "safety_critic",
    "dynamics.onnx": "dynamics",
}


ENVS = ("maze", "navigation1", "navigation2", "arm")


def manifest(env="maze"):
    return json.loads((ZOO / env / "manifest.json").read_text())


def plant(kind, env):
    names = (
        *("observation_names", "observation_units", "action_names", "action_units"),
        *("action_low", "action_high"),
    )
    described = registry.describe(env)
    return Contract(kind=kind, **{name: tuple(described[name]) for name in names})


@pytest.mark.parametrize("env", ENVS)
@pytest.mark.parametrize("name", KINDS)
def test_a_shipped_model_is_staged_for_its_plant(env, name):
    kind = KINDS[name]
    model = runtime.stage(ZOO / env / name, kind, plant(kind, env), budget_s=0.05)
    assert model.sha256 == manifest(env)["files"][name]["sha256"]
    assert model.contract.run["env"] == env


def test_the_zoo_is_small_and_complete():
    files = [path for path in ZOO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    assert set(manifest()["files"]) == set(KINDS)
    for name, entry in manifest()["files"].items():
        digest = hashlib.sha256((ZOO / "maze" / name).read_bytes()).hexdigest()
        assert digest == entry["sha256"]


def check(figures):
    """The bounds that the shipped models, and any retrained ones, must keep."""
    count = figures["trained_shielded"]["episodes"]
    assert figures["trained_shielded"]["successes"] >= 0.9 * count
    assert figures["trained_shielded"]["violations"] <= 0.04 * count
    alone, shielded = figures["novice_alone"], figures["novice_shielded"]
    assert alone["violations"] > count / 2
    assert 5 * shielded["violations"] <= alone["violations"]


def test_the_figures_of_the_manifest_keep_their_bounds():
    check(manifest()["figures"]["evaluation"])


def test_the_weights_beside_the_maze_are_those_of_its_files():
    """A learner in a running graph goes on from them."""
    pytest.importorskip("torch")
    from types import SimpleNamespace

    import numpy as np

    from safetypilot.policies.learn import catalogue
    from safetypilot.policies.learn.learner import Learner

    interface = SimpleNamespace(**registry.describe("maze"))
    learner = Learner("recovery-rl", catalogue.settings("recovery-rl", "maze"), interface)
    learner.load(ZOO / "maze" / "weights.pt")
    rng = np.random.default_rng(0)
    observation = rng.uniform(-0.3, 0.3, (20, 2)).astype(np.float32)
    action = rng.uniform(-0.1, 0.1, (20, 2)).astype(np.float32)
    critic = runtime.load(ZOO / "maze" / "critic.onnx")
    wanted = critic.run(observation=observation, action=action)["risk"]
    found = [learner.risks(o[None], a[None])[0] for o, a in zip(observation, action, strict=True)]
    assert np.allclose(found, wanted, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_training_again_comes_out_alike(tmp_path):
    from safetypilot.policies.learn import trainer

    made = manifest()
    (summary,) = trainer.train(trainer.Request(env="maze", seeds=(made["seed"],)), tmp_path)
    check(summary["evaluation"])
    assert summary["violations"] <= 3 * made["figures"]["violations"] + 10
