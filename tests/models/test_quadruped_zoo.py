"""The quadruped's models: they fit its plant, do as their teachers, and keep it from falls."""

import json
from pathlib import Path

import numpy as np
import pytest

from safetypilot.envs import quadruped_expert, quadruped_names, registry
from safetypilot.envs.offline import offline_data
from safetypilot.envs.quadruped import Quadruped
from safetypilot.models import runtime
from safetypilot.models.contract import Contract

ZOO = Path(runtime.__file__).parent / "zoo" / "quadruped"
KINDS = {
    "trained.onnx": "task_policy",
    "novice.onnx": "task_policy",
    "liedown.onnx": "task_policy",
    "critic.onnx": "safety_critic",
}
EPS = 0.3


@pytest.fixture(scope="module")
def manifest():
    return json.loads((ZOO / "manifest.json").read_text())


@pytest.fixture(scope="module")
def data():
    return offline_data("quadruped", 2000, seed=100)


def act(name, observation):
    return runtime.load(ZOO / f"{name}.onnx").run(observation=observation)["action"]


@pytest.mark.parametrize("name", KINDS)
def test_a_model_is_staged_for_its_plant_at_its_rate(name, manifest):
    described = registry.describe("quadruped")
    names = (
        *("observation_names", "observation_units", "action_names", "action_units"),
        *("action_low", "action_high"),
    )
    plant = Contract(kind=KINDS[name], **{each: tuple(described[each]) for each in names})
    model = runtime.stage(ZOO / name, KINDS[name], plant, budget_s=0.05)
    assert model.sha256 == manifest["files"][name]["sha256"]
    assert model.contract.run["env"] == "quadruped"
    assert model.contract.rate_hz == quadruped_names.RATE_HZ
    assert set(manifest["files"]) == set(KINDS)


@pytest.mark.parametrize(
    ("name", "expert"),
    [
        ("trained", quadruped_expert.stand),
        ("liedown", quadruped_expert.lie_down),
        ("novice", quadruped_expert.lean),
    ],
)
def test_a_policy_does_what_its_teacher_would(name, expert, data):
    """Also where it has never been: a seed of the offline data that nobody learned from."""
    seen = data["observation"][::10]
    told = np.array([expert(row) for row in seen])
    assert np.abs(act(name, seen) - told).mean() < 0.03


def test_the_critic_tells_what_led_to_a_fall_from_what_did_not(data):
    critic = runtime.load(ZOO / "critic.onnx")
    risk = critic.run(observation=data["observation"], action=data["action"])["risk"]
    ends = np.flatnonzero(data["cost"])
    before = np.concatenate([np.arange(end - 3, end + 1) for end in ends if end > 3])
    assert np.median(risk[before]) > 2 * EPS
    upright = data["observation"][:, 2] < -0.995
    still = np.abs(data["observation"][:, 3:6]).max(axis=1) < 0.2
    calm = np.abs(data["action"] - act("trained", data["observation"])).max(axis=1) < 0.1
    assert (risk[upright & still & calm] < EPS).mean() > 0.95


@pytest.mark.parametrize(("name", "falls"), [("trained", False), ("novice", True)])
def test_the_good_one_holds_and_the_bad_one_falls(name, falls):
    env, model = Quadruped(), runtime.load(ZOO / f"{name}.onnx")
    observation, info = env.reset(seed=11)
    terminated = False
    for _ in range(quadruped_names.EPISODE_STEPS):
        action = model.run(observation=observation[None])["action"][0]
        observation, _, terminated, _, info = env.step(action)
        if terminated:
            break
    assert info == {"cost": float(falls), "success": not falls}


def test_the_figures_of_the_manifest_keep_their_bounds(manifest):
    figures = manifest["figures"]["evaluation"]
    count = figures["trained_shielded"]["episodes"]
    assert count >= 150
    for name in ("trained_shielded", "trained_alone"):
        assert figures[name]["successes"] >= 0.98 * count and figures[name]["violations"] == 0
        assert figures[name]["height_error"] < 0.005 and figures[name]["yaw_error"] < 0.01
    assert figures["novice_alone"]["violations"] == count
    assert figures["novice_shielded"]["violations"] <= 0.02 * count
    alone, shielded = figures["trained_alone_pushed"], figures["trained_shielded_pushed"]
    assert alone["violations"] >= 0.2 * count and shielded["violations"] <= 0.02 * count
    assert shielded["rescued"] > 0
    for name in ("trained_shielded_pushed", "novice_shielded"):
        assert figures[name]["lying"] >= 0.98 * figures[name]["rescued"]
