"""One graph on two hosts: network namespaces, a cable with packets on it, clocks far apart.

The workstation's CLOCK_MONOTONIC is 5000 s ahead; were ages not corrected nothing would ever fly.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cable import ROBOT, Cable, listening, missing
from flights import SAFETYPILOT, ZOO, Flight, alive, eventually
from test_kill_matrix import Watch

from safetypilot.launch import attach, keys, swapping
from safetypilot.nodes.kernel import trace
from safetypilot.nodes.kernel.errors import KernelError
from safetypilot.policies.shield import Source

WHY_NOT = missing()
pytestmark = [pytest.mark.integration, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]
PORT, AHEAD_S = 7447, 5000
ON_ROBOT = ("simulator", "arbiter", "recovery_planner", "link")
ON_WORKSTATION = ("task_policy", "safety_critic", "link")
TWO_HOSTS = Path(__file__).parents[2] / "launch" / "configs" / "maze-two-hosts.yaml"


class HostFlight(Flight):
    """What flies on one of the hosts."""

    def begin(
        self, enter: list[str], *words: str, graph: str | Path = "maze-two-hosts"
    ) -> HostFlight:
        """Launches this host's part, and waits until it can be found."""
        command = [*enter, *SAFETYPILOT, "launch", str(graph), *words, "--out", str(self.out)]
        with open(self.out.with_suffix(".log"), "w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self.run = eventually(self._find, 60.0, f"a run in {self.out}")
        self.ask = attach.asker(self.run.path)
        return self

    def node(self, name: str) -> dict[str, Any]:
        """What a node says of itself; nothing while it does not answer."""
        try:
            found: dict[str, Any] = self.status(name)["node"]
        except KernelError:
            return {}
        return found

    @property
    def up(self) -> bool:
        return bool(self.node("link").get("up"))

    def events(self) -> list[str]:
        """The lines of its log about the link."""
        lines = self.out.with_suffix(".log").read_text().splitlines()
        return [line.split("link: ", 1)[1] for line in lines if " link: " in line]

    def all_pids(self) -> list[int]:
        """Its supervisor and every process that it has started."""
        found = [self.process.pid]
        for name in self.run.graph["nodes"]:
            pid = self.pid(name)
            if pid is not None:
                found.append(pid)
        return found


class Hosts:
    """A robot and a workstation on either end of a cable.

    Attributes:
        graph: what they fly.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cable = Cable()
        keys.make(folder / "keys", ("robot", "workstation"))
        self.graph: str | Path = "maze-two-hosts"
        self._flights: list[HostFlight] = []

    def launch(self, host: str, *words: str) -> HostFlight:
        flight = HostFlight(self.folder / f"{host}{len(self._flights)}")
        self._flights.append(flight)
        is_robot = host == "robot"
        enter = self.cable.enter(0) if is_robot else self.cable.enter(1, AHEAD_S)
        given = (f"keys={self.folder / 'keys'}", f"address={ROBOT}:{PORT}", *words)
        return flight.begin(enter, *given, "--host", host, graph=self.graph)

    def fly(self, *words: str, robot: tuple[str, ...] = ()) -> tuple[HostFlight, HostFlight]:
        """Both, with the arbiter armed."""
        pair = self.launch("robot", *words, *robot), self.launch("workstation", *words)
        eventually(lambda: pair[0].node("arbiter").get("armed"), 60.0, "an armed arbiter")
        return pair

    def close(self) -> None:
        for flight in self._flights:
            flight.close()
        self.cable.close()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path)
    yield made
    made.close()


def watched(robot: HostFlight, seconds: float) -> list[Any]:
    """The transitions of some seconds."""
    watch = Watch(robot)
    time.sleep(seconds)
    watch.stop()
    check(watch)
    return watch.transitions


def check(watch: Watch) -> None:
    """The invariants of DESIGN 6, as far as they show in what was done."""
    low, high = np.float32(-0.1) - 1e-6, np.float32(0.1) + 1e-6
    seqs = [step.seq for step in watch.transitions]
    assert seqs == sorted(set(seqs)), "a step was executed twice or out of order"
    for step in watch.transitions:
        assert np.isfinite(step.executed).all()
        assert (step.executed >= low).all() and (step.executed <= high).all()
        if step.source == Source.TASK:
            assert np.array_equal(step.executed, step.proposed)
        if step.source == Source.FAILSAFE:
            assert not step.executed.any()


def share(steps: list[Any], *sources: Source) -> float:
    return sum(step.source in sources for step in steps) / max(1, len(steps))


def test_one_graph_on_two_hosts_with_clocks_far_apart_and_a_cut_cable(hosts: Hosts) -> None:
    robot, workstation = hosts.fly("rate=20")
    assert listening(robot.process.pid) == {f"{ROBOT}:{PORT}"}, "as the launch file says"
    assert listening(workstation.process.pid) == set()
    steps = watched(robot, 1.5)
    assert share(steps, Source.TASK) > 0.5
    link = workstation.node("link")
    assert abs(link["offset_ms"] - 1e3 * AHEAD_S) < max(2.0, link["uncertainty_ms"])
    age = workstation.status("task_policy")["inputs"]["observation"]["age_us"]
    assert 0 < age["p50"] < 50_000, "true, though the clocks are 5000 s apart"
    for step in (s for s in steps if s.source == Source.TASK):
        chain = trace.unpack(step.chain)
        assert chain.policy_observed == step.stamp_ns, "the very stamp came home"
        hops = [chain.policy_taken, chain.proposal_sent, chain.critic_taken, chain.risk_sent]
        assert all(abs(at - step.stamp_ns) < 10**9 for at in hops), "in the robot's time"

    hosts.cable.set(cut=True)
    time.sleep(0.2)
    steps = watched(robot, 1.8)
    assert steps and share(steps, Source.TASK) == 0.0
    assert share(steps, Source.RECOVERY, Source.TAIL) > 0.8, "a recovery, not a crash"
    hosts.cable.set(cut=False)
    eventually(lambda: robot.up and workstation.up, 15.0, "the link")
    steps = watched(robot, 1.5)
    assert share(steps, Source.TASK) > 0.5, "the task flies again"

    robot.process.send_signal(signal.SIGINT)
    code, summary = robot.finish()
    assert code == 130 and not summary["restarts"] and not summary["deaths"]
    assert summary["violations"] == 0
    code, theirs = workstation.finish(20)
    assert code == 0 and not theirs["restarts"]
    assert theirs["exit_reason"] == "robot says that its run has ended"
    assert abs(theirs["episodes"] - summary["episodes"]) <= 1, "it counts along"
    for flight in (robot, workstation):
        kinds = [line.split(":")[0] for line in flight.events()]
        assert kinds.count("link up") == 2 and "link lost" in kinds
    assert any("nothing heard for 1 s" in line for line in robot.events())


@pytest.mark.slow
def test_a_robot_behind_the_bridge_recovers_while_the_cable_is_cut(hosts: Hosts) -> None:
    """As in the simulator, but that robot and bridge stop by themselves when no command comes."""
    # At 20 Hz a step is 1 s of the task still. What a busy machine delays is no silence yet, what
    # comes while the cable is cut would be.
    watched_s = {"watchdog_s": 1.0, "command_timeout_s": 1.0}
    options = {"mujoco": {"time_factor": 20, "rate_hz": 20, **watched_s}}
    nodes = {"bridge": {"config": {"options": options, "silence_s": 1.0}}}
    hosts.graph = hosts.folder / "robot.yaml"
    told = {"name": "robot", "include": [str(TWO_HOSTS)], "nodes": nodes}
    hosts.graph.write_text(json.dumps(told))
    robot, workstation = hosts.fly(
        "rate=20", "plant=bridge", "driver=mujoco", "arm=auto", robot=("--episodes", "1000")
    )
    assert robot.pid("bridge") and not workstation.pid("bridge")
    eventually(lambda: robot.node("bridge").get("bridge") == "active", 60.0, "an active robot")
    eventually(lambda: share(watched(robot, 1.0), Source.TASK) > 0.5, 30.0, "the task policy")

    hosts.cable.set(cut=True)
    eventually(lambda: not robot.up and not workstation.up, 15.0, "the loss")
    before = robot.node("bridge")
    watch = Watch(robot)
    time.sleep(3.0)
    watch.stop()
    check(watch)
    for found in (watch.commands, watch.transitions):  # what the arbiter said, what was done
        assert found and share(found, Source.TASK) == 0.0
        assert share(found, Source.RECOVERY, Source.TAIL) > 0.8, "a recovery, not a fail-safe"
    after = robot.node("bridge")
    assert after["bridge"] == before["bridge"] == "active" and after["steps"] > before["steps"]
    hosts.cable.set(cut=False)
    eventually(lambda: robot.up and workstation.up, 15.0, "the link")
    eventually(lambda: share(watched(robot, 1.0), Source.TASK) > 0.5, 15.0, "the task policy")

    robot.process.send_signal(signal.SIGINT)
    code, summary = robot.finish()
    assert code == 130 and not summary["restarts"] and not summary["deaths"]
    assert summary["violations"] == 0 and summary["steps_by_source"]["recovery"] > 0
    code, theirs = workstation.finish(20)
    assert code == 0 and not theirs["restarts"] and not theirs["deaths"]
    lines = robot.out.with_suffix(".log").read_text().splitlines()
    states = [line.partition("bridge: state ")[2] for line in lines if "bridge: state " in line]
    assert [line.split(",")[0] for line in states] == [
        "disconnected -> connected", "connected -> configured", "configured -> active",
        "active -> configured", "configured -> disconnected",
    ], "it was never taken down"  # fmt: skip
    for flight in (robot, workstation):
        kinds = [line.split(":")[0] for line in flight.events()]
        assert kinds.count("link up") == 2 and "link lost" in kinds


@pytest.mark.slow
def test_with_delay_jitter_and_loss_the_task_flies_and_nothing_queues(hosts: Hosts) -> None:
    hosts.cable.set(delay_ms=5, jitter_ms=2, loss=0.01)
    robot, workstation = hosts.fly("rate=20", robot=("--duration", "40"))
    steps = watched(robot, 25.0)
    assert share(steps, Source.TASK) > 0.6
    assert share(steps, Source.FAILSAFE) < 0.05
    link = workstation.node("link")
    assert abs(link["offset_ms"] - 1e3 * AHEAD_S) < link["uncertainty_ms"] + 0.1 < 10
    age = workstation.status("task_policy")["inputs"]["observation"]["age_us"]
    assert age["p50"] < 20_000 and age["p99"] < 500_000, "no queue of old ones"
    code, summary = robot.finish()
    assert code == 0 and summary["violations"] == 0 and not summary["restarts"]


@pytest.mark.slow
def test_a_killed_workstation_is_a_recovery_and_another_takes_its_place(hosts: Hosts) -> None:
    robot, workstation = hosts.fly("rate=20", robot=("--duration", "30"))
    assert share(watched(robot, 1.0), Source.TASK) > 0.5
    pids = workstation.all_pids()
    os.kill(workstation.process.pid, signal.SIGKILL)
    eventually(lambda: not any(alive(pid) for pid in pids), 10.0, "the end of its processes")
    steps = watched(robot, 2.0)
    assert share(steps, Source.TASK) == 0.0
    assert share(steps, Source.RECOVERY, Source.TAIL) > 0.8
    hosts.launch("workstation", "rate=20")
    eventually(lambda: share(watched(robot, 0.5), Source.TASK) > 0.5, 30.0, "the task policy")
    code, summary = robot.finish()
    assert code == 0 and summary["violations"] == 0 and not summary["deaths"]


@pytest.mark.slow
def test_killed_links_come_back_on_either_host(hosts: Hosts) -> None:
    robot, workstation = hosts.fly("rate=20", robot=("--duration", "30"))
    for flight in (robot, workstation):
        pid = flight.pid("link")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda flight=flight, pid=pid: flight.pid("link") not in (pid, None), 15.0)  # type: ignore[misc]
        eventually(lambda: robot.up and workstation.up, 15.0, "the link")
        eventually(lambda: share(watched(robot, 0.5), Source.TASK) > 0.5, 15.0, "the task policy")
    code, summary = robot.finish()
    assert code == 0 and summary["violations"] == 0 and summary["restarts"] == {"link": 1}


@pytest.mark.slow
def test_strangers_on_the_cable_get_nowhere(hosts: Hosts) -> None:
    robot, _ = hosts.fly("rate=20", robot=("--duration", "45"))
    keys.make(hosts.folder / "other", ("robot", "workstation"))
    (hosts.folder / "other" / "robot.public").write_text(
        (hosts.folder / "keys" / "robot.public").read_text()
    )  # the robot's key is public; that of this workstation is not on the robot's list
    stranger = subprocess.Popen(
        [
            *hosts.cable.enter(1), *SAFETYPILOT, "launch", "maze-two-hosts", "rate=20",
            f"keys={hosts.folder / 'other'}", f"address={ROBOT}:{PORT}", "--host", "workstation",
            "--out", str(hosts.folder / "stranger"), "--duration", "5",
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    scan = (
        "import socket\n"
        f"for words in (b'GET / HTTP/1.0\\r\\n\\r\\n', b'', bytes(1000)):\n"
        f"    with socket.create_connection(({ROBOT!r}, {PORT})) as s: s.sendall(words)\n"
    )
    subprocess.run([*hosts.cable.enter(1), sys.executable, "-c", scan], check=True)
    said, _ = stranger.communicate(timeout=30)
    assert "a stranger's key" in said and "link up" not in said
    refused = robot.node("link")["refused_handshakes"]
    assert refused["a stranger's key"] >= 1 and sum(refused.values()) >= 4
    assert share(watched(robot, 1.0), Source.TASK) > 0.5, "undisturbed"
    code, summary = robot.finish()
    assert code == 0 and summary["violations"] == 0


def test_without_a_word_of_the_launch_file_nothing_listens(hosts: Hosts) -> None:
    flight = HostFlight(hosts.folder / "alone")
    try:
        flight.begin(hosts.cable.enter(0), "rate=20", "--duration", "3")
        assert "link" not in flight.run.graph["nodes"]
        eventually(lambda: flight.node("arbiter").get("armed"), 60.0, "an armed arbiter")
        assert listening(flight.process.pid) == set()
        code, summary = flight.finish()
        assert code == 0 and summary["steps"] > 20
    finally:
        flight.close()


@pytest.mark.slow
def test_a_set_of_models_changes_on_both_hosts_at_one_observation(
    hosts: Hosts, tmp_path: Path
) -> None:
    robot, workstation = hosts.fly("rate=20", "policy=novice", robot=("--duration", "60"))
    trained, critic = tmp_path / "trained.onnx", tmp_path / "critic.onnx"
    shutil.copy(ZOO / "trained.onnx", trained)
    shutil.copy(ZOO / "critic.onnx", critic)
    changes = [
        swapping.Change("task_policy", str(trained)),
        swapping.Change("safety_critic", str(critic)),
        swapping.Change("recovery_planner", str(critic), "safety_critic"),
    ]
    done = swapping.swap_set(workstation.ask, "simulator", changes)
    assert done["epoch"] == 1 and robot.node("simulator")["epoch"] == 1
    statuses = [robot.ask(c.node, "swap_status", c.at) for c in changes]
    assert {status["state"] for status in statuses} == {"promoted"}
    assert len({status["promoted_at"] for status in statuses}) == 1, "at one observation"
    arrived = next((robot.out / "models" / "from-workstation").glob("*-critic.onnx"))
    assert arrived.read_bytes() == critic.read_bytes()
    with pytest.raises(KernelError, match="'reset' takes a person on robot"):
        workstation.ask("simulator", "reset", {})
    done = subprocess.run(
        [*SAFETYPILOT, "estop", "--run", workstation.run.run_id, "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    eventually(lambda: robot.node("simulator").get("estop"), 10.0, "the e-stop at the plant")
    assert robot.node("arbiter")["estop"] and robot.run.latch.exists()
    assert share(watched(robot, 1.0), Source.FAILSAFE) == 1.0
