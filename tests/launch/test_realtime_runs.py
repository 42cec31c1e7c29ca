"""Runs that ask for real-time scheduling: what they lack is said once, a runaway node is tamed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launch_helpers import fake_plan

from safetypilot.launch.progress import Run
from safetypilot.launch.supervisor import Supervisor
from safetypilot.nodes.kernel import schedule

pytestmark = pytest.mark.integration
privileged = pytest.mark.skipif(
    bool(schedule.try_fifo(3)), reason="this user may not take SCHED_FIFO"
)


def fly(tmp_path: Path, realtime: dict[str, Any], show: Any = lambda run: None, **plan: Any) -> Run:
    made = fake_plan(**plan)
    run = Run(replace(made, nodes=tuple(replace(n, realtime=realtime) for n in made.nodes)),
              tmp_path)  # fmt: skip
    Supervisor(run, show).run()
    return run


def said(run: Run, node: str) -> list[str]:
    return [entry["text"] for entry in run.journal.entries if entry["node"] == node]


def test_what_the_machine_lacks_is_said_once_and_the_run_goes_on(tmp_path: Path) -> None:
    run = fly(tmp_path, {"cpus": [4095]})
    assert (run.tally.episodes, run.failure) == (5, "")
    (text,) = said(run, "realtime")
    assert text.startswith("CPU 4095 is not available")
    assert text in (tmp_path / "logs" / "plant.log").read_text()


@privileged
def test_nodes_fly_under_the_policy_they_ask_for(tmp_path: Path) -> None:
    policies: dict[str, int] = {}

    def look(run: Run) -> None:
        for name, row in run.rows().items():
            if row["state"] == "active" and row["pid"]:
                policies[name] = os.sched_getscheduler(row["pid"]) & ~os.SCHED_RESET_ON_FORK

    run = fly(tmp_path, {"policy": "fifo", "priority": 2, "lock_memory": True}, look)
    assert (run.tally.episodes, run.failure, said(run, "realtime")) == (5, "", [])
    assert policies == {"plant": os.SCHED_FIFO, "pilot": os.SCHED_FIFO}


@privileged
def test_a_runaway_node_loses_its_policy_says_so_and_the_run_goes_on(tmp_path: Path) -> None:
    realtime = {"policy": "fifo", "priority": 2, "cpus": [max(os.sched_getaffinity(0))]}

    def stop_when_it_answers_again(run: Run) -> None:
        if run.tally.total.sources[0] > 50:
            run.interrupted = "SIGINT"

    run = fly(tmp_path, realtime, stop_when_it_answers_again, fail="runaway", episodes=2000)
    assert (run.failure, run.deaths, run.interrupted) == ("", [], "SIGINT")
    (text,) = [text for text in said(run, "pilot") if text.startswith("runaway")]
    assert "it has lost SCHED_FIFO until it restarts" in text
