"""Figures of a run from hand-made episode reports: phases, percentiles, summary, picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from launch_helpers import fake_plan
from rich.console import Console

from safetypilot.launch import live, report, runtime_dir
from safetypilot.launch.picture import draw
from safetypilot.launch.progress import Death, Run
from safetypilot.launch.tally import Latencies, Tally
from safetypilot.nodes.kernel.messages import EpisodeReport


def episode(
    models: str = "novice@1", sources: tuple[int, ...] = (0, 0, 1, 3), latency_us: float = 900.0,
    *, success: bool = True, violation: bool = False, missed: int = 1, dropped: int = 2,
) -> EpisodeReport:  # fmt: skip
    steps = len(sources)
    latencies = np.full(steps, latency_us, np.float32)
    latencies[-1] = np.nan
    points = np.linspace(0, 0.2, 2 * steps, dtype=np.float32).reshape(steps, 2)
    used = np.array(sources, np.uint8)
    return EpisodeReport(
        9, 0, 0, 3, steps, success, violation, -2.5, missed, models, points, used, latencies,
        dropped,
    )  # fmt: skip


def tally_of(*reports: EpisodeReport) -> Tally:
    tally = Tally()
    for each in reports:
        tally.add(each)
    return tally


def test_interventions_are_the_steps_that_were_not_the_task_policys() -> None:
    figures = tally_of(episode(), episode(sources=(2, 2), violation=True)).total.figures()
    assert figures["steps"] == 6
    assert figures["interventions"] == 4
    assert figures["failsafe_steps"] == 1
    assert figures["steps_by_source"] == {"task": 2, "recovery": 1, "tail": 2, "failsafe": 1}
    assert (figures["missed_deadlines"], figures["refused_commands"]) == (2, 4)
    assert (figures["episodes"], figures["successes"], figures["violations"]) == (2, 2, 1)
    assert figures["mean_reward"] == -2.5
    assert figures["latency_us"]["n"] == 4  # the missed steps have none


def test_a_phase_ends_with_the_episode_in_which_the_model_changed() -> None:
    tally = tally_of(
        episode("novice@1"),
        episode("novice@1,trained@2"),
        episode("trained@2"),
        episode(""),  # the task policy never acted
        episode("novice@1"),
    )
    assert [(p.model, p.episodes) for p in tally.phases] == [
        ("novice@1", 2), ("trained@2", 2), ("novice@1", 1),
    ]  # fmt: skip
    assert tally.models == ["novice@1", "trained@2"]


def test_a_run_without_a_task_policy_is_one_phase() -> None:
    assert [p.model for p in tally_of(episode(""), episode(""), episode("a")).phases] == ["a"]


def test_percentiles_that_the_sample_does_not_support_are_null() -> None:
    latencies = Latencies()
    assert latencies.summary() == {"n": 0, "p50": None, "p99": None, "p999": None, "max": None}
    latencies.add(np.arange(1, 100, dtype=np.float32))
    assert latencies.summary()["p50"] == 50.0
    assert latencies.summary()["p99"] is None
    latencies.add(np.arange(100, 10_000, dtype=np.float32))
    assert latencies.summary()["p99"] == pytest.approx(9900, abs=1)
    assert latencies.summary()["p999"] is None
    latencies.add(np.array([1e6], np.float32))
    summary = latencies.summary()
    assert (summary["n"], summary["max"]) == (10_000, 1e6)
    assert summary["p999"] == pytest.approx(9990, abs=2)


def test_latencies_of_a_very_long_run_keep_their_percentiles() -> None:
    latencies = Latencies()
    for _ in range(40):
        latencies.add(np.linspace(0, 1000, 100_000, dtype=np.float32))
    summary = latencies.summary()
    assert summary["n"] == 4_000_000
    assert summary["p50"] == pytest.approx(500, rel=0.01)
    assert summary["p999"] == pytest.approx(999, rel=0.01)
    assert latencies._size <= 1 << 20


def test_summary_has_the_keys_that_scripts_rely_on(tmp_path: Path) -> None:
    run = Run(fake_plan(step_s=1.0), tmp_path, active_since=100.0, ended=102.0, started=99.0)
    run.tally = tally_of(episode(), episode("trained@2"))
    run.lost = {"pilot": {"observation: not msgpack": 5}, "plant": {}}
    run.rows = lambda: {
        "pilot": {"restarts": 2, "node": {"model": "trained@2"}},
        "plant": {"restarts": 0, "node": {}},
    }
    run.deaths.append(Death("pilot", -9, "was killed by SIGKILL", 1.5, 0, ["bye"]))
    summary = report.summarise(run, ["safetypilot", "launch", "fake"])
    path = report.write(run, summary)
    read = json.loads(path.read_text())
    assert {
        "episodes", "successes", "violations", "steps", "interventions", "failsafe_steps",
        "missed_deadlines", "dropped", "latency_us", "models", "trace_sha256",
    } <= set(read)  # fmt: skip
    assert read["dropped"] == 9
    assert read["models"] == {"pilot": "trained@2"}
    assert read["real_time_factor"] == 4.0
    assert read["restarts"] == {"pilot": 2}
    assert read["deaths"][0]["how"] == "was killed by SIGKILL"
    assert [phase["model"] for phase in read["phases"]] == ["novice@1", "trained@2"]
    assert [phase["steps"] for phase in read["phases"]] == [4, 4]
    assert read["lost_messages"] == {"pilot": {"observation: not msgpack": 5}}
    assert (read["wall_s"], read["active_s"]) == (3.0, 2.0)
    assert list(tmp_path.iterdir()) == [path]


def test_exit_code_and_reason(tmp_path: Path) -> None:
    run = Run(fake_plan(episodes=2), tmp_path)
    assert (report.exit_code(run), report.reason(run)) == (0, "nothing was left to run")
    run.tally = tally_of(episode(), episode())
    assert report.reason(run) == "flew its 2 episodes"
    run.interrupted = "SIGINT"
    assert (report.exit_code(run), report.reason(run)) == (130, "stopped by SIGINT")
    run.failure = "a fire"
    assert (report.exit_code(run), report.reason(run)) == (1, "failed: a fire")


def test_numbers_that_are_not_finite_never_reach_the_summary(tmp_path: Path) -> None:
    run = Run(fake_plan(), tmp_path)
    run.rows = lambda: {"pilot": {"restarts": 0, "node": {"risk": float("nan")}}}
    run.tally = tally_of(episode(latency_us=float("nan"))._replace(total_reward=float("inf")))
    report.write(run, report.summarise(run))
    assert json.loads((tmp_path / "summary.json").read_text())["nodes"]["pilot"]["node"] == {
        "risk": None
    }


@pytest.mark.parametrize("env", ["safetypilot/Maze-v0", "navigation2", "arm", "Pendulum-v1"])
def test_a_picture_of_any_world(tmp_path: Path, env: str) -> None:
    phases = tally_of(
        *[episode(f"m{i}@1", violation=i % 2 == 0) for i in range(8)], episode("m9", (1,))
    ).phases
    path = tmp_path / "t.png"
    assert draw(path, phases, env, "title")
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_no_picture_of_nothing(tmp_path: Path) -> None:
    assert not draw(tmp_path / "t.png", [], "maze", "title")
    flat = episode()._replace(observations=np.zeros((4, 1), np.float32))
    assert not draw(tmp_path / "t.png", tally_of(flat).phases, "maze", "title")


def test_the_table_shows_before_after_and_all(tmp_path: Path) -> None:
    run = Run(fake_plan(), tmp_path)
    run.tally = tally_of(episode(), episode("trained@2", (0, 0, 0, 0)))
    console = Console(width=80, record=True)
    console.print(live.result_table(run))
    lines = [line.split() for line in console.export_text().splitlines() if line.strip()]
    assert lines[2] == ["novice", "1", "1", "0", "50.0", "%", "0.90", "-", "1"]
    assert lines[3] == ["trained", "1", "1", "0", "0.0", "%", "0.90", "-", "1"]
    assert lines[-1][:4] == ["in", "all", "2", "2"]


def test_plain_lines_are_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(fake_plan(), tmp_path)
    screen = live.Lines()
    run.journal.listen = screen.listen
    run.journal.add("pilot", "promoted: [bold]x[/bold]")
    for _ in range(100):
        run.tally.add(episode())
        screen.show(run)
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 1
    assert "promoted: [bold]x[/bold]" in out[0]  # names are not markup


def test_the_live_view_draws_every_state(tmp_path: Path) -> None:
    run = Run(fake_plan(), tmp_path)
    run.tally.add(episode())
    age = {"p50": 100.0, "p99": None}
    inputs = {"observation": {"received": 3, "rate_hz": 50.0, "age_us": age}}
    row = {"state": "active", "restarts": 1, "inputs": inputs, "node": {"model": "m"},
           "rss_mb": 50.0, "handler_us": {"p99": 12.0}}  # fmt: skip
    empty = {"state": "waiting", "restarts": 0, "inputs": {}, "node": {}}
    run.rows = lambda: {"pilot": row, "plant": empty}
    console = Console(width=100, record=True)
    console.print(live.Screen()._view(run))
    text = console.export_text()
    assert "episodes 1/5" in text
    assert "waiting" in text
    assert runtime_dir.running() == []


def test_late_steps_name_who_was_waited_for(tmp_path: Path) -> None:
    run = Run(fake_plan(), tmp_path)
    run.tally.add(episode(missed=2))
    assert report.summarise(run)["late_steps"] == {"missed": 2, "late_answers": {}}
    assert report.summarise(run)["drift_ms"] is None
    cause = {"node": "arbiter", "what": "works", "steps": 2, "worst_ms": 4.5}
    late = {"missed": 2, "overruns": 1, "unexplained": 0, "causes": [cause]}
    plant = {"node": {"late_steps": late, "drift_ms": 31.0}}
    pilot = {"node": {"late": {"risk": 3}, "late_ms": {"risk": 7.5}}}
    for row in (plant, pilot):
        row |= {"restarts": 0}
    run.rows = lambda: {"plant": plant, "pilot": pilot}
    summary = report.summarise(run)
    assert summary["drift_ms"] == 31.0
    assert summary["late_steps"]["causes"] == [cause]
    assert summary["late_steps"]["late_answers"] == {
        "risk": {"node": None, "n": 3, "worst_ms": 7.5}  # nobody writes it in this graph
    }
    console = Console(width=300, record=True)
    live.conclude(console, run, {**summary, "real_time_factor": None}, None)
    said = "3 steps late, mostly: arbiter works (4.5 ms at worst); 31 ms behind the clock"
    assert said in console.export_text()
