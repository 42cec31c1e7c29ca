"""The supervisor's lifetime contract, with real processes of fake nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from launch_helpers import FAKE, fake_plan, launcher, processes_of, wait_until

from safetypilot.launch import attach, reaper, runtime_dir, supervisor
from safetypilot.launch.plan import Restart, Step
from safetypilot.launch.progress import Run
from safetypilot.launch.report import exit_code, summarise
from safetypilot.launch.run import carry_out
from safetypilot.launch.supervisor import Supervisor

pytestmark = pytest.mark.integration


def fly(tmp_path: Path, show: Any = lambda run: None, **plan: Any) -> Run:
    run = Run(fake_plan(**plan), tmp_path)
    Supervisor(run, show).run()
    return run


def start(tmp_path: Path, *words: str) -> subprocess.Popen[bytes]:
    """A launcher in a process of its own; a long run unless told otherwise."""
    command = launcher("launch", str(FAKE), "--out", str(tmp_path / "out"), *words)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def flying(base: Path) -> runtime_dir.Running:
    """Waits until exactly one run is under way and its plant is active."""
    run = wait_until(lambda: next(iter(runtime_dir.running()), None))
    ask = attach.asker(run.path, 0.5)

    def active() -> bool:
        try:
            return bool(ask("plant", "status", {})["active"])
        except Exception:  # noqa: BLE001  not yet there
            return False

    wait_until(active)
    return run


def test_a_run_flies_its_episodes_and_leaves_nothing_behind(
    tmp_path: Path, runtime_base: Path
) -> None:
    run = fly(tmp_path)
    assert (run.tally.episodes, run.failure, exit_code(run)) == (5, "", 0)
    assert run.tally.total.missed == 0
    assert processes_of(runtime_base) == []
    assert [p.name for p in runtime_dir.base_dir().iterdir()] == [".lock"]
    assert {log.name for log in (tmp_path / "logs").iterdir()} == {"plant.log", "pilot.log"}


def test_the_plant_is_activated_last(tmp_path: Path) -> None:
    run = fly(tmp_path)
    assert run.tally.total.sources == [25, 0, 0, 0]  # the pilot was there for the first step


def test_a_crashed_node_is_restarted_and_said_why(tmp_path: Path) -> None:
    def stop_after_two(run: Run) -> None:
        if len(run.deaths) == 2:
            run.interrupted = "SIGINT"

    run = fly(tmp_path, stop_after_two, fail="crash", episodes=1000)
    assert run.failure == ""
    first, second = run.deaths
    assert (first.node, first.how, first.generation) == ("pilot", "exited with code 1", 0)
    assert first.last_lines[-1] == "RuntimeError: a bug at observation 4"
    assert run.rows()["pilot"]["restarts"] == 1
    assert second.generation == 1
    assert "RuntimeError: a bug at observation 4" not in second.last_lines


def test_the_pause_before_a_restart_doubles_up_to_its_cap() -> None:
    restart = Restart(first_s=0.1, longest_s=0.5)
    assert [restart.pause_s(n) for n in range(1, 6)] == [0.1, 0.2, 0.4, 0.5, 0.5]
    assert restart.pause_s(10_000) == 0.5


def test_a_node_beyond_its_restarts_fails_the_run(tmp_path: Path) -> None:
    run = fly(tmp_path, fail="crash", episodes=500, restart=Restart(first_s=0.02, limit=2))
    assert "pilot exited with code 1 after 2 restarts, its limit" in run.failure
    assert exit_code(run) == 1
    assert len(run.deaths) == 3


def test_a_node_that_never_starts_fails_the_run(tmp_path: Path) -> None:
    run = fly(tmp_path, fail="crash at start")
    assert "pilot did not start" in run.failure
    assert "a bug in configure" in run.failure
    assert run.active_since is None


def test_exit_code_3_is_final(tmp_path: Path) -> None:
    run = fly(tmp_path, fail="unusable")
    assert len(run.deaths) == 1
    assert "model.onnx: not found" in run.failure


@pytest.mark.parametrize(
    ("when", "fail", "restarts"),
    [("never", "crash", 0), ("on-failure", "leave", 0), ("always", "leave", 1)],
)
def test_restart_policies(tmp_path: Path, when: str, fail: str, restarts: int) -> None:
    restart = Restart(when, first_s=0.01)
    run = fly(tmp_path, fail=fail, episodes=12, restart=restart)
    assert run.failure == ""
    assert min(run.rows()["pilot"]["restarts"], 1) == restarts


def test_a_killed_plant_comes_back_with_new_numbers(tmp_path: Path) -> None:
    killed = []

    def kill_once(run: Run) -> None:
        if run.tally.episodes == 2 and not killed:
            killed.append(run.rows()["plant"]["pid"])
            os.kill(killed[0], signal.SIGKILL)

    run = fly(tmp_path, kill_once, episodes=6)
    assert run.failure == ""
    assert run.tally.episodes == 6
    assert run.deaths[0].how == "was killed by SIGKILL"
    assert run.rows()["plant"]["generation"] == 1


def test_a_model_that_was_swapped_in_flies_on_after_a_restart(tmp_path: Path) -> None:
    killed = []

    def kill_after_swap(run: Run) -> None:
        if len(run.tally.phases) == 2 and not killed:
            killed.append(run.rows()["pilot"]["pid"])
            os.kill(killed[0], signal.SIGKILL)

    config = {"path": "second"}
    script = (Step("pilot", "swap", config, after_episodes=2),)
    plan = fake_plan(script=script, episodes=20)
    pilot = plan.nodes[1].__class__(**{**vars(plan.nodes[1]), "config": {"model": "first"}})
    run = Run(plan.__class__(**{**vars(plan), "nodes": (plan.nodes[0], pilot)}), tmp_path)
    Supervisor(run, kill_after_swap).run()
    assert killed
    assert [phase.model for phase in run.tally.phases] == ["first", "second"]
    assert run.rows()["pilot"]["node"]["model"] == "second"


def test_a_refused_swap_of_the_script_fails_the_run_at_its_end(tmp_path: Path) -> None:
    script = (Step("pilot", "swap", {"path": "bad.onnx"}, after_episodes=1),)
    run = fly(tmp_path, script=script)
    assert run.tally.episodes == 5
    assert run.script_failures == ["swap pilot to bad.onnx: not ONNX"]
    assert exit_code(run) == 1


def test_nodes_that_ignore_everything_are_killed_within_two_seconds(
    tmp_path: Path, runtime_base: Path
) -> None:
    run = Run(fake_plan(fail="deaf", duration_s=0.4, episodes=None), tmp_path)
    Supervisor(run).run()
    stopping = time.monotonic() - (run.ended or 0)
    assert 1.5 < stopping < 3.0
    assert processes_of(runtime_base) == []


def test_killing_the_supervisor_leaves_no_process_within_two_seconds(
    tmp_path: Path, runtime_base: Path
) -> None:
    launcher_process = start(tmp_path, "fail=deaf", "--episodes", "100000")
    try:
        run = flying(runtime_base)
        wait_until(lambda: len(processes_of(runtime_base)) >= 3)  # two nodes and the reaper
        grandchildren = [
            child.pid
            for process in processes_of(runtime_base)
            for child in process.children(recursive=True)
        ]
        assert grandchildren
        time.sleep(0.2)  # the pilot is stuck in C code by now
        launcher_process.kill()
        wait_until(lambda: processes_of(runtime_base) == [], timeout_s=2.0)
        assert not any(alive(pid) for pid in grandchildren)
        wait_until(lambda: not run.path.exists(), timeout_s=2.0)
    finally:
        finish(launcher_process)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except OSError:
        return False


def finish(process: subprocess.Popen[bytes]) -> tuple[str, str]:
    process.kill() if process.poll() is None else None
    out, err = process.communicate(timeout=30)
    return out.decode(), err.decode()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_stops_cleanly_with_a_summary(
    tmp_path: Path, runtime_base: Path, number: int, code: int
) -> None:
    process = start(tmp_path, "--episodes", "100000")
    try:
        flying(runtime_base)
        time.sleep(0.3)
        process.send_signal(number)
        assert process.wait(30) == code
    finally:
        out, err = finish(process)
    assert "Traceback" not in out + err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["episodes"] >= 1
    assert summary["exit_code"] == code
    assert processes_of(runtime_base) == []


def test_the_second_ctrl_c_kills(tmp_path: Path, runtime_base: Path) -> None:
    process = start(tmp_path, "fail=deaf", "--episodes", "100000")
    try:
        flying(runtime_base)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        wait_until(lambda: processes_of(runtime_base) == [], timeout_s=1.5)  # asked, it takes two
        assert process.wait(30) == 130
    finally:
        finish(process)
    assert processes_of(runtime_base) == []


def test_a_node_that_hangs_is_said_to_and_then_killed_and_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "SILENCE_S", 0.8)
    monkeypatch.setattr(supervisor, "HANG_S", 1.2)
    stopped = []

    def stop_once(run: Run) -> None:
        if run.tally.episodes == 2 and not stopped:
            stopped.append(run.rows()["pilot"]["pid"])
            os.kill(stopped[0], signal.SIGSTOP)

    run = fly(tmp_path, stop_once, episodes=60)
    said = [entry["text"] for entry in run.journal.entries if entry["node"] == "pilot"]
    assert "has not reported for 0.8 s: it hangs" in said
    assert "has hung for 1.2 s and is killed" in said
    assert run.rows()["pilot"]["generation"] == 1
    assert (run.failure, run.tally.episodes) == ("", 60)


def test_two_runs_side_by_side_do_not_disturb_each_other(tmp_path: Path) -> None:
    runs = [Run(fake_plan(episodes=10, seed=seed), tmp_path / str(seed)) for seed in (1, 2)]
    threads = [threading.Thread(target=Supervisor(run).run) for run in runs]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(runtime_dir.running()) == 2)
    with pytest.raises(runtime_dir.RuntimeDirError, match="say which with --run"):
        runtime_dir.find(None)
    assert runtime_dir.find(runtime_dir.running()[0].run_id).name == "fake"
    for thread in threads:
        thread.join(20)
    assert [(run.tally.episodes, run.failure) for run in runs] == [(10, ""), (10, "")]
    assert runs[0].run_id != runs[1].run_id


def test_a_fault_of_ours_still_leaves_a_summary(tmp_path: Path, runtime_base: Path) -> None:
    def broken(run: Run) -> None:
        raise ZeroDivisionError("a bug in a screen")

    run = Run(fake_plan(), tmp_path)
    summary = carry_out(run, show=broken)
    assert summary["exit_code"] == 1
    assert "ZeroDivisionError" in summary["exit_reason"]
    assert "a bug in a screen" in (tmp_path / "logs" / "supervisor.log").read_text()
    assert processes_of(runtime_base) == []


def test_messages_that_were_lost_are_in_the_summary(tmp_path: Path) -> None:
    run = fly(tmp_path)
    run.lost["pilot"] = {"observation: not msgpack": 3}
    assert summarise(run)["dropped"] == 3


def test_what_is_killed_may_starve_nobody_while_it_ends() -> None:
    group = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        try:
            os.sched_setscheduler(group.pid, os.SCHED_FIFO, os.sched_param(1))
        except PermissionError:
            pytest.skip("real-time scheduling is not allowed here")
        assert reaper.members(group.pid) == [group.pid]
        reaper.demote(group.pid)
        assert os.sched_getscheduler(group.pid) == os.SCHED_OTHER
        assert reaper.send(group.pid, signal.SIGKILL)
    finally:
        group.kill()
    assert group.wait(5) == -signal.SIGKILL
