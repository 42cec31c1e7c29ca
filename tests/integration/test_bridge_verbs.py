"""`safetypilot bridge ...` and a real graph with a simulated robot: armed, taken down, stopped."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flights import SAFETYPILOT, Flight, eventually
from robots_in_flight import ARM, Robot

from safetypilot.nodes.kernel.errors import KernelError

pytestmark = pytest.mark.integration
NODES = ("bridge", "task_policy", "safety_critic", "recovery_planner", "arbiter")


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flight]:
    made = Flight(tmp_path_factory.mktemp("verbs") / "run")
    made.start("maze", "plant=bridge", "arm=manual", "--episodes", "100000", nodes=NODES)
    yield made
    made.close()


def environment(flight: Flight) -> dict[str, str]:
    """In which its run is found: every test has a folder for temporary files of its own."""
    return {**os.environ, "TMPDIR": str(flight.run.path.parents[1])}


def call(flight: Flight, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [*SAFETYPILOT, "bridge", *words, "--run", flight.run.run_id],
        capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL,
        env=environment(flight),
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def state(flight: Flight) -> str:
    return str(flight.status("bridge")["node"]["bridge"])


def is_in(flight: Flight, wanted: str) -> bool:
    """Also while the bridge is not there yet, or not again."""
    try:
        return state(flight) == wanted
    except KernelError:
        return False


def steps(flight: Flight) -> int:
    return int(flight.status("bridge")["node"]["steps"])


def rise(flight: Flight) -> None:
    """Active, from whatever state."""
    if state(flight) in ("e-stopped", "fault"):
        call(flight, "reset", "--reason", "next test")
    if state(flight) in ("connected", "disconnected"):
        call(flight, "configure")
    if state(flight) != "active":
        call(flight, "activate", "--yes")
    assert state(flight) == "active"


def test_nothing_moves_until_somebody_arms_it(flight: Flight) -> None:
    assert state(flight) == "configured" and steps(flight) == 0
    report = json.loads(call(flight, "preflight", "--json"))
    assert report["tested"]["socket"] == "works"
    assert "damped by itself" in report["tested"]["watchdog"]
    text = call(flight, "preflight")
    assert "device's watchdog" in text and "slide_x (m)" in text and "graph" in text
    assert "nobody can be asked here" in call(flight, "activate", code=2)
    call(flight, "activate", "--yes", "--reason", "all clear")
    eventually(lambda: steps(flight) > 20, 30, "steps")


def test_it_is_taken_down_and_armed_again(flight: Flight) -> None:
    rise(flight)
    taken_down = call(flight, "deactivate")
    assert taken_down == "the robot is configured\nnext: safetypilot bridge activate\n"
    assert "cannot deactivate while configured" in call(flight, "deactivate", code=1)
    rise(flight)
    assert "the robot is active" in call(flight, "status")


def test_an_estop_is_latched_until_somebody_says_why(flight: Flight) -> None:
    rise(flight)
    assert "its own line and the graph's" in call(flight, "estop", "--reason", "a hand")
    assert state(flight) == "e-stopped"
    before = steps(flight)
    assert "while e-stopped" in call(flight, "activate", "--yes", code=1)
    time.sleep(0.2)
    assert steps(flight) - before <= 1
    assert "needs a reason" in call(flight, "reset", "--reason", " ", code=1)
    assert "e-stopped: a hand\nnext: safetypilot bridge reset" in call(flight, "status")
    released = call(flight, "reset", "--reason", "no hand")
    assert released == "the robot is connected\nnext: safetypilot bridge configure\n"
    rise(flight)


def test_the_signal_stops_it_from_any_shell(flight: Flight) -> None:
    rise(flight)
    os.kill(flight.pid("bridge") or 0, signal.SIGUSR1)
    eventually(lambda: state(flight) == "e-stopped", 10, "a stop")


def test_a_stop_survives_the_death_of_the_bridge(flight: Flight) -> None:
    rise(flight)
    call(flight, "estop")
    os.kill(flight.pid("bridge") or 0, signal.SIGKILL)
    first = flight.pid("bridge")

    def again() -> bool:
        return flight.pid("bridge") not in (None, first) and is_in(flight, "e-stopped")

    eventually(again, 60, "a bridge that is still e-stopped")
    rise(flight)


def test_a_stop_of_a_real_robot_survives_the_run(tmp_path: Path, state_home: Path) -> None:
    """A simulated chain whose driver is not told so counts as one."""
    pytest.importorskip("dynamixel_sdk")
    robot = Robot(ARM, tmp_path)
    graph = ARM.graph(robot.ready)
    flights = [Flight(tmp_path / "first"), Flight(tmp_path / "second")]
    first, second = flights
    try:
        first.start(*graph, nodes=NODES)
        eventually(lambda: state(first) == "active", 60, "an active robot")
        call(first, "estop", "--reason", "a hand")
        first.process.kill()
        eventually(lambda: not first.run.path.exists(), 20, "the end of the run")
        kept = list(state_home.glob("safetypilot/estop-dynamixel-*"))
        assert len(kept) == 1 and kept[0].parent.stat().st_mode & 0o777 == 0o700
        second.start(*graph, nodes=NODES, armed=False)
        eventually(lambda: is_in(second, "e-stopped"), 60, "a robot that is still stopped")
        assert "while e-stopped" in call(second, "configure", code=1)
        call(second, "reset", "--reason", "no hand")
        assert not kept[0].exists()
        call(second, "configure")
        second.await_armed()
        rise(second)
    finally:
        for flight in flights:
            flight.close()
        robot.close()


class Operator:
    """`safetypilot bridge operator` on a terminal of its own."""

    def __init__(self, flight: Flight) -> None:
        self.terminal, child = pty.openpty()
        self.process = subprocess.Popen(
            [*SAFETYPILOT, "bridge", "operator", "--run", flight.run.run_id],
            stdin=child, stdout=child, stderr=child, env=environment(flight),
        )  # fmt: skip
        os.close(child)
        self.said = ""

    def press(self, key: str) -> None:
        os.write(self.terminal, key.encode())

    def hears(self, text: str) -> None:
        def heard() -> bool:
            self.said += os.read(self.terminal, 4096).decode()
            return text in self.said

        eventually(heard, 30, f"{text!r} on the operator's terminal")

    def close(self) -> int:
        code = self.process.wait(20)
        os.close(self.terminal)
        return code


def test_the_operators_keys(flight: Flight) -> None:
    rise(flight)
    operator = Operator(flight)
    operator.hears("the robot is active")
    operator.press("d")
    operator.hears("the robot is configured")
    operator.press("a")
    eventually(lambda: state(flight) == "active", 20, "an armed robot")
    operator.press(" ")
    operator.hears("STOPPED")
    eventually(lambda: state(flight) == "e-stopped", 10, "a stop")
    operator.press("q")
    assert operator.close() == 0


def test_two_ctrl_c_kill_the_graph_but_take_the_robot_down(tmp_path: Path) -> None:
    flight = Flight(tmp_path / "run")
    try:
        flight.start("maze", "plant=bridge", "--episodes", "100000", nodes=NODES)
        eventually(lambda: state(flight) == "active", 30, "an active robot")
        flight.process.send_signal(signal.SIGINT)
        time.sleep(0.02)
        flight.process.send_signal(signal.SIGINT)
        code, summary = flight.finish()
    finally:
        flight.close()
    said = [entry["text"] for entry in summary["events"] if entry["node"] == "bridge"]
    assert code == 130
    assert any("active -> configured" in text for text in said), said


def test_losing_the_operator_stops_the_robot(tmp_path: Path) -> None:
    flight = Flight(tmp_path / "run")
    try:
        sets = ["--set", "bridge.heartbeat_s=1.0"]
        flight.start("maze", "plant=bridge", *sets, "--episodes", "100000", nodes=NODES)
        time.sleep(0.5)
        assert state(flight) == "configured"  # though it may arm itself, nobody watches
        assert "the operator's heartbeat is missing" in call(flight, "activate", "--yes", code=1)
        operator = Operator(flight)
        eventually(lambda: state(flight) == "active", 30, "an active robot")
        operator.process.kill()
        operator.close()
        eventually(lambda: state(flight) == "e-stopped", 10, "a stop")
        log = tmp_path / "run.log"
        eventually(lambda: "heartbeat is silent" in log.read_text(), 10, "the reason")
    finally:
        flight.close()


def test_without_a_bridge_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done: Any = subprocess.run(
        [*SAFETYPILOT, "bridge", "status"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2 and "no running graph has a bridge" in done.stderr
