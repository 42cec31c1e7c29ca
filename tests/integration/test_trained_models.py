"""What training exports flies as it is: every algorithm, every environment, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flights import NODES, SAFETYPILOT, Flight

from safetypilot.envs import registry

pytestmark = pytest.mark.integration
trainer = pytest.importorskip("safetypilot.policies.learn.trainer")

Fly = Callable[..., Flight]
Train = Callable[..., Path]
TINY = {
    "hidden": 16, "layers": 1, "batch": 16, "offline_size": 400, "offline_updates": 20,
    "dynamics_hidden": 16, "ensemble": 2, "dynamics_epochs": 2, "dynamics_online_epochs": 0,
    "horizon": 4, "planner_population": 16, "recovery_samples": 50, "start_steps": 10,
    "final_episodes": 0, "evaluate_episodes": 0, "novice_episodes": 0, "capacity": 2000,
    "task_offline_updates": 0, "task_demos": 0, "demo_size": 0,
}  # fmt: skip
VISUAL = {"latent": 4, "latent_steps": 3, "latent_batch": 4}
ALGORITHMS = (
    "sac", "recovery-rl", "recovery-rl-model-free", "recovery-rl-q-sampling", "lr", "rspo", "sqrl",
    "rp", "rcpo", "csc", "safety-editor",
)  # fmt: skip
# Flies a graph in this one process, and says whether anything in it has loaded torch.
_WITHOUT_TORCH = """
import sys
from safetypilot.launch import cli
try:
    cli.main()
finally:
    assert "torch" not in sys.modules, "torch is loaded"
"""


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Train]:
    """Trains for a moment, once per algorithm and environment; the run's directory."""
    runs: dict[tuple[str, str], Path] = {}

    def once(algorithm: str, env: str = "navigation1", **settings: Any) -> Path:
        if (algorithm, env) not in runs:
            out = tmp_path_factory.mktemp("trained") / algorithm
            chosen = {key: str(value) for key, value in (TINY | settings).items()}
            request = trainer.Request(algorithm, env, settings=chosen, episodes=2, steps=60)
            trainer.train(request, out)
            runs[algorithm, env] = out
        return runs[algorithm, env]

    yield once


def fly_here(out: Path, *arguments: str) -> dict[str, Any]:
    """Flies in lockstep in one process without torch; its summary."""
    command = [sys.executable, "-P", "-c", _WITHOUT_TORCH, "launch", *arguments]
    command += ["--clock", "lockstep", "--in-process", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_flies(algorithm: str, train: Train, tmp_path: Path) -> None:
    run = train(algorithm)
    summary = fly_here(tmp_path, "navigation1", f"run={run}", "--episodes", "2")
    assert summary["episodes"] == 2 and summary["steps"] > 10
    assert summary["models"]["task_policy"].startswith("navigation1-seed0-trained@")
    launched = json.loads((tmp_path / "launch.json").read_text())
    configs = {name: node["config"] for name, node in launched["nodes"].items()}
    critic = run / "models" / "critic.onnx"
    if critic.exists():  # else the shield is the zoo's
        settings = json.loads((run / "summary.json").read_text())["settings"]
        assert configs["safety_critic"]["model"] == str(critic)
        assert configs["arbiter"]["eps"] == settings["eps"]
        assert configs["recovery_planner"]["horizon"] == 4


@pytest.mark.parametrize("env", sorted({*registry.IDS}))
def test_every_environment_flies(env: str, train: Train, tmp_path: Path) -> None:
    policy = train("sac", env) / "models" / "trained.onnx"
    arguments = (env, f"policy={policy}", "shield=off", "--episodes", "1")
    summary = fly_here(tmp_path, *arguments)
    assert summary["episodes"] == 1 and summary["missed_deadlines"] == 0


@pytest.mark.parametrize("env", ["extraction", "image-maze"])
@pytest.mark.parametrize("algorithm", ["recovery-rl-model-free", "recovery-rl-q-sampling"])
def test_a_shield_of_its_own_flies_in_vectors_and_pixels(
    algorithm: str, env: str, train: Train, tmp_path: Path
) -> None:
    run = train(algorithm, env)
    summary = fly_here(tmp_path, env, f"run={run}", "--duration", "2")
    assert summary["steps"] > 20 and summary["failsafe_steps"] <= 3  # until it is armed


@pytest.mark.parametrize(
    ("algorithm", "env"),
    [
        ("recovery-rl", "navigation1"),
        pytest.param("recovery-rl-model-free", "navigation1", marks=pytest.mark.slow),
        pytest.param("recovery-rl-q-sampling", "navigation1", marks=pytest.mark.slow),
        ("recovery-rl-visual", "image-maze"),
    ],
)
def test_in_processes_no_node_has_torch(algorithm: str, env: str, train: Train, fly: Fly) -> None:
    settings = VISUAL if env == "image-maze" else {}
    run = train(algorithm, env, **settings)
    flight = fly(env, f"run={run}", "rate=5", "--duration", "6")
    pids = flight.pids()
    assert set(pids) == set(NODES)
    for node, pid in pids.items():
        assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text(), node
    code, summary = flight.finish()
    assert code == 0 and not summary["restarts"]  # armed: every node has answered in time


def test_files_are_given_one_by_one_too(train: Train, tmp_path: Path) -> None:
    models = train("recovery-rl-model-free") / "models"
    arguments = (f"policy={models}/trained.onnx", f"critic={models}/critic.onnx",
                 f"recovery={models}/recovery.onnx", "eps=0.4")  # fmt: skip
    fly_here(tmp_path, "navigation1", *arguments, "--episodes", "1")
    launched = json.loads((tmp_path / "launch.json").read_text())
    planner = launched["nodes"]["recovery_planner"]["config"]
    assert launched["nodes"]["arbiter"]["config"]["eps"] == 0.4
    assert (planner["policy"], planner["dynamics"]) == (f"{models}/recovery.onnx", None)
    assert planner["horizon"] == 4  # of the run that made the critic


def test_a_model_of_another_environment_is_refused_before_anything_flies(
    train: Train, tmp_path: Path
) -> None:
    policy = train("sac", "reach") / "models" / "trained.onnx"
    command = [*SAFETYPILOT, "launch", "maze", f"policy={policy}", "--clock", "lockstep"]
    done = subprocess.run(
        [*command, "--in-process", "--episodes", "1", "--out", str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert "observation size 3, the plant has 2" in done.stdout + done.stderr
