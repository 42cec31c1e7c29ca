"""The command line: help with examples, wrong input without tracebacks, exit codes, JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from launch_helpers import FAKE, launcher
from typer.testing import CliRunner, Result

from safetypilot.launch import attach, cli, runtime_dir

VERBS = ("launch", "check", "graph", "nodes", "topics", "echo", "hz", "latency", "top", "record",
         "replay", "swap", "estop", "reset", "train", "doctor", "keys")  # fmt: skip


def call(*words: str) -> Result:
    return CliRunner().invoke(cli.app, list(words), prog_name="safetypilot")


def refused(*words: str) -> str:
    """What is said to wrong input: exit code 2, one message, no traceback."""
    result = call(*words)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit | None)
    assert "Traceback" not in result.output
    return result.output


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    result = call(verb, "--help")
    assert result.exit_code == 0
    assert f"Example: safetypilot {verb}" in result.output


def test_help_lists_all_verbs() -> None:
    listed = call("--help").output
    assert all(f"\n  {verb}  " in listed for verb in VERBS)


def test_a_misspelt_verb_or_option_gets_a_suggestion() -> None:
    assert "launch" in refused("lunch", "maze")
    assert "--episodes" in refused("launch", str(FAKE), "--episods", "3")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("launch", "mze"), "did you mean 'maze'?"),
        (("launch", "nowhere.yaml"), "nowhere.yaml"),
        (("launch", str(FAKE), "fial=crash"), "did you mean 'fail'?"),
        (("launch", str(FAKE), "--set", "pilto.fail=x"), "did you mean 'pilot'?"),
        (("launch", str(FAKE), "--set", "pilot.fial=x"), "fail"),
        (("launch", str(FAKE), "--set", "plant.steps=many"), "whole number"),
        (("launch", str(FAKE), "--clock", "realtme"), "did you mean 'realtime'?"),
        (("launch", str(FAKE), "--in-process"), "--in-process needs --clock lockstep"),
        (("launch", str(FAKE), "--episodes", "0"), "--episodes"),
        (("launch", str(FAKE), "--seed", "one"), "--seed"),
        (("launch", str(FAKE), "--out", str(FAKE)), "File exists"),
        (("check", "mze"), "did you mean 'maze'?"),
        (("graph", str(FAKE), "-o", "picture.jpg"), "there is no kind of picture 'jpg'"),
        (("graph", str(FAKE), "-o", "/nowhere/picture.mmd"), "No such file or directory"),
        (("topics",), "nothing is running"),
        (("nodes", "--run", "mine"), "nothing is running"),
        (("echo", "command"), "nothing is running"),
        (("hz", "command"), "nothing is running"),
        (("latency",), "nothing is running"),
        (("top",), "nothing is running"),
        (("record",), "nothing is running"),
        (("replay", "nowhere.mcap", "maze"), "nowhere.mcap: No such file"),
        (("replay", str(FAKE), "maze"), "is not an MCAP file"),
        (("replay", "x.mcap", "mze"), "did you mean 'maze'?"),
        (("replay", "x.mcap", "maze", "--nodes", "abiter"), "did you mean 'arbiter'?"),
        (("swap", "pilot", "x.onnx"), "nothing is running"),
        (("estop",), "nothing is running"),
        (("reset",), "nothing is running"),
        (("train", "recovry-rl"), "did you mean 'recovery-rl'?"),
        (("train", "recovery-rl", "--env", "mze"), "mze"),
        (("train", "recovery-rl", "--set", "nonsense"), "a setting is given as key=value"),
    ],
)
def test_wrong_input_is_exit_code_2_and_says_what_would_be_right(
    words: tuple[str, ...], expected: str
) -> None:
    assert expected in refused(*words)


def test_a_training_without_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "torch" else found(name, *a)
    )
    assert "pip install -e '.[train]'" in refused("train", "recovery-rl")


def test_check_and_graph_start_nothing(tmp_path: Path) -> None:
    assert "fake is fine" in call("check", str(FAKE)).output
    answer = json.loads(call("check", str(FAKE), "--json").output)
    assert answer["ok"]
    assert set(answer["graph"]["nodes"]) == {"plant", "pilot"}
    bad = call("check", str(FAKE), "fial=1", "--json")
    assert bad.exit_code == 2
    assert json.loads(bad.output)["problems"][0]["message"] == "unknown argument 'fial'"
    text = call("graph", str(FAKE)).output
    assert "plant -->|observation| pilot" in text
    for kind, head in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("mmd", b"%% fake")):
        path = tmp_path / f"graph.{kind}"
        assert call("graph", str(FAKE), "-o", str(path)).exit_code == 0
        assert path.read_bytes().startswith(head)
    assert runtime_dir.running() == []


def test_nodes_of_nothing() -> None:
    assert "nothing is running" in call("nodes").output
    assert json.loads(call("nodes", "--json").output) == []


def test_doctor_looks_at_the_machine() -> None:
    findings = json.loads(call("doctor", "--seconds", "0.3", "--json").output)
    assert findings["safetypilot"]["level"] == "ok"
    assert findings["timer lateness us"]["value"]["n"] > 10
    assert "timer lateness" in call("doctor", "--seconds", "0.1").output


def test_lockstep_from_the_command_line(tmp_path: Path) -> None:
    words = ("launch", str(FAKE), "--clock", "lockstep", "--in-process", "--out", str(tmp_path))
    result = call(*words, "--json", "--episodes", "3", "--seed", "5")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["episodes"], summary["seed"], summary["clock"]) == (3, 5, "lockstep")
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert len(summary["trace_sha256"]) == 64
    launched = json.loads((tmp_path / "launch.json").read_text())
    assert launched["seed"] == 5
    assert {path.name for path in tmp_path.iterdir()} == {
        "launch.json", "logs", "summary.json", "trajectories.png",
    }  # fmt: skip


def test_a_failed_run_is_exit_code_1_with_its_summary(tmp_path: Path) -> None:
    words = ("launch", str(FAKE), "fail=unusable", "--clock", "lockstep", "--in-process")
    result = call(*words, "--out", str(tmp_path))
    assert result.exit_code == 1
    assert "model.onnx: not found" in result.output
    assert json.loads((tmp_path / "summary.json").read_text())["exit_code"] == 1


def test_results_go_to_runs_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("launch", str(FAKE), "--clock", "lockstep", "--in-process", "--episodes", "1")
    for _ in range(2):  # within the same second
        assert call(*words).exit_code == 0
    folders = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert len(folders) == 2
    assert all(name.startswith("fake-") for name in folders)


def test_the_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from safetypilot.launch import cli; "
        "heavy = {'numpy', 'zmq', 'rich', 'yaml', 'pydantic', 'matplotlib', 'onnxruntime', 'torch'}"
        "; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.integration
def test_attaching_to_a_running_graph(tmp_path: Path) -> None:
    command = launcher("launch", str(FAKE), "--episodes", "100000", "--out", str(tmp_path))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert process.stdout is not None
        assert b"flies as fake-" in next(line for line in process.stdout if b"flies" in line)
        run = runtime_dir.find("fake")
        looks_at_nodes_and_topics(run.run_id)
        listens()
        swaps()
        stops_and_releases(run)
    finally:
        process.terminate()
        output = process.communicate(timeout=30)[0].decode()
    assert process.returncode == 143
    assert "Traceback" not in output
    assert "promoted" in output


def looks_at_nodes_and_topics(run_id: str) -> None:
    (answer,) = json.loads(call("nodes", "--json").output)
    assert answer["run_id"] == run_id
    assert {name: row["state"] for name, row in answer["nodes"].items()} == {
        "plant": "active", "pilot": "active",
    }  # fmt: skip
    assert "pilot" in call("nodes", "--run", "fake").output
    topics = json.loads(call("topics", "--json").output)
    assert topics["observation"]["readers"] == ["pilot"]
    assert "EpisodeReport" in call("topics").output


def listens() -> None:
    lines = call("echo", "command", "-n", "2", "--json").output.splitlines()
    assert [json.loads(line)["action"] for line in lines] == [[0.0, 0.0]] * 2
    assert "values [" in call("echo", "observation", "-n", "1").output
    assert "steps 5" in call("echo", "episode", "-n", "1").output  # a stream, by its tap
    assert "did you mean 'command'?" in refused("echo", "comand")
    measured: dict[str, Any] = json.loads(call("hz", "observation", "-n", "1", "--json").output)
    assert measured["rate_hz"] == pytest.approx(100, rel=0.2)
    assert "Hz, period" in call("hz", "command", "-n", "1").output
    assert "no transitions" in refused("latency", "-n", "1")
    looked = json.loads(call("top", "--once", "--every", "0.3", "--json").output)
    pilot = looked["nodes"]["pilot"]
    assert pilot["rate_hz"] == pytest.approx(100, rel=0.2) and pilot["rss_mb"] > 10
    assert pilot["cpu_percent"] is not None and "model" in pilot["models"]
    assert "pilot            active" in call("top", "--once", "--every", "0.1").output


def swaps() -> None:
    answer = call("swap", "pilot", "better.onnx", "--json")
    assert answer.exit_code == 0
    assert json.loads(answer.output)["version"].endswith("/better.onnx")
    bad = call("swap", "pilot", "bad.onnx")
    assert bad.exit_code == 1
    assert "pilot refused bad.onnx: not ONNX" in bad.output
    assert "did you mean 'pilot'?" in refused("swap", "pilto", "better.onnx")


def stops_and_releases(run: runtime_dir.Running) -> None:
    ask = attach.asker(run.path)
    assert call("estop", "--reason", "smoke").exit_code == 0
    assert json.loads(run.latch.read_text())["reason"] == "smoke"
    assert ask("pilot", "status", {})["node"]["model"] == "estop"
    assert call("reset").exit_code == 0
    assert not run.latch.exists()
    assert ask("pilot", "status", {})["node"]["model"] == "reset"
