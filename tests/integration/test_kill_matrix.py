"""kill -9 of any one process: the plant stays under command, the node comes back, exit 0."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from flights import NODES, Flight, alive, eventually

from safetypilot.policies.shield import Source

Fly = Callable[..., Flight]
pytestmark = pytest.mark.integration
PERIOD_NS = 40_000_000


class Watch:
    """Collects transitions and commands of a run while something is done to it."""

    def __init__(self, flight: Flight) -> None:
        self.transitions: list[Any] = []
        self.commands: list[Any] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._collect, args=(flight, "transition", self.transitions)),
            threading.Thread(target=self._collect, args=(flight, "command", self.commands)),
        ]
        for thread in self._threads:
            thread.start()

    def _collect(self, flight: Flight, topic: str, into: list[Any]) -> None:
        receive = flight.tap(topic)
        while not self._stop.is_set():
            message = receive(0.1)
            if message is not None:
                into.append(message)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def check_invariants(watch: Watch) -> None:
    """No step that reached the plant breaks an invariant of DESIGN 6."""
    low, high = np.float32(-0.1) - 1e-6, np.float32(0.1) + 1e-6
    seqs = [t.seq for t in watch.transitions]
    assert seqs == sorted(set(seqs)), "a step was executed twice or out of order"
    for step in watch.transitions:
        assert np.isfinite(step.executed).all()
        assert (step.executed >= low).all() and (step.executed <= high).all()
        assert step.source in set(Source)
        if step.source == Source.FAILSAFE:
            assert not step.executed.any()
        if step.source == Source.TASK:  # only ever the very proposal that was approved
            assert np.array_equal(step.executed, step.proposed)
    for command in watch.commands:
        if command.source == Source.TASK:
            assert command.risk <= 0.15
        if command.source != Source.FAILSAFE:  # which is good whatever was seen, and when
            assert command.valid_until_ns <= command.stamp_ns + PERIOD_NS


def kill_one(flight: Flight, node: str, moment: random.Random) -> None:
    """Kills a node at a random moment and waits until it serves again."""
    pid = eventually(lambda: flight.pid(node), 10, f"the process of {node}")
    time.sleep(moment.random() * 0.1)
    killed_ns = time.monotonic_ns()
    watch = Watch(flight)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: (flight.pid(node) or pid) != pid, 15, f"another process of {node}")
    eventually(lambda: served(watch, killed_ns), 15, "steps under command again")
    watch.stop()
    check_invariants(watch)
    if node in ("task_policy", "safety_critic"):
        react(watch, killed_ns)


def served(watch: Watch, since_ns: int) -> bool:
    """Whether the task policy flies again."""
    return any(t.source == Source.TASK and t.stamp_ns > since_ns + 4 * PERIOD_NS
               for t in watch.transitions)  # fmt: skip


def react(watch: Watch, killed_ns: int) -> None:
    """Within two control periods of the kill, what goes out is no longer the task policy's."""
    late = [
        c for c in watch.commands
        if killed_ns + 2 * PERIOD_NS < c.sent_ns < killed_ns + 5 * PERIOD_NS
    ]  # fmt: skip
    assert all(c.source != Source.TASK for c in late)


def test_a_killed_node_costs_performance_and_never_safety(fly: Fly) -> None:
    flight = fly("maze", "rate=25", "--duration", "24", "--seed", "5")
    for node in NODES:
        kill_one(flight, node, random.Random(node))
    code, summary = flight.finish()
    assert code == 0
    assert summary["restarts"] == dict.fromkeys(NODES, 1)
    assert summary["violations"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("node", NODES)
def test_twenty_kills_of_each_node(node: str, fly: Fly) -> None:
    flight = fly("maze", "rate=25", "--duration", "240", "--seed", "6")
    moment = random.Random(node)
    for _ in range(20):
        kill_one(flight, node, moment)
        time.sleep(1.0 + moment.random())
    code, summary = flight.finish(280)
    assert code == 0
    assert summary["restarts"] == {node: 20}


def test_a_stopped_node_is_bridged_and_picked_up_again(fly: Fly) -> None:
    flight = fly("maze", "rate=25", "--duration", "12", "--seed", "5")
    for node in ("task_policy", "safety_critic", "recovery_planner", "arbiter"):
        pid = flight.pid(node)
        assert pid is not None
        watch = Watch(flight)
        stopped_ns = time.monotonic_ns()
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(pid, signal.SIGCONT)
        resumed_ns = time.monotonic_ns()
        eventually(partial(served, watch, resumed_ns), 10, "steps under command again")
        watch.stop()
        check_invariants(watch)
        if node in ("task_policy", "safety_critic"):
            react(watch, stopped_ns)
    assert flight.finish()[0] == 0


def test_killing_the_supervisor_leaves_no_process(fly: Fly) -> None:
    flight = fly("maze", "--duration", "60")
    pids = flight.pids()
    assert set(pids) == set(NODES)
    flight.process.kill()
    flight.process.wait()
    eventually(lambda: not any(alive(pid) for pid in pids.values()), 2.0, "the end of all nodes")
    eventually(lambda: not flight.run.path.exists(), 3.0, "the end of the runtime directory")


def test_an_estop_survives_the_death_of_the_arbiter_and_ends_only_by_reset(fly: Fly) -> None:
    flight = fly("maze", "rate=25", "--duration", "10")
    flight.run.latch.write_text("{}")  # as `safetypilot estop` does, together with the request
    flight.ask("arbiter", "estop", {"reason": "test"})
    pid = flight.pid("arbiter")
    assert pid is not None
    watch = Watch(flight)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: (flight.pid("arbiter") or pid) != pid, 10, "another arbiter")
    time.sleep(1.5)
    watch.stop()
    assert watch.transitions and all(t.source == Source.FAILSAFE for t in watch.transitions)
    flight.ask("arbiter", "reset", {"reason": "test"})
    watch = Watch(flight)
    eventually(lambda: served(watch, time.monotonic_ns() - 10**9), 5, "the task policy")
    watch.stop()
    assert flight.finish()[0] == 0
