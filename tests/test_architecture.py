"""The layout's own rules, which no linter checks."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("nodes", "policies", "models", "envs", "launch", "bridge")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPLOYED = (
    "nodes.simulator",
    "nodes.task_policy",
    "nodes.safety_critic",
    "nodes.recovery_planner",
    "nodes.arbiter",
    "policies.shield",
    "launch.cli",
)


def test_every_package_is_listed_so_that_the_wheel_has_it() -> None:
    found = {
        "safetypilot." + str(path.parent.relative_to(ROOT)).replace("/", ".")
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
        if "assets" not in path.parts
    }
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])


def test_package_inits_hold_a_docstring_and_nothing_else() -> None:
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("__init__.py"):
            lines = path.read_text().strip().splitlines()
            assert len(lines) == 1 and lines[0].startswith('"""'), path


def test_there_is_no_other_source_folder_at_the_top() -> None:
    allowed = {*FOLDERS, "tests", "build", "dist", "runs"}
    tracked = subprocess.run(
        ["git", "ls-tree", "-d", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    folders = {name for name in tracked.stdout.split() if not name.startswith(".")}
    assert folders <= allowed


def test_only_the_transport_knows_zeromq_sockets() -> None:
    users = {
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"^\s*(import|from) zmq", path.read_text(), re.M)
    }
    bare = {path for path in users if path.startswith("launch/bench/peers/bare")}
    names = ("transport", "ports", "taps", "link_sockets")
    transport = {f"nodes/kernel/{name}.py" for name in names}
    assert users - bare == transport  # what it is measured against may, too


@pytest.mark.parametrize("module", DEPLOYED)
def test_deployed_modules_load_neither_torch_nor_onnx(module: str) -> None:
    code = (
        f"import sys, safetypilot.{module}; "
        "sys.exit(','.join({'torch', 'onnx', 'tensorboard'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_importing_a_message_does_not_load_zeromq() -> None:
    code = "import sys, safetypilot.nodes.kernel.messages; sys.exit('zmq' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


def test_nothing_is_pickled_and_weights_are_loaded_as_weights() -> None:
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            assert "import pickle" not in text, path
            for line in text.splitlines():
                if "torch.load(" in line:
                    assert "weights_only=True" in text, path
