"""Swapping a model in flight: no step lost, one version a step, a bad file never acts."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flights import SAFETYPILOT, ZOO, Flight

from safetypilot.policies.shield import Source

Fly = Callable[..., Flight]
pytestmark = pytest.mark.integration


def swap(node: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SAFETYPILOT, "swap", node, str(path)], capture_output=True, text=True, check=False
    )


@pytest.fixture
def flight(fly: Fly) -> Flight:
    return fly("maze", "rate=25", "policy=novice", "--duration", "8")


def test_a_swap_loses_no_step_and_each_step_names_one_version(flight: Flight) -> None:
    receive = flight.tap("transition")
    commands = flight.tap("command")
    before = flight.status("task_policy")["node"]["model"]
    done = swap("task_policy", ZOO / "trained.onnx")
    assert done.returncode == 0, done.stdout + done.stderr
    after = flight.status("task_policy")["node"]["model"]
    assert before != after
    models, seqs = [], []
    for _ in range(100):
        command = commands(0.01)
        if command is not None and command.model:
            models.append(command.model)
        step = receive(0.2)
        if step is not None:
            seqs.append(step.seq)
    assert set(models) <= {before, after} and models[-1] == after
    assert models == sorted(models, key=[before, after].index)  # never back and forth
    assert np.all(np.diff(seqs) == 1)
    code, summary = flight.finish()
    assert code == 0
    assert [phase["model"] for phase in summary["phases"]] == [before, after]


def test_bad_files_are_refused_with_a_reason_and_the_old_model_flies_on(
    flight: Flight, tmp_path: Path
) -> None:
    before = flight.status("task_policy")["node"]["model"]
    whole = (ZOO / "trained.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.onnx").write_text("not a model")
    damaged = bytearray(whole)
    at = whole.rindex(b"\x00" * 4) if b"\x00" * 4 in whole else len(whole) // 2
    damaged[at // 2 : at // 2 + 64] = b"\x7f" * 64
    (tmp_path / "damaged.onnx").write_bytes(bytes(damaged))
    for path, reason in (
        (tmp_path / "missing.onnx", "does not exist"),
        (tmp_path / "text.onnx", ""),
        (tmp_path / "half.onnx", ""),
        (tmp_path / "damaged.onnx", ""),
        (ZOO / "critic.onnx", "safety_critic"),
    ):
        done = swap("task_policy", path)
        said = done.stdout + done.stderr
        assert done.returncode in (1, 2), said
        assert "Traceback" not in said and reason in said
        assert path.name in said
    assert flight.status("task_policy")["node"]["model"] == before
    receive = flight.tap("command")
    flown = {command.model for command in (receive(0.3) for _ in range(20)) if command}
    assert flown <= {before, ""}
    assert flight.finish()[0] == 0


def test_the_critic_of_both_its_nodes_can_be_swapped(flight: Flight) -> None:
    for node in ("safety_critic", "recovery_planner"):
        done = swap(node, ZOO / "critic.onnx")
        assert done.returncode == 0, done.stdout + done.stderr
    receive = flight.tap("transition")
    sources = [step.source for step in (receive(0.3) for _ in range(30)) if step]
    assert set(sources) <= {Source.TASK, Source.RECOVERY, Source.TAIL}
    assert flight.finish()[0] == 0
