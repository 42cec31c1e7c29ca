"""Every command of the README works as written."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(280)]
ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = [
    [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    for block in re.findall(r"```console\n(.*?)```", README, re.S)
]
SAFETYPILOT = [sys.executable, "-P", "-m", "safetypilot.launch.cli"]
ATTACHED = [command for block in BLOCKS for command in block if command.split()[1] in (
    "nodes", "topics", "echo", "hz", "latency", "top", "record",
    "swap", "estop", "reset")]  # fmt: skip
# A graph, and what is asked of its robot meanwhile.
BESIDE = [block for block in BLOCKS if "safetypilot bridge preflight" in block]
ALONE = [
    block for block in BLOCKS if not set(block) & set(ATTACHED) and block not in BESIDE
]  # each has a folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command, comments=True)
    assert words[0] == "safetypilot", command
    return subprocess.run(
        [*SAFETYPILOT, *words[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_the_readme_shows_every_verb() -> None:
    shown = {command.split()[1] for block in BLOCKS for command in block}
    help_text = run("safetypilot --help", ROOT).stdout
    verbs = set(re.findall(r"^  (\w+)  ", help_text, re.M))
    assert verbs and verbs <= shown


@pytest.mark.parametrize("block", ALONE, ids=lambda block: block[0])
def test_the_commands_of_a_block_work_one_after_another(block: list[str], tmp_path: Path) -> None:
    for command in block:
        if {"train", "learner=on"} & set(command.split()):
            pytest.importorskip("torch")
        done = run(command, tmp_path)
        assert done.returncode == 0, command + "\n" + done.stdout + done.stderr


@pytest.mark.parametrize("block", BESIDE, ids=lambda block: block[0])
def test_the_commands_for_a_robot_work_while_it_flies(block: list[str], tmp_path: Path) -> None:
    work_beside(block[0].removeprefix("safetypilot ") + " --duration 90", block[1:], tmp_path)


def test_the_commands_for_a_running_graph_work_while_it_runs(tmp_path: Path) -> None:
    work_beside("launch maze rate=25 --duration 90", ATTACHED, tmp_path)


def work_beside(command: str, commands: list[str], tmp_path: Path) -> None:
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            [*SAFETYPILOT, *command.split(), "--out", str(tmp_path / "run")],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        while "flies as" not in (tmp_path / "log").read_text():
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        for command in commands:
            done = run(command, tmp_path)
            assert done.returncode == 0, command + "\n" + done.stdout + done.stderr
    finally:
        process.terminate()
        process.wait(20)


def test_make_knows_the_readmes_targets() -> None:
    for target in re.findall(r"^make (\w+)", README, re.M):
        done = subprocess.run(
            ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
