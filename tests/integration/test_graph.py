"""The whole graph: one trace on every clock and in every arrangement, small, quick, torch-free."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flights import NODES, SAFETYPILOT, Flight, launch

Fly = Callable[..., Flight]
pytestmark = pytest.mark.integration
KEYS = {
    "episodes", "successes", "violations", "steps", "interventions", "failsafe_steps",
    "missed_deadlines", "dropped", "latency_us", "models",
}  # fmt: skip


def test_lockstep_has_one_trace_in_processes_and_in_one_process(tmp_path: Path) -> None:
    arguments = ("maze", "--clock", "lockstep", "--episodes", "2", "--seed", "7")
    traces = [
        launch(tmp_path / str(number), *arguments, *extra)["trace_sha256"]
        for number, extra in enumerate(((), (), ("--in-process",), ("--in-process",)))
    ]
    assert len(set(traces)) == 1 and len(traces[0]) == 64
    other = launch(tmp_path / "other", *arguments[:-1], "8", "--in-process")
    assert other["trace_sha256"] != traces[0]


def test_the_trained_policy_succeeds_and_the_summary_says_so(tmp_path: Path) -> None:
    summary = launch(
        tmp_path / "run", "maze", "--clock", "lockstep", "--in-process", "--episodes", "10"
    )
    assert summary["episodes"] == 10
    assert summary["successes"] >= 9 and summary["violations"] == 0
    assert set(summary) >= KEYS | {"trace_sha256", "phases"}
    assert set(summary["latency_us"]) >= {"p50", "p99", "p999", "max"}


def test_the_shield_is_what_keeps_the_novice_off_the_walls(tmp_path: Path) -> None:
    arguments = ("maze", "policy=novice", "--clock", "lockstep", "--in-process", "--episodes", "12")
    shielded = launch(tmp_path / "on", *arguments)
    bare = launch(tmp_path / "off", *arguments, "--set", "arbiter.shield=off")
    assert bare["violations"] >= 5 * max(1, shielded["violations"])
    assert bare["interventions"] <= 3 < shielded["interventions"]  # arming aside


def test_no_process_of_the_graph_has_torch_and_all_are_small(fly: Fly, tmp_path: Path) -> None:
    begun = time.monotonic()
    flight = fly("maze", "rate=25", "--duration", "4")
    assert time.monotonic() - begun < 15
    pids = flight.pids()
    assert set(pids) == set(NODES)
    for node, pid in pids.items():
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "libtorch" not in maps, node
        rss_mb = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6
        assert rss_mb < (130 if node == "simulator" else 90), f"{node}: {rss_mb:.0f} MB"
    code, summary = flight.finish()
    assert code == 0 and summary["steps"] > 50
    assert (flight.out / "trajectories.png").stat().st_size > 10_000


def test_two_runs_side_by_side_do_not_disturb_each_other(fly: Fly) -> None:
    one = fly("maze", "rate=10", "--duration", "5", "--seed", "1")
    two = fly("maze", "rate=10", "--duration", "5", "--seed", "2")
    assert one.run.path != two.run.path
    for flight in (one, two):
        code, summary = flight.finish()
        assert code == 0 and not summary["restarts"] and summary["steps"] > 30


def test_a_run_flies_on_when_nobody_listens_to_it(tmp_path: Path) -> None:
    command = [*SAFETYPILOT, "launch", "maze", "rate=25", "--duration", "2"]
    with open("/dev/full", "w") as full:
        done = subprocess.run([*command, "--out", str(tmp_path / "run")], stdout=full, check=False)
    assert done.returncode == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] > 30
