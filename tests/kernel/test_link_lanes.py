"""What crosses a link: of values the newest, of streams everything, never a queue of old ones."""

from __future__ import annotations

import heapq
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.nodes.kernel.link_frames import Kind
from safetypilot.nodes.kernel.link_lanes import STREAM_WINDOW, LatestOut, StreamIn, StreamOut
from safetypilot.nodes.kernel.link_traffic import Traffic

MS = 1_000_000
SMALL, BIG = 100, 50_000  # bytes


class Wire:
    """What was sent and has not arrived."""

    def __init__(self) -> None:
        self.flying: list[tuple[int, bytes]] = []
        self.room = 1 << 30

    def send(self, topic: str, number: int, frame: bytes) -> bool:
        if len(self.flying) >= self.room:
            return False
        self.flying.append((number, frame))
        return True


@given(st.lists(st.sampled_from(["put", "arrive", "acknowledge", "no room", "room"]), max_size=80))
def test_values_arrive_in_order_few_are_under_way_and_the_newest_always_comes(
    steps: list[str],
) -> None:
    out, wire = LatestOut("observation", 20 * MS), Wire()
    put, arrived = 0, [0]
    for step in steps:
        if step == "put":
            put += 1
            out.put(b"%d" % put)
        elif step == "arrive" and wire.flying:
            arrived.append(int(wire.flying.pop(0)[1]))
        elif step == "acknowledge":
            out.acknowledge(out.sent - len(wire.flying))
        elif "room" in step:
            wire.room = 0 if step == "no room" else 1 << 30
        out.pump(wire.send, MS)
        assert len(wire.flying) <= out.window(1, MS) == 2
    wire.room = 1 << 30
    for _ in range(3):
        arrived += [int(frame) for _, frame in wire.flying]
        wire.flying.clear()
        out.acknowledge(out.sent)
        out.pump(wire.send, MS)
    assert arrived == sorted(set(arrived)) and arrived[-1] == put
    assert out.sent + out.overtaken == put


@pytest.mark.parametrize(
    ("size", "round_trip_ms", "most"),
    [(SMALL, 0, 2), (BIG, 0, 1), (SMALL, 10, 2), (SMALL, 20, 3), (BIG, 30, 3), (SMALL, 10_000, 8)],
)
def test_as_many_are_under_way_as_the_way_is_long(size: int, round_trip_ms: int, most: int) -> None:
    assert LatestOut("observation", 20 * MS).window(size, round_trip_ms * MS) == most


def test_after_a_cut_nothing_old_is_sent() -> None:
    out, wire = LatestOut("observation", 20 * MS), Wire()
    for number in range(6):
        out.put(b"%d" % number)
        out.pump(wire.send, 0)
    assert [frame for _, frame in wire.flying] == [b"0", b"1"] and out.overtaken == 3
    out.restart()
    wire.flying.clear()
    out.pump(wire.send, 0)
    assert not wire.flying
    out.put(b"new")
    out.pump(wire.send, 0)
    assert wire.flying == [(3, b"new")]


def test_an_acknowledgement_of_what_was_never_sent_gives_no_credit() -> None:
    out, wire = LatestOut("observation", 20 * MS), Wire()
    for number in (b"a", b"b"):
        out.put(number)
        out.pump(wire.send, 0)
    out.acknowledge(99)
    out.put(b"c")
    out.pump(wire.send, 0)
    assert len(wire.flying) == 2


@settings(deadline=None)
@given(st.lists(st.sampled_from(["put", "arrive", "acknowledge", "cut", "no room", "room"])))
def test_a_stream_comes_whole_and_once_however_often_the_line_is_cut(steps: list[str]) -> None:
    out, incoming, wire = StreamOut("transition"), StreamIn(), Wire()
    put, got = 0, []

    def arrive() -> None:
        number, frame = wire.flying.pop(0)
        if incoming.take(number):
            got.append(int(frame))

    for step in steps:
        if step == "put":
            put += 1
            out.put(b"%d" % put)
        elif step == "arrive" and wire.flying:
            arrive()
        elif step == "acknowledge" and incoming.taken is not None:
            out.acknowledge(incoming.taken)
        elif step == "cut":
            wire.flying.clear()
            out.restart(incoming.taken)
        elif "room" in step:
            wire.room = 1 if step == "no room" else 1 << 30
        out.pump(wire.send)
        assert len(wire.flying) <= STREAM_WINDOW
    wire.room = 1 << 30
    while wire.flying or out.waiting:
        if wire.flying:
            arrive()
        out.acknowledge(incoming.taken or 0)
        out.pump(wire.send)
    assert got == list(range(1, put + 1))
    assert out.waiting == out.dropped == incoming.lost == 0


