"""What `safetypilot bridge new` writes: all or nothing, and it is what is tested here."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.bridge import registry, scaffold
from safetypilot.bridge.contract import DriverError

ROOT = Path(__file__).parents[2]
RAISES = """import dataclasses
@dataclasses.dataclass
class Options: number: int = 1
class Driver:
    Options = Options
    def __init__(self, options): raise RuntimeError("oh")
"""


def test_the_files_are_the_template_with_another_name(tmp_path: Path) -> None:
    files = scaffold.write("my_arm", tmp_path / "new" / "folder")
    names = ["my_arm.py", "my_arm_device.py", "test_my_arm.py", "my_arm.md"]
    assert [path.name for path in files] == names
    for path in files:
        text = path.read_text()
        assert "skeleton" not in text.lower()
        if path.suffix == ".py":
            ast.parse(text)
    driver = registry.create(f"{files[0]}:MyArmDriver", {"port": 5})
    assert driver.description.name == "my_arm"


@pytest.mark.parametrize(("text", "why"), [
    ("1 / 0", r"ZeroDivisionError: division by zero \(d.py:1\)"),
    ("import nonsense_", "No module named 'nonsense_'"),
    ("class Driver: pass", "has no class Driver with Options"),
    (RAISES, r"RuntimeError: oh \(d.py:6\)"),
])  # fmt: skip
def test_a_driver_that_cannot_be_made_says_where(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "d.py").write_text(text)
    with pytest.raises(DriverError, match=why):
        registry.create(f"{tmp_path}/d.py:Driver")


def test_a_driver_of_ones_own_needs_its_class_and_options_of_their_kind(tmp_path: Path) -> None:
    file = scaffold.write("my_arm", tmp_path)[0]
    with pytest.raises(DriverError, match=r"name its class, too: .*my_arm.py:Class"):
        registry.create(str(file))
    for value, wanted in (("abc", "a number"), (True, "a number")):
        with pytest.raises(DriverError, match=f"port is {value!r}; it is {wanted}"):
            registry.create(f"{file}:MyArmDriver", {"port": value})
    with pytest.raises(DriverError, match="host is 5; it is text"):
        registry.create(f"{file}:MyArmDriver", {"host": 5})


def test_the_files_pass_the_projects_linter(tmp_path: Path) -> None:
    files = scaffold.write("my_arm", tmp_path)
    rules = ["--isolated", "--select", "E,F,B,UP,BLE,S101,T20,N,C90", "--line-length", "100"]
    tests = ["--per-file-ignores", "test_*.py:S101"]
    scripts = [str(path) for path in files if path.suffix == ".py"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "ruff", "check", *rules, *tests, *scripts],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["MyArm", "my-arm", "", "1st", "my arm", "class", "_x", "../x"])
def test_a_name_that_is_no_modules_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="such as my_arm"):
        scaffold.write(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["random", "json", "safetypilot", "skeleton"])
def test_a_name_that_would_hide_a_module_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="another module"):
        scaffold.write(name, tmp_path)


def test_nothing_is_overwritten_and_nothing_is_written_by_half(tmp_path: Path) -> None:
    (tmp_path / "test_my_arm.py").write_text("mine")
    with pytest.raises(DriverError, match="is there already"):
        scaffold.write("my_arm", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["test_my_arm.py"]
    assert (tmp_path / "test_my_arm.py").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DriverError, match="file"):
        scaffold.write("my_arm", tmp_path / "file" / "below")


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=12))
def test_whatever_the_name_it_is_refused_or_a_module(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder = tmp_path_factory.mktemp("new")
    try:
        files = scaffold.write(name, folder)
    except DriverError:
        assert list(folder.iterdir()) == []
    else:
        assert files[0].stem.isidentifier()
        assert {path.parent for path in files} == {folder}
