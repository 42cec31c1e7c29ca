"""The real-time loop, turn by turn, with real clocks, boards and sockets."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safetypilot.nodes.kernel import board, messages
from safetypilot.nodes.kernel.node import Input, Node, Spec
from safetypilot.nodes.kernel.realtime import RealtimeExecutor
from safetypilot.nodes.kernel.schedule import Granted, Settings
from safetypilot.nodes.kernel.testing import INTERFACE
from safetypilot.nodes.kernel.transport import Endpoints, Inbox, Tap, request
from safetypilot.nodes.kernel.wire import Codec, codecs

MS = 1_000_000


@dataclass(frozen=True)
class Nothing:
    pass


class Clockwork(Node):
    """Counts on by a period each time, whatever the clock says."""

    outputs = ("observation",)
    Config = Nothing

    def activate(self, now_ns: int) -> None:
        self.next_wake_ns = now_ns + self.context.period_ns
        self.calls: list[tuple[int, int]] = []

    def on_timer(self, now_ns: int) -> None:
        due = self.next_wake_ns or 0
        self.calls.append((due, now_ns))
        self.next_wake_ns = due + self.context.period_ns
        values = np.array([len(self.calls), 0], np.float32)
        observation = messages.Observation(len(self.calls), now_ns, now_ns, 0, 0, values)
        self.context.emit("observation", observation)


class Policy(Node):
    """Answers observations; takes commands passively; rehearses by counting."""

    inputs = (Input("observation"), Input("command", wakes=False, optional=True))
    outputs = ("proposal",)
    Config = Nothing
    rehearsed = 0

    def configure(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def on_message(self, topic: str, message: Any, now_ns: int) -> None:
        self.seen.append((topic, message.seq))
        if topic == "observation":
            proposal = messages.Proposal(message.seq, message.stamp_ns, now_ns, message.seq,
                                         np.zeros(2, np.float32), "m")  # fmt: skip
            self.context.emit("proposal", proposal)

    def rehearse(self) -> None:
        self.rehearsed += 1

    def on_request(self, request: str, arguments: dict[str, Any], now_ns: int) -> dict[str, Any]:
        def done(result: Any, now_ns: int) -> None:
            self.seen.append((result, 0))

        self.context.background(lambda: "worked", done)
        return {}


class Bench:
    """Executors on a bench: made of node classes, turned by hand, ended with the test."""

    def __init__(self, root: Path) -> None:
        self.endpoints = Endpoints(root)
        self.endpoints.make()
        self.inbox = Inbox(self.endpoints)
        self.executors: list[RealtimeExecutor] = []
        self._fds: list[int] = []

    def board(self, topic: str, frame_bytes: int = 4096) -> int:
        self._fds.append(board.create(topic, frame_bytes))
        return self._fds[-1]

    def start(
        self, *crew: tuple[type[Node], dict[str, Any]], period_ns: int = 5 * MS, **settings: Any
    ) -> RealtimeExecutor:
        root = str(self.endpoints.root)
        made = []
        for cls, extra in crew:
            spec = Spec(cls.__name__.lower(), "x:y", {}, INTERFACE.to_dict(), period_ns, 0, root,
                        root, **{"absent": ["command"], **extra})  # fmt: skip
            made.append((cls, spec, Nothing()))
        executor = RealtimeExecutor(made, Granted(Settings(**settings)))
        for station in executor.stations:
            station.node.configure()
            station._answer("activate", {})
        self.executors.append(executor)
        return executor

    def close(self) -> None:
        for executor in self.executors:
            for station in executor.stations:
                station.finish()
            executor._zmq.destroy(0)
        self.inbox.close()
        for fd in self._fds:
            os.close(fd)


@pytest.fixture
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("r"))
    yield made
    made.close()


def turn_until(executor: RealtimeExecutor, done: Callable[[], Any], within_s: float = 10.0) -> None:
    end = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < end, "did not come about in time"
        executor.turn()


def test_timers_come_at_their_times_and_never_before(bench: Bench) -> None:
    executor = bench.start((Clockwork, {}), period_ns=2 * MS)
    node: Any = executor.stations[0].node
    turn_until(executor, lambda: len(node.calls) >= 20)
    assert all(called >= due for due, called in node.calls)
    dues = [due for due, _ in node.calls]
    grid = {(due - dues[0]) % (2 * MS) for due in dues}
    assert grid == {0}, "absolute times do not drift"


def test_after_a_long_delay_periods_are_skipped_not_caught_up(bench: Bench) -> None:
    executor = bench.start((Clockwork, {}), period_ns=5 * MS)
    node: Any = executor.stations[0].node
    turn_until(executor, lambda: len(node.calls) >= 2)
    time.sleep(0.1)  # twenty periods
    turn_until(executor, lambda: len(node.calls) >= 4)
    status = executor.stations[0].status(time.monotonic_ns())
    assert status["skipped_timers"] >= 18
    assert status["late_timers"] >= 1
    late, following = node.calls[2], node.calls[3]
    assert late[1] - late[0] > 90 * MS
    assert following[0] > late[1], "the next call is due after the late one, not before it"
    assert (following[0] - late[0]) % (5 * MS) == 0


def test_a_message_ends_the_sleep_and_passive_ones_wait_for_it(bench: Bench) -> None:
    boards = {"observation": bench.board("observation"), "command": bench.board("command")}
    places, bell = {"observation": 0, "command": 0}, board.create_bell()
    extra = {"boards": boards, "places": places, "bell": bell, "absent": []}
    executor = bench.start((Policy, extra))
    node: Any = executor.stations[0].node
    turn_until(executor, lambda: executor._look_after_ns > time.monotonic_ns() + 300 * MS)
    codec = codecs(INTERFACE.dims)
    write = {name: board.BoardWriter(fd, [bell]).write for name, fd in boards.items()}
    zeros = np.zeros(2, np.float32)
    command = messages.Command(7, 2, 3, zeros, 0, 0, 0, zeros, 0.0, 5, False, "m")
    write["command"](codec[messages.Command].encode(command))
    assert not select.select([bell], [], [], 0)[0]
    observation = messages.Observation(8, 2, 3, 0, 0, zeros)
    threading.Timer(
        0.02, lambda: write["observation"](codec[messages.Observation].encode(observation))
    ).start()
    begin = time.monotonic()
    turn_until(executor, lambda: len(node.seen) == 2)
    assert time.monotonic() - begin < 0.25, "it slept on until its housekeeping"
    assert node.seen == [("observation", 8), ("command", 7)]
    os.close(bell)


def test_requests_are_answered_between_turns(bench: Bench) -> None:
    executor = bench.start((Policy, {}))
    got: list[Any] = []
    asking = threading.Thread(
        target=lambda: got.append(request(bench.endpoints, "policy", "status"))
    )
    asking.start()
    turn_until(executor, lambda: got)
    asking.join()
    assert got[0]["pid"] == os.getpid()


def test_background_work_ends_the_sleep_when_it_is_done(bench: Bench) -> None:
    executor = bench.start((Policy, {}))
    node: Any = executor.stations[0].node
    turn_until(executor, lambda: executor._look_after_ns > time.monotonic_ns() + 300 * MS)
    begin = time.monotonic()
    node.on_request("work", {}, 0)
    turn_until(executor, lambda: node.seen)
    assert node.seen == [("worked", 0)]
    assert time.monotonic() - begin < 0.25


def test_observers_see_what_passes_and_cost_nothing_when_gone(bench: Bench) -> None:
    fd = bench.board("observation")
    executor = bench.start((Clockwork, {"boards": {"observation": fd}}), period_ns=MS)
    outlet = executor.stations[0].outlets["observation"][0]
    assert not outlet.writer.wanted  # no reader, no observer: not even encoded
    tap = Tap(bench.endpoints, "observation")
    turn_until(executor, lambda: outlet.writer.wanted)
    frames: list[bytes] = []

    def heard() -> bool:
        if frame := tap.receive(0):
            frames.append(frame)
        return len(frames) >= 3

    turn_until(executor, heard)
    decode = Codec(messages.Observation, INTERFACE.dims).decode
    numbers = [decode(frame).seq for frame in frames]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    tap.close()
    turn_until(executor, lambda: not outlet.writer.wanted)


def test_a_step_is_rehearsed_once_shortly_before_it_is_due(bench: Bench) -> None:
    fd, bell = bench.board("observation"), board.create_bell()
    extra = {"boards": {"observation": fd}, "places": {"observation": 0}, "bell": bell}
    executor = bench.start((Policy, extra), period_ns=100 * MS, rehearse_us=40_000)
    node: Any = executor.stations[0].node
    write = board.BoardWriter(fd, [bell]).write
    stamp = time.monotonic_ns()
    observation = messages.Observation(1, stamp, stamp, 0, 0, np.zeros(2, np.float32))
    write(Codec(messages.Observation, INTERFACE.dims).encode(observation))
    turn_until(executor, lambda: node.rehearsed)
    assert time.monotonic_ns() >= stamp + 60 * MS
    turn_until(executor, lambda: time.monotonic_ns() > stamp + 200 * MS)
    assert node.rehearsed == 1, "once per step, also when none follows"
    assert node.seen == [("observation", 1)], "nothing came of it"
    os.close(bell)


def test_nodes_of_one_process_hand_over_in_memory_on_the_same_turn(bench: Bench) -> None:
    fd = bench.board("proposal")
    outside = board.BoardReader(fd, 0, wakes=False)
    boards = {"boards": {"proposal": fd}, "bells": {"proposal": [board.create_bell()]}}
    executor = bench.start((Clockwork, {}), (Policy, boards), period_ns=2 * MS)
    clockwork, policy = (station.node for station in executor.stations)
    decode = Codec(messages.Proposal, INTERFACE.dims).decode
    for number in range(1, 6):
        turn_until(executor, lambda number=number: len(clockwork.calls) >= number)  # type: ignore[attr-defined,misc]
        assert policy.seen[-1] == ("observation", number)  # type: ignore[attr-defined]
        frame = outside.receive()
        assert frame is not None, "readers in other processes get it as well"
        assert decode(frame).seq == number
    healths = executor.stations[1].status(time.monotonic_ns())["inputs"]
    assert healths["observation"]["received"] == 5
