"""`safetypilot train`: what it writes, what it says, how it goes on, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from safetypilot.launch import cli

pytest.importorskip("torch")

SMALL = (
    "hidden=8", "layers=1", "batch=16", "offline_size=200", "offline_updates=5", "task_demos=0",
    "dynamics_epochs=1", "dynamics_hidden=8", "ensemble=2", "horizon=2", "planner_population=8",
    "planner_elites=2", "planner_iterations=1", "planner_particles=2", "start_steps=5",
    "evaluate_episodes=0", "final_episodes=1", "task_offline_updates=0", "novice_episodes=1",
)  # fmt: skip


def call(*words: str) -> Result:
    return CliRunner().invoke(cli.app, ["train", *words], prog_name="safetypilot")


def small(algorithm: str, out: Path, *words: str) -> Result:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    where = ("--env", "navigation1", "--out", str(out))
    return call(algorithm, *where, "--steps", "25", *settings, *words)


def refused(*words: str) -> str:
    result = call(*words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.output


def test_a_training_from_the_command_line(tmp_path: Path) -> None:
    result = small("recovery-rl", tmp_path, "--seed", "3", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert (summary["algorithm"], summary["env"], summary["seed"]) == (
        "recovery-rl", "navigation1", 3,
    )  # fmt: skip
    assert summary["steps"] == 25
    assert summary["settings"]["hidden"] == 8
    assert (tmp_path / "models" / "trained.onnx").exists()
    again = small("sac", tmp_path)
    assert again.exit_code == 2 and "holds a training already" in again.output
    assert summary == json.loads((tmp_path / "summary.json").read_text())


def test_several_seeds_and_what_is_said_of_them(tmp_path: Path) -> None:
    result = small("lr", tmp_path, "--seeds", "0,2", "--preset", "published")
    assert result.exit_code == 0, result.output
    for seed in (0, 2):
        assert f"seed {seed}:" in result.output
        summary = json.loads((tmp_path / f"seed-{seed}" / "summary.json").read_text())
        assert (summary["seed"], summary["preset"]) == (seed, "published")
        assert summary["settings"]["risk_loss"] == "squared"
    again = small("lr", tmp_path / "json", "--seeds", "0,2", "--json")
    assert [run["seed"] for run in json.loads(again.stdout)["runs"]] == [0, 2]


def test_a_training_goes_on_where_it_was(tmp_path: Path) -> None:
    assert small("sac", tmp_path).exit_code == 0
    result = call("sac", "--resume", str(tmp_path), "--steps", "40", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["steps"] == 40
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 40
    assert "is of sac on navigation1, you asked for lr" in refused("lr", "--resume", str(tmp_path))
    resume = ("sac", "--resume", str(tmp_path))
    for words, said in (
        (("--env", "maze"), "env is navigation1, you asked for maze"),
        (("--seed", "7"), "seeds is 0, you asked for 7"),
        (("--preset", "published"), "preset is default, you asked for published"),
        (("--data", "d"), "data is none, you asked for d"),
    ):
        assert said in refused(*resume, *words)
    same = call(*resume, "--env", "navigation1", "--seed", "0", "--steps", "41", "--json")
    assert same.exit_code == 0, same.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("lr", "--preset", "pubished"), "unknown preset 'pubished'"),
        (("lr", "--seeds", "4-0"), "seeds '4-0'"),
        (("lr", "--seeds", "1,1"), "give each once"),
        (("lr", "--set", "gama=1"), "did you mean 'gamma'"),
        (("lr", "--set", "alpha=0"), "alpha is 0"),
        (("lr", "--set", "batch=64", "--set", "capacity=32"), "more than capacity"),
        (("lr", "--episodes", "0"), "--episodes"),
        (("lr", "--seed", "-1"), "--seed"),
        (("sqlr",), "did you mean 'sqrl'?"),
        (("lr", "--env", "Pendulum-v1", "--set", "offline=false"), "cost"),
        (("lr", "--resume", "/nowhere"), "does not exist"),
    ],
)
def test_wrong_input(words: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    out = () if "--resume" in words else ("--out", str(tmp_path / "run"))
    assert expected in refused(*words, *out)


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    output = refused("sac", "--env", "navigation1", "--out", str(tmp_path / "file" / "run"))
    assert "file/run" in output


def test_models_that_cannot_be_exported_lose_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetypilot.models import export
    from safetypilot.models.errors import ModelError

    def refuse(*_: object) -> None:
        raise ModelError("the exported action is off by 1")

    out = tmp_path / "run"
    with monkeypatch.context() as broken:
        broken.setattr(export, "_check_parity", refuse)
        result = small("sac", out)
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert f"off by 1; go on from the checkpoint: --resume {out}" in said
    assert small("sac", out, "--resume", str(out)).exit_code == 0
