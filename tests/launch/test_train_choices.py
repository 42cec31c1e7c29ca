"""`safetypilot train` on an environment of Gymnasium's that chooses and knows no cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from safetypilot.launch import cli

pytest.importorskip("torch")

SMALL = (
    "hidden=8", "layers=1", "batch=16", "start_steps=5", "evaluate_episodes=0",
    "final_episodes=1", "novice_episodes=1", "positive_fraction=0",
)  # fmt: skip


def call(algorithm: str, out: Path, *words: str) -> Result:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    where = ("--env", "CartPole-v1", "--out", str(out), "--steps", "60")
    arguments = ["train", algorithm, *where, *settings, *words]
    return CliRunner().invoke(cli.app, arguments, prog_name="safetypilot")


@pytest.mark.parametrize("algorithm", ["sac", "lr", "sqrl", "recovery-rl-q-sampling"])
def test_choices_are_learned_and_fly(algorithm: str, tmp_path: Path) -> None:
    result = call(algorithm, tmp_path, "--cost", "termination", "--set", "offline=false", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["violations"] >= summary["episodes"] - 1 > 0  # poles fall; the last may stand
    assert summary["settings"]["cost"] == "termination"
    assert summary["evaluation"]["trained_alone"]["return_mean"] >= 8

    from safetypilot.models import runtime

    model = runtime.load(tmp_path / "models" / "trained.onnx")
    assert list(model.contract.action_names) == ["choice_0", "choice_1"]


def test_what_violates_is_remembered(tmp_path: Path) -> None:
    result = call("sac", tmp_path, "--cost", "termination", "--json")
    assert result.exit_code == 0, result.output
    from safetypilot.launch.graph import load

    graph = load("any", [f"run={tmp_path}", "shield=off"])
    assert graph.arguments["cost"] == "termination"
    assert graph.arguments["env"] == "CartPole-v1"
    words = ["evaluate", str(tmp_path), "--episodes", "3", "--json"]
    figures = json.loads(CliRunner().invoke(cli.app, words, prog_name="safetypilot").stdout)
    assert figures["violations"] == 3  # a policy of 60 steps lets the pole fall


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "CartPole-v1 reports no info"),
        (("--cost", "terminal"), "cost is 'terminal'; choose one of info, termination, none"),
        (("--cost", "none", "--device", "cuda:7"), "--device cuda:7:"),
        (("--cost", "none", "--device", "tpu"), "networks learn on cpu or cuda"),
    ],
)
def test_what_is_refused(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = call("sac", tmp_path / "run", *words)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()


def test_no_offline_data_names_both_ways_on(tmp_path: Path) -> None:
    result = call("lr", tmp_path, "--cost", "termination")
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert "there is no offline data recipe for 'CartPole-v1'" in said
    assert "set offline=false" in said
    assert "--data" in said
