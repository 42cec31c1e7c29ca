"""Watched files: renamed or written, never half; the right kind of a directory."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.envs import registry
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.kernel.testing import Bench
from safetypilot.nodes.model_watch import INTERVAL_S, Seen
from safetypilot.nodes.task_policy import TaskPolicy, TaskPolicyConfig

ZOO = Path(__file__).parents[2] / "models" / "zoo" / "maze"
TRAINED, CRITIC = (ZOO / "trained.onnx").read_bytes(), (ZOO / "critic.onnx").read_bytes()
MAZE = registry.describe("maze")
INTERFACE = Interface.from_dict({key: MAZE[key] for key in Interface.__dataclass_fields__})


def rename_into(path: Path, data: bytes) -> None:
    beside = path.with_suffix(".tmp")
    beside.write_bytes(data)
    beside.replace(path)


def test_a_file_counts_once_it_has_come_to_rest(tmp_path: Path) -> None:
    path = tmp_path / "p.onnx"
    seen = Seen(path)
    assert seen.look() == []
    path.write_bytes(b"half")
    assert seen.look() == []  # it is new, and may still be written
    path.write_bytes(b"half and more")
    assert seen.look() == []
    assert seen.look() == [path]
    assert seen.look() == []
    os.utime(path, ns=(1, 1))  # back in time, by a copy that keeps times
    assert seen.look() == [] and seen.look() == [path]


def test_a_rename_is_seen_though_size_and_time_stay(tmp_path: Path) -> None:
    path = tmp_path / "p.onnx"
    path.write_bytes(b"one")
    os.utime(path, ns=(5, 5))
    seen = Seen(path)
    beside = tmp_path / "q"
    beside.write_bytes(b"two")
    os.utime(beside, ns=(5, 5))
    beside.replace(path)
    assert seen.look() == [] and seen.look() == [path]
    path.unlink()
    assert seen.look() == [] and seen.look() == []
    rename_into(path, b"three")
    assert seen.look() == [] and seen.look() == [path]


def test_a_directory_gives_its_new_models_oldest_first(tmp_path: Path) -> None:
    (tmp_path / "old.onnx").write_bytes(b"known")
    seen = Seen(tmp_path)
    for name, at in (("b.onnx", 30), ("a.onnx", 20), ("c.onnx", 10), ("notes.txt", 40)):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, ns=(at, at))
    seen.look()
    assert [path.name for path in seen.look()] == ["c.onnx", "a.onnx", "b.onnx"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["write", "rename", "remove", "look"]), max_size=25))
def test_whatever_happens_the_last_content_is_handed_over(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[str]
) -> None:
    path = tmp_path_factory.mktemp("w") / "p.onnx"
    seen, handed, count = Seen(path), b"", 0
    for deed in [*deeds, "look", "look"]:
        count += 1
        if deed == "write":
            path.write_bytes(b"w" * count)
        elif deed == "rename":
            rename_into(path, b"r" * count)
        elif deed == "remove":
            path.unlink(missing_ok=True)
        elif seen.look():
            handed = path.read_bytes()
    if path.exists():
        assert handed == path.read_bytes()


class Watching:
    """A policy that watches, with the thread that looks run for real."""

    def __init__(self, watched: Path, folder: Path) -> None:
        config = TaskPolicyConfig(model=str(ZOO / "novice.onnx"), budget_ms=50, watch=str(watched))
        self.bench = Bench(TaskPolicy, config, folder, interface=INTERFACE)

    def turn(self, within_s: float = 10.0) -> dict[str, Any]:
        """Lets the watcher find one thing, and the node stage it; what became of it."""
        executor = self.bench.executor
        work, done = executor.jobs.pop(0)
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
        thread.start()
        thread.join(within_s)
        assert found, "nothing was found"
        done(found[0], self.bench.now_ns)
        again = executor.jobs.pop()  # the watcher goes on
        executor.finish_jobs()
        executor.jobs.append(again)
        status: dict[str, Any] = self.bench.ask("swap_status")
        return status


def test_a_replaced_file_is_staged_and_a_half_written_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "flying.onnx"
    path.write_bytes(b"what was there at the start is known")
    node = Watching(path, tmp_path)
    time.sleep(2 * INTERVAL_S)
    rename_into(path, TRAINED)
    assert node.turn()["state"] == "staged"
    node.bench.ask("swap_cancel")
    path.write_bytes(TRAINED[:2000])  # and then the writer stalls
    status = node.turn()
    assert status["state"] == "refused" and "half written" in status["reason"]
    path.write_bytes(TRAINED)
    assert node.turn()["state"] == "staged"


def test_of_a_directory_only_the_nodes_own_kind_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    node = Watching(folder, tmp_path)
    rename_into(folder / "critic.onnx", CRITIC)
    rename_into(folder / "half.onnx", TRAINED[:3000])
    status = node.turn()
    assert status["state"] == "none"
    events = [data for kind, data in node.bench.executor.events if kind == "not taken"]
    assert [Path(event["path"]).name for event in events] == ["half.onnx"]
    rename_into(folder / "policy-7.onnx", TRAINED)
    assert node.turn()["path"].endswith("policy-7.onnx")