def test_a_stream_that_nobody_takes_drops_the_oldest_and_both_ends_count() -> None:
    out, incoming, wire = StreamOut("transition", backlog=10), StreamIn(), Wire()
    incoming.take(1)
    out.taken = 1
    for number in range(2, 27):  # 25 messages while the line is cut
        out.put(b"%d" % number)
    assert (out.waiting, out.dropped) == (10, 15)
    out.restart(incoming.taken)
    out.pump(wire.send)
    numbers = [number for number, frame in wire.flying if number == int(frame)]
    assert numbers == list(range(17, 27))
    assert all(incoming.take(number) for number in numbers)
    assert incoming.lost == 15


def test_of_a_stream_only_what_was_sent_can_be_acknowledged() -> None:
    out, wire = StreamOut("transition"), Wire()
    for number in range(200):
        out.put(b"%d" % number)
    out.pump(wire.send)
    assert len(wire.flying) == STREAM_WINDOW
    out.acknowledge(199)
    out.acknowledge(-5)
    assert (out.taken, out.waiting) == (0, 200)
    out.acknowledge(STREAM_WINDOW)
    assert (out.taken, out.waiting) == (STREAM_WINDOW, 200 - STREAM_WINDOW)


def test_what_comes_twice_is_taken_once() -> None:
    incoming = StreamIn()
    assert [incoming.take(number) for number in (4, 5, 5, 3, 6)] == [True, True, False, False, True]
    assert incoming.lost == 0


def test_of_a_stream_so_much_is_under_way_and_one_large_message_still_goes() -> None:
    out, wire = StreamOut("episode"), Wire()
    for size in (2 << 20, 600_000, 300_000, 300_000):
        out.put(bytes(size))
    out.pump(wire.send)
    assert len(wire.flying) == 1, "larger than the window, so it goes alone"
    out.acknowledge(1)
    out.pump(wire.send)
    assert len(wire.flying) == 1 + 2


def test_after_a_restart_of_the_other_end_what_was_not_acknowledged_comes_again() -> None:
    out, wire = StreamOut("transition"), Wire()
    for number in range(1, 6):
        out.put(b"%d" % number)
    out.pump(wire.send)
    out.acknowledge(2)
    wire.flying.clear()
    out.restart(None)
    out.pump(wire.send)
    fresh = StreamIn()
    assert [n for n, _ in wire.flying if fresh.take(n)] == [3, 4, 5] and fresh.lost == 0


class Network:
    """Two ends of traffic in virtual time: a way of some length and width, frames one by one.

    Args:
        delay_ns: of each way.
        bytes_per_s: how fast frames get on the way; they queue for it.
    """

    def __init__(self, delay_ns: int, bytes_per_s: float, period_ns: int) -> None:
        self.now_ns = 0
        self._delay_ns, self._rate = delay_ns, bytes_per_s
        self._free_ns = {"out": 0, "back": 0}
        self._events: list[tuple[int, int, str, tuple[Any, ...]]] = []
        self._count = 0
        here = {"values": {"observation": period_ns}, "streams": ["transition"]}
        self.out = Traffic(
            here["values"],
            here["streams"],
            (),
            (),
            self._say("out"),
            5 * MS,
            self._clock,  # type: ignore[arg-type]
        )
        self.back = Traffic(
            {}, (), ["observation"], ["transition"], self._say("back"), 5 * MS, self._clock
        )
        self.ages: list[int] = []
        self.stream: list[bytes] = []

    def _clock(self) -> int:
        return self.now_ns

    def _say(self, way: str) -> Any:
        def say(kind: Kind, *fields: Any) -> bool:
            size = sum(len(f) for f in fields if isinstance(f, bytes)) + 50
            begin = max(self.now_ns, self._free_ns[way])
            self._free_ns[way] = begin + int(size / self._rate * 1e9)
            self.at(self._free_ns[way] + self._delay_ns, way, (kind, fields))
            return True

        return say

    def at(self, time_ns: int, what: str, data: tuple[Any, ...] = ()) -> None:
        self._count += 1
        heapq.heappush(self._events, (time_ns, self._count, what, data))

    def run(self, until_ns: int) -> None:
        trip_ns = 2 * self._delay_ns
        while self._events and self._events[0][0] <= until_ns:
            self.now_ns, _, what, data = heapq.heappop(self._events)
            if what == "put":
                topic, size = data
                self.out.put(topic, b"%020d" % self.now_ns + bytes(size), True)
            elif what == "out":
                newest: dict[str, bytes] = {}
                for _, frame in self.back.take(data[0], list(data[1]), newest):
                    self.stream.append(frame)
                self.ages += [self.now_ns - int(frame[:20]) for frame in newest.values()]
                self.at(self.back.due_ns(1 << 62), "due")
            elif what == "back":
                self.out.take(data[0], list(data[1]), {})
            self.back.acknowledge(self.now_ns)
            self.out.pump(trip_ns)


