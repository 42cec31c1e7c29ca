"""A model that was made for another plant or rate is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from model_copies import annotated, foreign, promising
from typer.testing import CliRunner, Result

from safetypilot.envs import registry
from safetypilot.launch import bundle, checks, cli
from safetypilot.launch.graph import LaunchFileError, load
from safetypilot.nodes.bridge_config import find_body

MAZE = registry.describe("maze")
JOINTS = find_body("quadruped")[0].joints
RATE = "trained at 25 Hz, to be run at 50 Hz; change the rate, or train again"
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"rate_hz": 25.0}, RATE),
    ({"action_names": MAZE["action_names"][::-1]}, "action names in another order"),
    ({"observation_names": MAZE["observation_names"][::-1]}, "observation names in another order"),
    ({"action_units": ["rad", "rad"]}, "action units differ"),
    ({"action_high": [9.0, 9.0]}, "action_high"),
]


def call(*words: str) -> Result:
    return CliRunner().invoke(cli.app, list(words), prog_name="safetypilot")


@pytest.mark.parametrize(("promise", "why"), WRONG)
def test_nothing_starts_with_a_model_for_another_plant_or_rate(
    tmp_path: Path, promise: dict[str, Any], why: str
) -> None:
    words = ("maze", "plant=bridge", f"policy={promising(tmp_path, 'maze/trained', **promise)}")
    for command in ("check", "launch"):
        result = call(command, *words)
        assert result.exit_code == 2 and "copy0.onnx" in result.output, result.output
        assert why in " ".join(result.output.split())
    out = tmp_path / "robot.zip"
    result = call("bundle", *words, "-o", str(out))
    assert result.exit_code == 2 and why in " ".join(result.output.split())
    assert not out.exists()


@pytest.mark.parametrize(("promise", "why"), WRONG)
def test_a_bundle_with_a_model_for_another_plant_or_rate_does_not_fly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, promise: dict[str, Any], why: str
) -> None:
    path = tmp_path / "robot.zip"
    with monkeypatch.context() as unchecked:
        unchecked.setattr(checks, "models", lambda check, env: None)
        unchecked.setattr(bundle.contracts, "misfits", lambda *given: ())
        policy = promising(tmp_path, "maze/trained", **promise)
        bundle.make(load("maze", ["plant=bridge", f"policy={policy}"]), path)
    result = call("launch", str(path), "--out", str(tmp_path / "run"))
    assert result.exit_code == 2 and why in " ".join(result.output.split()), result.output


@pytest.mark.parametrize("command", ["check", "bundle"])
@pytest.mark.parametrize(("metadata", "why"), [
    ({}, ""),
    ({"joint_stiffness": "99"}, "joint_stiffness of 99"),
    ({"joint_damping": "99"}, "joint_damping of 99"),
    ({"joint_names": ",".join(JOINTS[::-1])}, "was trained for the joints"),
])  # fmt: skip
def test_a_policy_for_other_gains_or_joints_is_refused(
    tmp_path: Path, command: str, metadata: dict[str, str], why: str
) -> None:
    said = {"joint_names": ",".join(JOINTS)} | metadata
    policy = annotated(tmp_path, "quadruped/trained", **said)
    words = [command, "quadruped", "plant=bridge", "driver=mujoco", f"policy={policy}"]
    if command == "bundle":
        words += ["-o", str(tmp_path / "robot.zip")]
    result = call(*words)
    assert result.exit_code == (2 if why else 0), result.output
    assert why in " ".join(result.output.split())


@pytest.mark.parametrize(("name", "argument", "model", "fits", "not_fits"), [
    ("maze", "policy", "maze/trained", 50.0, 20.0),
    ("maze", "critic", "maze/critic", 50.0, 20.0),
    ("maze", "dynamics", "maze/dynamics", 50.0, 20.0),
    # The plant at 500 Hz, the policy at 50, the planner at 20; a row of a plan is a policy's step.
    ("maze-multirate", "policy", "maze/trained", 50.0, 500.0),
    ("maze-multirate", "critic", "maze/critic", 50.0, 500.0),
    ("maze-multirate", "dynamics", "maze/dynamics", 50.0, 20.0),
    ("quadruped", "recovery", "quadruped/liedown", 50.0, 500.0),
])  # fmt: skip
def test_a_model_is_compared_with_the_rate_of_its_own_node(
    tmp_path: Path, name: str, argument: str, model: str, fits: float, not_fits: float
) -> None:
    for rate_hz in (fits, None):
        load(name, [f"{argument}={promising(tmp_path, model, rate_hz=rate_hz)}"])
    with pytest.raises(LaunchFileError, match=f"trained at {not_fits:g} Hz, to be run at 50 Hz"):
        load(name, [f"{argument}={promising(tmp_path, model, rate_hz=not_fits)}"])


def test_a_launch_file_that_changes_the_rate_is_told_of_the_model() -> None:
    with pytest.raises(LaunchFileError, match="trained at 50 Hz, to be run at 100 Hz") as caught:
        load("quadruped", ["policy_rate=100"])
    assert "quadruped.yaml" in str(caught.value) or "_shielded.yaml" in str(caught.value)


def test_a_device_in_slow_motion_is_flown_by_the_models_of_the_real_one() -> None:
    slow = ["plant=bridge", "driver=unitree", "rate=100", "policy_rate=10"]
    sets = ["bridge.options.unitree.rate_hz=100"]
    with pytest.raises(LaunchFileError, match="trained at 50 Hz, to be run at 10 Hz"):
        load("quadruped", slow, sets)
    load("quadruped", slow, [*sets, "bridge.options.unitree.time_factor=0.2"])


def test_what_a_launch_file_says_of_a_model_counts(tmp_path: Path) -> None:
    sets = ["task_policy.contract.rate_hz=25"]
    with pytest.raises(LaunchFileError, match="trained at 25 Hz, to be run at 50 Hz"):
        load("maze", [f"policy={foreign(tmp_path, 'maze/trained')}"], sets)


def test_files_that_are_not_here_or_broken_are_left_to_the_node(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"x")
    load("maze", [f"policy={broken}"])
    load("maze", [f"policy={tmp_path / 'none.onnx'}"], check_files=False)
