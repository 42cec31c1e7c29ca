"""`safetypilot bridge new` and `bridge check`: help, wrong input, JSON, exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from safetypilot.bridge.conformance import suite
from safetypilot.launch import cli, cli_bridge, cli_bridge_kit

SKELETON = "safetypilot.bridge.template.skeleton:SkeletonDriver"
OFFLINE = "description_is_readable,numbers_fit,joints_are_limited,options_are_explained"


def call(*words: str) -> Result:
    app = typer.Typer(cls=cli.Verbs, rich_markup_mode=None)
    verbs = typer.Typer()
    cli_bridge_kit.register(verbs)
    app.add_typer(verbs, name="bridge")
    return CliRunner().invoke(app, ["bridge", *words], prog_name="safetypilot")


def refused(*words: str) -> str:
    result = call(*words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.mark.parametrize(("watchdog_s", "told"), [
    (0.2, "0.2 s"), (None, "IT HAS NONE: IF THE BRIDGE DIES, THE ROBOT GOES ON"),
])  # fmt: skip
def test_who_arms_is_told_whether_there_is_a_second_line(
    capsys: pytest.CaptureFixture[str], watchdog_s: float | None, told: str
) -> None:
    report = {
        "driver": "it", "identity": {}, "calibration": "", "failsafes": ["hold"], "joints": [],
        "command_timeout_s": 0.1, "watchdog_s": watchdog_s, "heartbeat_missing": "", "tested": {},
        "commands": True, "position": [], "state": "configured",
    }  # fmt: skip
    cli_bridge._print_preflight(report)
    line = next(row for row in capsys.readouterr().out.splitlines() if "device's watchdog" in row)
    assert told in line


@pytest.mark.parametrize("verb", ["new", "check"])
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    result = call(verb, "--help")
    assert result.exit_code == 0
    assert f"Example: safetypilot bridge {verb}" in result.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("new", "My-Arm"), "such as my_arm"),
        (("check", "mujco"), "did you mean 'mujoco'?"),
        (("check", "nowhere.py:Driver"), "nowhere.py"),
        (("check", SKELETON, "prot=5"), "did you mean 'port'?"),
        (("check", SKELETON, "port"), "given as key=value"),
        (("check", SKELETON, "port=[1"), "no YAML"),
        (("check", SKELETON, "port=9"), "port=9 leads past the simulated device"),
        (("check", SKELETON, "--only", "soks"), "did you mean 'soaks'?"),
        (("check", SKELETON, "--hardware", "--device", "x"), "there is none"),
        (("check", SKELETON, "--calibration", "/nowhere.json"), "nowhere.json"),
        (("check", SKELETON, "--cycles", "0"), "--cycles"),
    ],
)
def test_wrong_input_is_exit_code_2_and_says_what_would_be_right(
    words: tuple[str, ...], expected: str
) -> None:
    assert expected in refused(*words)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--device", "/nowhere/device"), "does not get ready"),
        (("--device", f"{sys.executable} -c 'raise SystemExit(\"no robot\")'"), "no robot"),
        (("port={prot}",), "has told only"),
    ],
)
def test_a_device_that_cannot_be_started_is_told_once(
    words: tuple[str, ...], expected: str
) -> None:
    assert expected in refused("check", SKELETON, *words)


@pytest.mark.integration
def test_new_and_check_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = json.loads(call("new", "my_arm", "-o", "arm", "--json").output)
    assert len(answer["files"]) == 4
    assert answer["driver"] == "arm/my_arm.py:MyArmDriver"
    checks = f"{OFFLINE},connect_identifies,silence_damps,killed_driver_damps"
    result = call("check", answer["driver"], "--only", checks)
    assert result.exit_code == 0, result.output
    assert "7 passed" in result.output
    assert "my_arm, sim-1, 1.0" in result.output
    assert "is there already" in refused("new", "my_arm", "-o", "arm")


@pytest.mark.integration
def test_a_driver_that_fails_is_exit_code_1(tmp_path: Path) -> None:
    call("new", "my_arm", "-o", str(tmp_path))
    path = tmp_path / "my_arm.py"
    text = path.read_text()
    assert "command_timeout_s=0.1" in text
    path.write_text(text.replace("command_timeout_s=0.1", "command_timeout_s=50.0"))
    result = call("check", f"{path}:MyArmDriver", "--only", OFFLINE, "--json")
    assert result.exit_code == 1
    report = json.loads(result.output)
    assert (report["passed"], report["failed"], report["skipped"]) == (3, 1, 0)
    verdicts = {check["check"]: check["verdict"] for check in report["checks"]}
    assert verdicts["numbers_fit"] == "failed"
    shown = call("check", f"{path}:MyArmDriver", "--only", "numbers_fit")
    assert shown.exit_code == 1
    assert "1 failed" in shown.output and "command_timeout_s is 50.0 s" in shown.output


def test_where_nothing_answers_the_checks_end_with_that() -> None:
    result = call("check", SKELETON, "port=1", "--hardware", "--json")
    assert result.exit_code == 1
    report = json.loads(result.output)
    assert (report["passed"], report["failed"], report["skipped"]) == (4, 1, 0)
    assert report["checks"][-1]["check"] == "connect_identifies"
    assert report["left_out"] == len(suite.CHECKS) - 5
    shown = call("check", SKELETON, "port=1", "--hardware", "--only", "connect_identifies,soaks")
    assert "1 failed, and 1 left out, since nothing is connected" in shown.output


PAGE = (Path(__file__).parents[2] / "bridge" / "README.md").read_text()
SHOWN = re.findall(r"^\$ safetypilot bridge (.*)$", PAGE, re.M)


@pytest.mark.integration
@pytest.mark.slow
def test_the_commands_of_the_page_work_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(SHOWN) == 3
    for words in SHOWN:
        result = call(*words.split())
        assert result.exit_code == 0, result.output


@pytest.mark.integration
@pytest.mark.slow
def test_the_new_drivers_own_test_runs_the_suite(tmp_path: Path) -> None:
    call("new", "my_arm", "-o", str(tmp_path))
    few = "description_is_readable or connect_identifies or not_finite_is_refused"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", few],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
