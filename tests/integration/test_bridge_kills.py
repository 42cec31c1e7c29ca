"""kill -9 and SIGSTOP of bridge, arbiter and supervisor: the robot is damped, by its own word.

When the bridge is the victim it is the device's own watchdog that does it, when the arbiter is, the
bridge, which misses its commands; when the supervisor is, the bridge, which misses its heartbeat or
is told by the kernel that it is gone. Times are those of the device's own log. `STRIKES=2` in the
environment makes the slow ones short.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flights import Flight, eventually
from robots_in_flight import ARM, QUADRUPED, Kind, Robot

from safetypilot.bridge.conformance import host
from safetypilot.launch import reaper

pytest.importorskip("dynamixel_sdk")
pytest.importorskip("cyclonedds")
pytestmark = pytest.mark.integration
SUPERVISOR_S = 2.0  # nodes/bridge_config.py, supervisor_s
SLACK_S = 0.05  # of a device that is not kept from a CPU: its own clock, and its host
BUSY_SLACK_S = 1.0  # where the graph has to act, on a machine on which other tests run
BUSY_S = 0.05  # the graph's processes were kept from a CPU for so long: the host was busy
TRIES = 5  # a host that is busy may have stopped the robot before the strike
STRIKES = int(os.environ.get("STRIKES", "20"))  # of the slow tests, each
NODES = ("bridge", "task_policy", "safety_critic", "recovery_planner", "arbiter")

Start = Callable[[Kind], tuple[Robot, Flight]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[tuple[Robot, Flight]] = []

    def begin(kind: Kind) -> tuple[Robot, Flight]:
        folder = tmp_path / str(len(running))
        folder.mkdir()
        robot = Robot(kind, folder)
        flight = Flight(folder / "run")
        running.append((robot, flight))
        flight.start(*kind.graph(robot.ready), nodes=NODES)
        eventually(lambda: state(flight) == "active", 60, "an active robot")
        return robot, flight

    yield begin
    for robot, flight in running:
        flight.close()
        robot.close()


def state(flight: Flight) -> str:
    return str(flight.status("bridge")["node"]["bridge"])


def limit_s(kind: Kind, victim: str, how: signal.Signals) -> float:
    """Within what the robot has to be damped."""
    if victim == "bridge":
        return kind.watchdog_s + SLACK_S
    if victim == "arbiter":
        return kind.timeout_s + kind.watchdog_s + BUSY_SLACK_S
    if how is signal.SIGKILL:  # the bridge goes down gently
        return kind.ramp_s + kind.watchdog_s + BUSY_SLACK_S
    return SUPERVISOR_S + kind.watchdog_s + BUSY_SLACK_S


@dataclass
class Struck:
    """What became of the robot.

    Attributes:
        damped: the device's own word.
        took_s: after the blow at the latest.
        starved_s: process -> for how long it was kept from a CPU meanwhile.
    """

    damped: dict[str, Any]
    took_s: float
    starved_s: dict[str, float]


def strike(
    robot: Robot, flight: Flight, victim: str, how: signal.Signals, wait_s: float
) -> Struck | None:
    """Hits a process at some moment; None: a busy host had been late, and it was stopped already.

    What was frozen goes on afterwards, and may not make the robot active again.
    """
    supervisor = victim == "supervisor"
    pid = flight.process.pid if supervisor else eventually(lambda: flight.pid(victim), 10, victim)
    waited_before_s = waited_s(robot, flight)
    time.sleep(wait_s)
    if state(flight) != "active":
        check_busy(flight, waited_s(robot, flight) - waited_before_s)
        return None
    watched = {"device": robot.process.pid, "bridge": flight.pid("bridge") or 0}
    before_s = {name: host.starved_s(its) for name, its in watched.items()}
    since_ns = time.monotonic_ns()
    os.kill(pid, how)
    at_ns = time.monotonic_ns()  # it lived until then, if this process was kept from a CPU
    starved_s = dict.fromkeys(watched, 0.0)

    def damped() -> list[dict[str, Any]]:
        for name, its in watched.items():
            gained_s = host.starved_s(its) - before_s[name]  # a process that has ended has none
            starved_s[name] = max(starved_s[name], gained_s)
        return robot.of(*robot.kind.stopped, since_ns=since_ns)

    try:
        first = eventually(damped, limit_s(robot.kind, victim, how) + 5.0, "damping")[0]
    finally:
        if how is signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)
    if how is signal.SIGSTOP:
        check_stays_down(robot, flight, first["at_ns"])
    return Struck(first, (first["at_ns"] - at_ns) / 1e9, starved_s)


def waited_s(robot: Robot, flight: Flight) -> float:
    """How long device and graph have been kept from a CPU."""
    return sum(map(host.starved_s, [robot.process.pid, *flight.pids(NODES).values()]))


def check_busy(flight: Flight, kept_s: float) -> None:
    """A robot may be stopped before anybody strikes only where the host can be shown to be late."""
    cause = flight.status("bridge")["node"]["cause"]
    assert kept_s > BUSY_S, f"stopped by itself, {cause}; waited {kept_s:.3f} s for a CPU"
    sys.stdout.write(f"\n  repeated: {cause}; its processes waited {kept_s:.1f} s for a CPU\n")


def check_stays_down(robot: Robot, flight: Flight, since_ns: int) -> None:
    """Neither device nor bridge become active by themselves when the victim goes on."""
    eventually(lambda: state(flight) != "active", 10, "a bridge that knows of it")
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        assert state(flight) in ("fault", "e-stopped")
        time.sleep(0.02)
    assert not robot.of("active", since_ns=since_ns)


def check(kind: Kind, victim: str, how: signal.Signals, struck: Struck) -> None:
    """Whether it was damped in time, and by whom."""
    allowed_s, by_itself = limit_s(kind, victim, how), struck.damped.get("cause") == "silence"
    if victim == "bridge":
        allowed_s += struck.starved_s["device"]
        assert by_itself, struck
    if victim == "supervisor" and how is signal.SIGKILL:
        late = struck.starved_s["bridge"] + struck.starved_s["device"] > kind.watchdog_s / 2
        assert late or not by_itself, f"the bridge did not take the robot down: {struck}"
    assert struck.took_s <= allowed_s, f"{struck}, allowed are {allowed_s:.3f} s"


def land(robot: Robot, flight: Flight) -> None:
    """Ends both; a bridge still on its way down would be a second commander to the next robot."""
    flight.close()
    eventually(lambda: not flight.run.path.exists(), 20, "the end of the run")
    robot.close()


def damped_within(
    start: Start, kind: Kind, victim: str, how: signal.Signals, moment: Callable[[], float]
) -> tuple[float, int]:
    """Flies until a process is hit; after how many seconds it was damped, and how many repeats."""
    for repeats in range(TRIES):
        robot, flight = start(kind)
        struck = strike(robot, flight, victim, how, moment())
        assert not robot.of("keepout")
        land(robot, flight)
        if struck is not None:
            check(kind, victim, how, struck)
            return struck.took_s, repeats
    raise AssertionError("flights that last no second show nothing")


VICTIMS = [(v, s) for v in ("bridge", "arbiter", "supervisor")
           for s in (signal.SIGKILL, signal.SIGSTOP)]  # fmt: skip


@pytest.mark.parametrize("victim", ["bridge", "arbiter"])
def test_the_arm_stops_when_its_last_line_or_its_pilot_is_killed(start: Start, victim: str) -> None:
    damped_within(start, ARM, victim, signal.SIGKILL, lambda: 0.3)


def test_a_bridge_has_time_to_take_the_robot_down_when_the_supervisor_is_killed(
    start: Start,
) -> None:
    ramp_s, watchdog_s = 2.0, 0.5  # longer than other processes have; a busy host is no silence

    def device(folder: Path) -> list[str]:
        return [*QUADRUPED.device(folder), "--timeout", str(watchdog_s)]

    def graph(ready: dict[str, Any]) -> list[str]:
        option = "bridge.options.unitree"
        sets = [f"{option}.ramp_s={ramp_s}", f"{option}.watchdog_s={watchdog_s}"]
        return [*QUADRUPED.graph(ready), *(word for its in sets for word in ("--set", its))]

    slow = replace(QUADRUPED, device=device, graph=graph, ramp_s=ramp_s, watchdog_s=watchdog_s)
    took_s, _ = damped_within(start, slow, "supervisor", signal.SIGKILL, lambda: 0.3)
    assert took_s > ramp_s - 0.1 > reaper.GRACE_S + watchdog_s


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", [ARM, QUADRUPED], ids=lambda kind: kind.name)
@pytest.mark.parametrize(("victim", "how"), VICTIMS, ids=lambda v: getattr(v, "name", v))
def test_twenty_times_at_a_random_moment(
    start: Start, kind: Kind, victim: str, how: signal.Signals
) -> None:
    chance = random.Random(f"{kind.name} {victim} {how}")
    moment = partial(chance.uniform, 0.1, 1.5)
    rows = [damped_within(start, kind, victim, how, moment) for _ in range(STRIKES)]
    took_s, repeats = sorted(took for took, _ in rows), sum(repeats for _, repeats in rows)
    figures = f"median {took_s[STRIKES // 2]:.3f} s, worst {took_s[-1]:.3f} s, repeats {repeats}"
    sys.stdout.write(f"\n{kind.name}, {victim} {how.name}, {STRIKES} times: {figures}\n")
