"""Private runtime directories: made, found, refused and cleared."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from safetypilot.launch import runtime_dir


def test_a_run_is_private_found_and_gone(runtime_base: Path) -> None:
    made = runtime_dir.create("a name/with odd.things and much too long")
    assert made.path.stat().st_mode & 0o777 == 0o700
    assert made.path.parent.stat().st_mode & 0o777 == 0o700
    made.describe({"name": "mine"})
    assert [run.run_id for run in runtime_dir.running()] == [made.run_id]
    assert runtime_dir.find("mine").path == made.path
    assert runtime_dir.find(made.run_id[:5]).graph["pid"] == os.getpid()
    made.remove()
    assert runtime_dir.running() == []
    assert not made.path.exists()


def test_directories_of_dead_runs_are_cleared_and_those_of_living_ones_kept() -> None:
    dead, living = runtime_dir.create("dead"), runtime_dir.create("living")
    dead.describe({"name": "dead"})
    os.close(dead.lock)  # what its death would do
    assert not runtime_dir.alive(dead.path)
    assert runtime_dir.running() == []
    third = runtime_dir.create("third")
    assert not dead.path.exists()
    assert living.path.exists()
    living.remove()
    third.remove()


def test_what_is_asked_for_must_be_running() -> None:
    with pytest.raises(runtime_dir.RuntimeDirError, match="nothing is running"):
        runtime_dir.find(None)
    made = runtime_dir.create("one")
    made.describe({"name": "one"})
    with pytest.raises(runtime_dir.RuntimeDirError, match="no run is called 'two'"):
        runtime_dir.find("two")
    made.remove()


def test_a_directory_that_others_can_open_is_refused() -> None:
    base = runtime_dir.base_dir()
    base.chmod(0o755)
    with pytest.raises(runtime_dir.RuntimeDirError, match="chmod 700"):
        runtime_dir.base_dir()


def test_a_link_in_the_place_of_the_directory_is_refused(runtime_base: Path) -> None:
    (runtime_base / "elsewhere").mkdir()
    (runtime_base / f"safetypilot-{os.getuid()}").symlink_to(runtime_base / "elsewhere")
    with pytest.raises(runtime_dir.RuntimeDirError, match="not a directory of this user"):
        runtime_dir.base_dir()


def test_a_path_too_long_for_sockets_is_refused(
    runtime_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = runtime_base / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(runtime_dir.RuntimeDirError, match="set TMPDIR"):
        runtime_dir.create("any")


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    runtime_dir.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        runtime_dir.write_json(path, {"a": float("nan")})
    assert path.read_text() == '{\n  "a": 1\n}\n'
