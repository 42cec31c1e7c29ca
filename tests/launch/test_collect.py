"""`safetypilot collect`, `data info`: data of any environment, a line for what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from safetypilot.envs import dataset
from safetypilot.launch import cli

pytest.importorskip("h5py")


def call(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words], prog_name="safetypilot")


def done(*words: object) -> dict[str, Any]:
    result = call(*words, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def refused(*words: object) -> str:
    result = call(*words)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit | None)
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def test_help_has_examples() -> None:
    assert "Example: safetypilot collect --env maze" in call("collect", "--help").output
    assert "Example: safetypilot data info" in call("data", "--help").output
    assert "Example: safetypilot data info" in call("data", "info", "--help").output


def test_random_rows_and_what_is_said_of_them(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "maze-v0"
    found = done("collect", "--env", "maze", "--size", 150, "--seed", 3, "--out", out)
    data = dataset.load(out, success=True)
    assert found["rows"] == found["added"] == len(data["cost"]) == 150
    assert found["violations"] == data["cost"].sum() and found["interrupted"] is False
    assert found["made"][0]["policy"] == "random" and found["made"][0]["seed"] == 3
    text = call("data", "info", out).output
    assert "150 rows" in text and "policy random, seed 3" in text
    shown = done("data", "info", out)
    assert {key: shown[key] for key in ("rows", "env", "made")} == {
        key: found[key] for key in ("rows", "env", "made")
    }


def test_the_same_seed_gives_the_same_data(tmp_path: Path) -> None:
    words = ("collect", "--env", "navigation2", "--policy", "expert", "--noise", 0.5, "--size", 80)
    for name in ("a", "b"):
        done(*words, "--out", tmp_path / name)
    one, two = dataset.load(tmp_path / "a"), dataset.load(tmp_path / "b")
    assert all((one[name] == two[name]).all() for name in one)


def test_an_onnx_policy_flies(tmp_path: Path) -> None:
    out = tmp_path / "a"
    found = done("collect", "--env", "maze", "--policy", "zoo/maze/trained.onnx",
                 "--episodes", 5, "--out", out)  # fmt: skip
    assert found["episodes"] == 5 and found["successes"] >= 2


def test_mix_append_and_force(tmp_path: Path) -> None:
    out = tmp_path / "a"
    found = done("collect", "--env", "navigation1", "--mix", "random=0.5, expert=0.5",
                 "--size", 300, "--out", out)  # fmt: skip
    assert found["made"][0]["policy"] == "random=0.5, expert=0.5"
    assert "--append" in refused("collect", "--env", "navigation1", "--out", out)
    found = done("collect", "--env", "navigation1", "--policy", "recipe", "--size", 100,
                 "--append", "--out", out)  # fmt: skip
    assert [part["policy"] for part in found["made"]] == ["random=0.5, expert=0.5", "recipe"]
    assert found["rows"] == 300 + found["added"]
    found = done("collect", "--env", "maze", "--size", 40, "--force", "--out", out)
    assert found["rows"] == 40


def test_the_recipe_is_the_published_one(tmp_path: Path) -> None:
    from safetypilot.envs.offline import offline_data

    done("collect", "--env", "maze", "--policy", "recipe", "--size", 200, "--seed", 5,
         "--out", tmp_path / "a")  # fmt: skip
    loaded, made = dataset.load(tmp_path / "a"), offline_data("maze", 200, 5)
    for name in ("observation", "action", "cost", "reward", "next_observation", "terminated"):
        assert (loaded[name] == made[name]).all()


def test_an_environment_of_gymnasium_with_a_cost_function(tmp_path: Path) -> None:
    found = done("collect", "--env", "Hopper-v5", "--cost", "termination", "--size", 300,
                 "--out", tmp_path / "a")  # fmt: skip
    assert found["violations"] > 3 and found["successes"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--env", "mze"), "Did you mean maze"),
        (("--env", "maze", "--policy", "exprt"), "did you mean 'expert'?"),
        (("--env", "Pendulum-v1", "--size", "5"), "choose another cost function, for example"),
        (("--env", "Pendulum-v1", "--size", "5"), "(--cost termination)"),
        (("--env", "maze", "--cost", "crash"), "unknown cost 'crash'"),
        (("--env", "Pendulum-v1", "--policy", "expert"), "scripted expert for 'Pendulum-v1'"),
        (("--env", "Pendulum-v1", "--policy", "recipe"), "no offline data recipe for 'Pendulum-v"),
        (("--env", "maze", "--policy", "demonstrations"), "there is no demonstrator for 'maze'"),
        (("--env", "maze", "--policy", "recipe", "--noise", "1"), "--noise does not go with it"),
        (("--env", "maze", "--policy", "recipe", "--episodes", "1"), "--episodes does not go"),
        (("--env", "maze", "--policy", "recipe", "--size", "3"), "at least 40"),
        (("--env", "maze", "--policy", "nowhere.onnx"), "nowhere.onnx does not exist"),
        (("--env", "maze", "--policy", "zoo/maze/critic.onnx"), "a task_policy was wanted"),
        (("--env", "navigation1", "--policy", "zoo/maze/trained.onnx"), "use a model of this pl"),
        (("--env", "maze", "--mix", "random"), "'random' should be POLICY=SHARE"),
        (("--env", "maze", "--mix", "random=-1,expert=1"), "'random=-1' should be"),
        (("--env", "maze", "--mix", "random=1,recipe=1"), "recipe cannot be mixed"),
        (("--env", "maze", "--mix", "a=1", "--policy", "random"), "--policy and --mix: give one"),
        (("--env", "maze", "--size", "5", "--episodes", "5"), "--episodes and --size: give one"),
        (("--env", "maze", "--force", "--append"), "--force and --append: give one"),
        (("--env", "maze", "--noise", "nan"), "--noise"),
        (("--env", "maze", "--noise", "-1"), "--noise"),
        (("--env", "maze", "--size", "0"), "--size"),
        (("--env", "Blackjack-v1"), "observation space"),
        ((), "--env"),
    ],
)
def test_wrong_input_is_answered_in_a_line(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    assert said in refused("collect", *words, "--out", tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    words = ("collect", "--env", "maze", "--size", 5, "--out")
    assert "no data set, so it is not replaced" in refused(*words, tmp_path / "file", "--force")
    assert "cannot be written: Not a directory" in refused(*words, tmp_path / "file" / "a")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_episode_that_never_ends_is_foreseen(tmp_path: Path) -> None:
    import gymnasium

    gymnasium.register("test/Endless-v0", "gymnasium.envs.classic_control:PendulumEnv")
    words = ("collect", "--env", "test/Endless-v0", "--cost", "none", "--episodes", 2,
             "--out", tmp_path / "a")  # fmt: skip
    try:
        assert "give --episode-steps" in refused(*words)
        assert done(*words, "--episode-steps", 9)["rows"] == 18
    finally:
        del gymnasium.registry["test/Endless-v0"]


def test_info_of_what_is_no_data_set(tmp_path: Path) -> None:
    assert "does not exist; a data set is a directory" in refused("data", "info", tmp_path / "a")
    done("collect", "--env", "maze", "--size", 20, "--out", tmp_path / "a")
    file = tmp_path / "a" / "data" / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:-1000])
    assert "damaged or cut off" in refused("data", "info", tmp_path / "a")


SAFETYPILOT = [sys.executable, "-P", "-m", "safetypilot.launch.cli"]


@pytest.mark.integration
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_keeps_whole_episodes(tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "a"
    words = ["collect", "--env", "navigation1", "--size", "9000000", "--out", str(out), "--json"]
    process = subprocess.Popen([*SAFETYPILOT, *words], stdout=subprocess.PIPE, text=True)
    scratch = tmp_path / f".a.{process.pid}.part"
    end = time.monotonic() + 60
    while not scratch.exists() and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(2.0)  # enough for an episode, on a busy machine too
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    found = json.loads(output)
    data = dataset.load(out)
    assert found["interrupted"] is True and found["rows"] == len(data["cost"]) > 0
    assert (data["terminated"] | data["truncated"])[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.integration
def test_stopped_at_once_nothing_is_written(tmp_path: Path) -> None:
    words = ["collect", "--env", "maze", "--policy", "recipe", "--size", "9000000",
             "--out", str(tmp_path / "a")]  # fmt: skip
    program = (
        "import sys, threading, os, signal\n"
        "from safetypilot.envs import offline\n"
        "real = offline.offline_data\n"
        "def wrapped(*a, **k):\n"
        "    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "    return real(*a, **k)\n"
        "offline.offline_data = wrapped\n"
        f"sys.argv = ['safetypilot', *{words!r}]\n"
        "from safetypilot.launch.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert "nothing was written" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_torch_is_not_loaded(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from safetypilot.launch import cli\n"
        "words = ['collect', '--env', 'maze', '--policy', 'zoo/maze/trained.onnx', '--size', '5',"
        f" '--out', {str(tmp_path / 'a')!r}]\n"
        "cli.app(words, standalone_mode=False)\n"
        "assert 'torch' not in sys.modules and 'zmq' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
