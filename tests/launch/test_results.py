"""plot, table and evaluate on the command line: files, figures, help, and wrong input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from training_runs import ZOO, call, write_outcomes, write_run

from safetypilot.launch import evaluation, risk_map, trained
from safetypilot.launch.cli_common import InputError


def refused(*words: object) -> str:
    result = call(*words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.fixture
def trained_run(tmp_path: Path) -> Path:
    """A run's directory with the maze models of the zoo."""
    run = tmp_path / "run"
    shutil.copytree(ZOO / "maze", run / "models", ignore=shutil.ignore_patterns("*.pt", "*.json"))
    settings = json.loads((ZOO / "maze" / "manifest.json").read_text())["settings"]
    facts = {"env": "maze", "algorithm": "recovery-rl", "seed": 0, "settings": settings}
    (run / "summary.json").write_text(json.dumps(facts))
    return run


@pytest.mark.parametrize("verb", ["plot", "table", "evaluate"])
def test_help_has_an_example(verb: str) -> None:
    assert f"Example: safetypilot {verb}" in call(verb, "--help").output


@pytest.mark.parametrize("kind", ["ratio", "success", "violation", "reward", "pr", "risk"])
def test_every_plot_has_help_with_an_example(kind: str) -> None:
    assert f"Example: safetypilot plot {kind}" in call("plot", kind, "--help").output


def test_plots_go_to_plots_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a", "maze", episodes=12)
    write_run(tmp_path / "b", "Vendor/Thing-v1", episodes=12)
    assert "wrote plots/ratio.png" in call("plot", "ratio", "a", "b").output
    call("plot", "ratio", "a")
    done = call("plot", "violation", "a", "b", "--separate", "--out", "v.png", "--title", "T")
    assert done.exit_code == 0, done.output
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.[ps][nv]g")}
    assert made == {
        *("plots/ratio.png", "plots/ratio.svg", "plots/ratio-maze.png", "plots/ratio-maze.svg"),
        *("v-maze.png", "v-maze.svg", "v-Vendor-Thing-v1.png", "v-Vendor-Thing-v1.svg"),
    }


def test_labels_alone_name_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "a", episodes=12)
    done = call("plot", "pr", "--label", f"mine={tmp_path / 'a'}", "--out", tmp_path / "f")
    assert done.exit_code == 0, done.output
    assert "mine" in (tmp_path / "f.svg").read_text()


def test_the_table(tmp_path: Path) -> None:
    write_outcomes(tmp_path / "0", "ssssV", seed=0)
    write_outcomes(tmp_path / "1", "sss-s", seed=1)
    write_outcomes(tmp_path / "2", "vvs-s", seed=0, algorithm="sac")
    done = call("table", tmp_path, "--json", tmp_path / "t.json")
    assert done.exit_code == 0, done.output
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in
            done.output.splitlines() if line.startswith("|")]  # fmt: skip
    assert rows[0] == ["environment", "algorithm", "ratio", "median", "successes", "violations",
                       "violations during recovery", "episodes", "seeds"]  # fmt: skip
    assert rows[2] == ["maze", "recovery-rl", "**3.75 ± 0.88**", "3.75", "4 ± 0", "0.50 ± 0.35",
                       "1.00 ± 0.00", "5", "2"]  # fmt: skip
    assert rows[3] == ["maze", "sac", "1 ± 0", "1", "2 ± 0", "2 ± 0", "0.00 ± 0.00", "5", "1"]
    content = json.loads((tmp_path / "t.json").read_text())
    assert [group["label"] for group in content["groups"]] == ["recovery-rl", "sac"]
    assert content["groups"][0]["ratio"]["seeds"] == [2.5, 5.0]
    assert content["groups"][0]["seeds"] == [0, 1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("plot", "ratoi", "x"), "ratio"),
        (("plot", "ratio"), "no runs are named"),
        (("plot", "ratio", "nowhere"), "there is no directory nowhere"),
        (("plot", "ratio", "--label", "x"), "a label is given as NAME=DIR"),
        (("plot", "ratio", "{runs}", "--out", "x.pdf"), "a name without ending"),
        (("plot", "ratio", "{runs}", "--episodes", "0"), "--episodes"),
        (("plot", "risk", "nowhere"), "there is no directory nowhere"),
        (("plot", "risk", "nowhere.onnx"), "nowhere.onnx does not exist"),
        (("plot", "risk", "{runs}"), "there are no models in"),
        (("plot", "risk", "{zoo}"), "choose one of"),
        (("plot", "risk", "{zoo}/maze/trained.onnx"), "a safety_critic is needed"),
        (("plot", "risk", "{zoo}/maze", "--env", "navigation1"), "does not judge navigation1"),
        (("plot", "risk", "{zoo}/maze", "--env", "hopper-no-bonus"), "a task in the plane"),
        (("plot", "risk", "{zoo}/maze", "--env", "maez"), "maez"),
        (("plot", "risk", "{zoo}/maze", "--actions", "eats"), "did you mean 'east'?"),
        (("plot", "risk", "{zoo}/maze", "--actions", " "), "--actions is empty"),
        (("plot", "risk", "{zoo}/maze", "--actions", "0.1,x"), "is not numbers"),
        (("plot", "risk", "{zoo}/maze", "--actions", "0.1,0,0"), "has 3 numbers, the task has 2"),
        (("plot", "risk", "{zoo}/maze", "--actions", "0.2,0"), "outside the limits -0.1 to 0.1"),
        (("table", "nowhere"), "there is no directory nowhere"),
        (("evaluate", "nowhere"), "there is no directory nowhere"),
        (("evaluate", "{runs}"), "there are no models in"),
        (("evaluate", "{zoo}/maze", "--policy", "novise"), "did you mean 'novice'?"),
        (("evaluate", "{zoo}/maze", "--policy", "critic"), "there are: novice, trained"),
        (("evaluate", "{zoo}/maze", "--video", "x.avi"), ".mp4 or .gif"),
        (("evaluate", "{zoo}/maze", "--video", "nowhere/x.gif"), "there is no folder nowhere"),
        (("evaluate", "{zoo}/maze", "--episodes", "0"), "--episodes"),
    ],
)
def test_wrong_input_says_what_would_be_right(
    tmp_path: Path, words: tuple[str, ...], expected: str
) -> None:
    pytest.importorskip("torch")
    write_run(tmp_path, episodes=3)
    names = {"runs": tmp_path, "zoo": ZOO}
    assert expected in " ".join(refused(*(word.format(**names) for word in words)).split())