@pytest.mark.parametrize(
    ("delay_ms", "bytes_per_s", "size", "oldest_ms"),
    [
        (0.2, 1e8, SMALL, 1),  # a cable
        (50, 1e8, SMALL, 51),  # far away: as old as the way is long, at the full rate
        (0.2, 1e6, 50_000, 110),  # images through a thin line: one under way, one that waits
        (5, 2e5, 5_000, 120),
    ],
)
def test_a_slow_line_makes_values_rarer_and_never_older(
    delay_ms: float, bytes_per_s: float, size: int, oldest_ms: float
) -> None:
    network = Network(int(delay_ms * MS), bytes_per_s, 20 * MS)
    for number in range(500):
        network.at(number * 20 * MS, "put", ("observation", size))
    network.run(10_000 * MS)
    assert max(network.ages) <= oldest_ms * MS
    takes_ms = max(20, (size + 70) / bytes_per_s * 1e3)
    assert len(network.ages) >= 0.7 * 10_000 / (takes_ms + (2 * delay_ms if size > 16_384 else 0))


def test_a_stream_through_the_same_line_comes_whole() -> None:
    network = Network(5 * MS, 1e5, 20 * MS)
    for number in range(300):
        network.at(number * 20 * MS, "put", ("transition", 200))
        network.at(number * 20 * MS, "put", ("observation", SMALL))
    network.run(30_000 * MS)
    stamps = [int(frame[:20]) for frame in network.stream]
    assert stamps == [number * 20 * MS for number in range(300)]


def test_what_was_taken_is_acknowledged_once_with_a_value_or_after_a_while() -> None:
    said: list[tuple[Any, ...]] = []
    now = [0]
    traffic = Traffic(
        {"proposal": MS}, (), ["observation"], (),
        lambda *words: bool(said.append(words)) or True, 5 * MS, lambda: now[0],
    )  # fmt: skip
    traffic.take(Kind.LATEST, ["observation", 1, b"x", {}], {})
    traffic.put("proposal", b"answer", True)
    traffic.pump(0)
    assert said == [(Kind.LATEST, "proposal", 1, b"answer", {"observation": 1})]
    now[0] = 10 * MS
    traffic.acknowledge(now[0])
    assert len(said) == 1 and traffic.due_ns(99) == 99
    traffic.take(Kind.LATEST, ["observation", 2, b"x", {}], {})
    assert traffic.due_ns(1 << 62) == 15 * MS
    traffic.acknowledge(14 * MS)
    assert len(said) == 1, "it may yet go with a value"
    traffic.acknowledge(15 * MS)
    assert said[1:] == [(Kind.TAKEN, {"observation": 2})]


def test_of_what_came_at_once_the_newest_counts_and_another_process_counts_anew() -> None:
    traffic = Traffic({}, (), ["risk"], ["episode"], lambda *_: True, MS, lambda: 0)
    newest: dict[str, bytes] = {}
    for number in (1, 2, 3):
        traffic.take(Kind.LATEST, ["risk", number, b"%d" % number, {}], newest)
        assert traffic.take(Kind.STREAM, ["episode", number, b"e"], newest) == [("episode", b"e")]
    assert newest == {"risk": b"3"} and traffic.taken() == {"episode": 3}
    traffic.restart({}, known=True)
    assert traffic.take(Kind.STREAM, ["episode", 3, b"e"], newest) == [], "it has come before"
    traffic.restart(None, known=False)
    assert traffic.take(Kind.STREAM, ["episode", 1, b"e"], newest) == [("episode", b"e")]


def test_what_does_not_belong_here_is_counted_and_not_taken() -> None:
    said: list[Any] = []
    traffic = Traffic(
        {"proposal": MS}, (), ["observation"], ["episode"],
        lambda *words: bool(said.append(words)) or True, MS, lambda: 0,
    )  # fmt: skip
    newest: dict[str, bytes] = {}
    assert traffic.take(Kind.LATEST, ["command", 1, b"x", {}], newest) == []
    assert traffic.take(Kind.LATEST, ["episode", 1, b"x", {}], newest) == []
    assert traffic.take(Kind.STREAM, ["observation", 1, b"x"], newest) == []
    assert traffic.take(Kind.TAKEN, [{"nothing": 5, "proposal": "many"}], newest) == []
    assert traffic.foreign == 3 and not newest
    traffic.acknowledge(10 * MS)
    assert not said, "nothing was taken"
