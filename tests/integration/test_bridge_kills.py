"""kill -9 and SIGSTOP of bridge, arbiter and supervisor: the robot is damped, by its own word.

When the bridge is the victim it is the device's own watchdog that does it, when the arbiter is, the
bridge, which misses its commands; when the supervisor is, the bridge, which misses its heartbeat or
is told by the kernel that it is gone. Times are those of the device's own log.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from flights import Flight, eventually
from robots_in_flight import ARM, QUADRUPED, Kind, Robot

pytest.importorskip("dynamixel_sdk")
pytest.importorskip("cyclonedds")
pytestmark = pytest.mark.integration
SUPERVISOR_S = 2.0  # nodes/bridge_config.py, supervisor_s
SLACK_S = 1.0  # of a machine on which other tests run; every other term is declared
TRIES = 5  # a machine that is late may have stopped the robot before the strike
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
        return kind.watchdog_s
    if victim == "arbiter":
        return kind.timeout_s + kind.watchdog_s
    if how is signal.SIGKILL:  # the bridge goes down gently, or is ended after 1 s
        return 1.0 + kind.ramp_s + kind.watchdog_s
    return SUPERVISOR_S + kind.watchdog_s


def strike(
    robot: Robot, flight: Flight, victim: str, how: signal.Signals, wait_s: float
) -> float | None:
    """Hits a process at some moment; after how many seconds the robot was damped.

    None: a busy machine had been late, and the robot was stopped already.
    """
    supervisor = victim == "supervisor"
    pid = flight.process.pid if supervisor else eventually(lambda: flight.pid(victim), 10, victim)
    time.sleep(wait_s)
    if state(flight) != "active":
        return None
    at_ns = time.monotonic_ns()
    os.kill(pid, how)
    allowed_s = limit_s(robot.kind, victim, how) + SLACK_S
    try:
        damped = robot.damped(at_ns, allowed_s + 5.0)
    finally:
        if how is signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)
    took_s = (damped["at_ns"] - at_ns) / 1e9
    assert took_s <= allowed_s
    if victim == "bridge":
        assert damped["cause"] == "silence"
    return float(took_s)


def damped_within(
    start: Start, kind: Kind, victim: str, how: signal.Signals, moment: Callable[[], float]
) -> float:
    """Flies until a process is hit; after how many seconds the robot was damped."""
    for _ in range(TRIES):
        robot, flight = start(kind)
        damped_s = strike(robot, flight, victim, how, moment())
        assert not robot.of("keepout")
        flight.close()
        robot.close()
        if damped_s is not None:
            return damped_s
    raise AssertionError("flights that last no second show nothing")


VICTIMS = [(v, s) for v in ("bridge", "arbiter", "supervisor")
           for s in (signal.SIGKILL, signal.SIGSTOP)]  # fmt: skip


@pytest.mark.parametrize("victim", ["bridge", "arbiter"])
def test_the_arm_stops_when_its_last_line_or_its_pilot_is_killed(start: Start, victim: str) -> None:
    assert damped_within(start, ARM, victim, signal.SIGKILL, lambda: 0.3) > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", [ARM, QUADRUPED], ids=lambda kind: kind.name)
@pytest.mark.parametrize(("victim", "how"), VICTIMS, ids=lambda v: getattr(v, "name", v))
def test_twenty_times_at_a_random_moment(
    start: Start, kind: Kind, victim: str, how: signal.Signals
) -> None:
    chance = random.Random(f"{kind.name} {victim} {how}")
    moment = partial(chance.uniform, 0.1, 1.5)
    took_s = sorted(damped_within(start, kind, victim, how, moment) for _ in range(20))
    worst = f"median {took_s[10]:.3f} s, worst {took_s[-1]:.3f} s"
    sys.stdout.write(f"\n{kind.name}, {victim} {how.name}: {worst}\n")
