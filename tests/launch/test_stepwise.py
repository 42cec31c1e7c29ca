"""Lockstep runs: equal in processes and in one, from run to run; a dead process ends them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launch_helpers import fake_plan, processes_of

from safetypilot.launch import runtime_dir
from safetypilot.launch.plan import Step
from safetypilot.launch.progress import Run
from safetypilot.launch.report import exit_code, reason
from safetypilot.launch.stepwise import Stepwise

SWAP = Step("pilot", "swap", {"path": "second"}, after_episodes=2)


def fly(folder: Path, in_process: bool, show: Any = lambda run: None, **plan: Any) -> Run:
    run = Run(fake_plan(clock="lockstep", **plan), folder)
    Stepwise(run, in_process, show).run()
    return run


@pytest.mark.integration
def test_processes_and_one_process_and_repetition_give_the_same_trace(
    tmp_path: Path, runtime_base: Path
) -> None:
    runs = [
        fly(tmp_path / str(index), in_process, script=(SWAP,))
        for index, in_process in enumerate((True, False, True, False))
    ]
    traces = [run.trace_sha256 for run in runs]
    assert len(set(traces)) == 1
    assert len(traces[0] or "") == 64
    figures = [run.tally.total.figures() for run in runs]
    assert all(figure == figures[0] for figure in figures)
    assert [phase.model for phase in runs[0].tally.phases] == ["first", "second"]
    assert processes_of(runtime_base) == []
    assert runtime_dir.running() == []


def test_the_trace_is_a_function_of_seed_and_config(tmp_path: Path) -> None:
    base = fly(tmp_path, True).trace_sha256
    assert fly(tmp_path, True, seed=2).trace_sha256 != base
    assert fly(tmp_path, True, episodes=6).trace_sha256 != base


def test_duration_is_of_virtual_time(tmp_path: Path) -> None:
    run = fly(tmp_path, True, episodes=None, duration_s=30.0)
    assert 30.0 <= run.virtual_s < 30.02
    assert run.active_s < 20
    assert reason(run) == "flew its 30 s"


def test_a_refused_swap_fails_the_run_at_its_end(tmp_path: Path) -> None:
    bad = replace(SWAP, arguments={"path": "bad"})
    run = fly(tmp_path, True, script=(bad,))
    assert run.tally.episodes == 5
    assert run.script_failures == ["swap pilot to bad: not ONNX"]
    assert exit_code(run) == 1


@pytest.mark.integration
@pytest.mark.parametrize("fail", ["crash", "unusable"])
def test_a_dead_process_ends_the_run_with_its_last_words(
    tmp_path: Path, runtime_base: Path, fail: str
) -> None:
    run = fly(tmp_path, False, fail=fail)
    assert "lockstep cannot go on without it" in run.failure
    assert run.deaths[0].node == "pilot"
    assert ("a bug at observation 4" if fail == "crash" else "not found") in run.failure
    assert exit_code(run) == 1
    assert processes_of(runtime_base) == []


def test_a_node_that_cannot_be_used_fails_the_run_in_one_process_too(tmp_path: Path) -> None:
    run = fly(tmp_path, True, fail="unusable")
    assert "model.onnx: not found" in run.failure


def test_an_interruption_stops_between_two_events(tmp_path: Path) -> None:
    def interrupt(run: Run) -> None:
        if run.tally.episodes == 3:
            run.interrupted = "SIGINT"

    run = fly(tmp_path, True, interrupt, episodes=1000)
    assert run.tally.episodes == 3
    assert exit_code(run) == 130