@pytest.mark.parametrize("env", ["maze", "navigation1", "navigation2"])
def test_risk_maps(tmp_path: Path, env: str) -> None:
    done = call("plot", "risk", ZOO / env, "--out", tmp_path / "risk")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "risk.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "risk.svg").read_text()
    assert "recovery takes over beyond" in text
    assert "→" in text and "↓" in text


def test_the_risk_map_shows_what_the_critic_says() -> None:
    subject = risk_map.find(ZOO / "maze")
    chosen = risk_map.actions("north 0.05,-0.1 rest", subject.model)
    np.testing.assert_allclose(chosen, [[0, 0.1], [0.05, -0.1], [0, 0]], atol=1e-7)
    x, y, maps = risk_map.risks(subject, chosen)
    assert maps.shape == (3, len(y), len(x)) == (3, 200, 200)
    rows = {"observation": np.array([[x[17], y[120]]]), "action": chosen[1:2]}
    expected = subject.model.run(**rows)["risk"][0]
    assert maps[1, 120, 17] == pytest.approx(expected, abs=1e-6)
    assert subject.eps == 0.15


def test_a_threshold_can_be_given_and_one_file_is_enough(tmp_path: Path) -> None:
    shutil.copy(ZOO / "maze" / "critic.onnx", tmp_path / "critic.onnx")
    words = ("plot", "risk", tmp_path / "critic.onnx", "--out", tmp_path / "r", "--actions", "rest")
    assert call(*words).exit_code == 0
    assert "recovery takes over" not in (tmp_path / "r.svg").read_text()
    assert call(*words, "--eps", "0.3", "--title", "Mine").exit_code == 0
    text = (tmp_path / "r.svg").read_text()
    assert "eps = 0.3" in text and "Mine" in text


def test_evaluation_is_deterministic_and_counts(trained_run: Path) -> None:
    pytest.importorskip("torch")
    answers = []
    for _ in range(2):
        done = call("evaluate", trained_run, "--episodes", "3", "--seed", "4", "--json")
        assert done.exit_code == 0, done.output
        answers.append(json.loads(done.stdout))
        answers[-1].pop("wall_s")
    assert answers[0] == answers[1]
    figures = answers[0]
    assert (figures["env"], figures["policy"], figures["shield"]) == ("maze", "trained", True)
    assert figures["episodes"] == 3
    assert figures["ratio"] == (figures["successes"] + 1) / (figures["violations"] + 1)
    assert set(figures["models"]) == {"task_policy", "safety_critic", "dynamics"}


def test_evaluation_in_words_without_the_shield(trained_run: Path) -> None:
    pytest.importorskip("torch")
    words = ("--episodes", "1", "--policy", "novice", "--no-shield")
    done = call("evaluate", trained_run, *words)
    assert done.exit_code == 0, done.output
    assert "maze, novice policy, shield off: episodes 1, " in done.output


def test_an_incomplete_run_is_refused_before_it_flies(trained_run: Path) -> None:
    pytest.importorskip("torch")
    (trained_run / "models" / "dynamics.onnx").unlink()
    assert "there is no dynamics in" in refused("evaluate", trained_run)
    assert call("evaluate", trained_run, "--episodes", "1", "--no-shield").exit_code == 0
    facts = json.loads((trained_run / "summary.json").read_text())
    (trained_run / "summary.json").write_text(json.dumps({**facts, "env": "navigation1"}))
    assert "use a model of this plant" in refused("evaluate", trained_run, "--no-shield")
    (trained_run / "summary.json").write_text("{")
    assert "summary.json is not JSON" in refused("evaluate", trained_run)


def test_settings_of_another_version_are_told(trained_run: Path) -> None:
    pytest.importorskip("torch")
    facts = json.loads((trained_run / "summary.json").read_text())
    facts["settings"]["of_old"] = 1
    (trained_run / "summary.json").write_text(json.dumps(facts))
    flight = evaluation.prepare(trained.find(trained_run), evaluation.Request())
    flight.env.close()
    assert any("of_old" in note for note in flight.notes)
    assert flight.config.eps == facts["settings"]["eps"]


def test_models_that_say_nothing_of_their_task_are_refused(tmp_path: Path) -> None:
    (tmp_path / "trained.onnx").write_bytes(b"no model")
    found = trained.find(tmp_path)
    assert (found.env, found.algorithm, found.eps) == ("", "", None)
    with pytest.raises(InputError, match="does not say what it was trained for"):
        evaluation.prepare(found, evaluation.Request())


def test_evaluation_without_torch_says_what_to_install(
    trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import builtins
    import sys

    for name in list(sys.modules):
        if name.startswith("safetypilot.policies.learn"):
            monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def without_torch(name: str, *rest: object) -> object:
        if name == "torch" or name.startswith("torch."):
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_torch)
    assert "pip install -e '.[train]'" in refused("evaluate", trained_run)
