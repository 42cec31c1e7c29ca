"""Two links in conversation, in virtual time, over lines that delay, lose and are cut."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.nodes.kernel.link_frames import NOW, Kind, pack
from safetypilot.nodes.kernel.link_talk import Me, Talk

MS = 1_000_000
SILENCE_NS = 1_000 * MS


class End:
    """One host: its talk, its clock, and what it has told."""

    def __init__(self, world: World, name: str, peer: str, process: int, **changes: Any) -> None:
        self.world, self.process, self.offset_ns = world, process, 0
        me = Me(name, peer, f"{name}-run", process, "graph", name == "workstation", SILENCE_NS)
        self.taken = {"transition": process}
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.begun: list[tuple[Any, bool]] = []
        self.ended: list[tuple[str, bool]] = []
        self.renewed = 0
        self.data: list[list[Any]] = []
        self.alive = True
        self.talk = Talk(
            me._replace(**changes), self._send, self._renew, lambda: self.taken,
            self._begin,
            lambda reason, goodbye: self.ended.append((reason, goodbye)),
            lambda kind, **data: self.told.append((kind, data)), self.now_ns,
        )  # fmt: skip

    def _begin(self, taken: Any, known: bool) -> None:
        self.begun.append((taken, known))
        if not known:
            self.taken = {}

    def now_ns(self) -> int:
        return self.world.now_ns + self.offset_ns

    def _send(self, process: int, lane: bytes, frame: bytes) -> bool:
        return self.world.send(self, process, frame)

    def _renew(self) -> None:
        self.renewed += 1

    def take(self, sender: int, frame: bytes) -> None:
        """As the socket does: who calls is known by its process, who is called by 0."""
        got = self.talk.take(sender, frame, self.now_ns())
        if got is not None:
            self.data.append([got[0], *got[1]])

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.told]


class World:
    """Time, and the lines between a robot and those who call it."""

    def __init__(self, seed: int = 0, delay_ms: tuple[float, float] = (0.1, 0.3)) -> None:
        self.now_ns = 10**15
        self.random = random.Random(seed)
        self.delay_ms, self.loss = delay_ms, 0.0
        self.cut = False
        self.robot = End(self, "robot", "workstation", 11)
        self.callers: list[End] = []
        self._queue: list[tuple[int, int, End, int, bytes]] = []
        self._count = 0
        self._last: dict[tuple[int, int], int] = {}

    def caller(self, process: int = 22, **changes: Any) -> End:
        self.callers.append(End(self, "workstation", "robot", process, **changes))
        return self.callers[-1]

    def send(self, sender: End, process: int, frame: bytes) -> bool:
        if sender is self.robot:
            found = [end for end in self.callers if end.process == process and end.alive]
            if not found:
                return False
            to, known = found[0], 0
        else:
            to, known = self.robot, sender.process
        if self.cut or self.random.random() < self.loss:
            return True
        at = self.now_ns + int(self.random.uniform(*self.delay_ms) * MS)
        way = (sender.process, to.process)
        at = self._last[way] = max(at, self._last.get(way, 0) + 1)  # TCP keeps the order
        self._count += 1
        heapq.heappush(self._queue, (at, self._count, to, known, frame))
        return True

    def run(self, duration_ms: float) -> None:
        end = self.now_ns + int(duration_ms * MS)
        while self.now_ns < end:
            ends = [self.robot, *(e for e in self.callers if e.alive)]
            due = min(e.talk.next_ns - e.offset_ns for e in ends if e.alive)
            if self._queue:
                due = min(due, self._queue[0][0])
            self.now_ns = max(self.now_ns + 1000, min(due, end))
            while self._queue and self._queue[0][0] <= self.now_ns:
                _, _, to, known, frame = heapq.heappop(self._queue)
                if to.alive:
                    to.take(known, frame)
            for one in ends:
                if one.alive and one.now_ns() >= one.talk.next_ns:
                    one.talk.tick(one.now_ns())


@pytest.fixture
def world() -> Iterator[World]:
    yield World()


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 1000), st.integers(-9 * 10**14, 10**16), st.floats(0, 40), st.floats(0, 30),
    st.floats(0, 0.3),
)  # fmt: skip
def test_they_find_each_other_and_know_the_clocks_on_any_line(
    seed: int, offset_ns: int, delay_ms: float, jitter_ms: float, loss: float
) -> None:
    world = World(seed, (delay_ms, delay_ms + jitter_ms))
    workstation = world.caller()
    workstation.offset_ns, world.loss = offset_ns, loss
    world.run(4_000)
    world.loss = 0.0
    world.run(3_000)
    for end, other in ((world.robot, workstation), (workstation, world.robot)):
        assert end.talk.up
        true = end.offset_ns - other.offset_ns
        clock = end.talk.clock
        assert abs(clock.offset_ns - true) <= clock.bound_ns(end.now_ns())
        assert clock.bound_ns(end.now_ns()) <= (delay_ms + jitter_ms + 1) * MS


def test_they_are_up_soon_and_say_so_once(world: World) -> None:
    workstation = world.caller()
    world.run(100)
    world.run(5_000)
    for end in (world.robot, workstation):
        assert end.kinds() == ["link up"] and end.talk.up
        assert 0 < end.told[0][1]["uncertainty_ms"] < 0.3
    assert workstation.begun == [({}, False)], "the robot has taken nothing of this process"
    assert world.robot.begun == [(None, False)]


def test_data_goes_only_once_the_clocks_are_known(world: World) -> None:
    workstation = world.caller()
    assert not workstation.talk.say(Kind.TAKEN, {})
    while not (workstation.talk.session and world.robot.talk.session):
        world.run(0.05)
    early = pack(Kind.TAKEN, workstation.talk.session, {"x": 1})
    world.robot.take(workstation.process, early)
    assert not world.robot.data
    world.run(200)
    assert workstation.talk.say(Kind.LATEST, "proposal", 1, b"frame", {})
    world.run(5)
    assert world.robot.data == [[Kind.LATEST, "proposal", 1, b"frame", {}]]


def test_a_cut_is_noticed_on_both_sides_and_mended_by_itself(world: World) -> None:
    workstation = world.caller()
    world.run(500)
    workstation.taken, world.robot.taken = {"transition": 7}, {"transition": 8}
    world.cut = True
    world.run(900)
    assert world.robot.talk.up and workstation.talk.up, "not yet"
    world.run(1_200)
    for end in (world.robot, workstation):
        assert end.ended == [("nothing heard for 1 s", False)] and not end.talk.up
    assert workstation.renewed >= 1, "TCP alone would wait ever longer"
    world.run(30_000)
    world.cut = False
    world.run(2_500)
    for end in (world.robot, workstation):
        assert end.talk.up and end.kinds() == ["link up", "link up"]
    assert world.robot.begun[1:] == [({"transition": 7}, True)]
    assert workstation.begun[1:] == [({"transition": 8}, True)], "it goes on where it was"


def test_words_of_an_earlier_session_are_not_listened_to(world: World) -> None:
    workstation = world.caller()
    world.run(500)
    old = workstation.talk.session
    world.cut = True
    world.run(3_000)
    world.cut = False
    world.run(3_000)
    world.robot.take(workstation.process, pack(Kind.LATEST, old, "proposal", 9, b"old", {}))
    world.robot.take(workstation.process, pack(Kind.BYE, old, "old"))
    assert world.robot.talk.up and not world.robot.data and world.robot.talk.foreign == 2


def test_a_goodbye_is_no_silence(world: World) -> None:
    workstation = world.caller()
    world.run(500)
    world.robot.talk.say(Kind.BYE, "its run has ended")
    world.robot.alive = False
    world.run(10)
    assert workstation.ended == [("its run has ended", True)]


def test_different_graphs_do_not_fly_together_and_both_say_why(world: World) -> None:
    workstation = world.caller(graph="another")
    world.run(5_000)
    assert not workstation.talk.up and not world.robot.talk.session
    for end in (world.robot, workstation):
        assert end.kinds() == ["link refused"], "said once, asked for often"
        assert "fly different graphs" in end.told[0][1]["reason"]


def test_a_second_workstation_waits_until_the_first_is_gone(world: World) -> None:
    first = world.caller(22)
    world.run(500)
    second = world.caller(33)
    world.run(3_000)
    assert first.talk.up and not second.talk.up and len(first.kinds()) == 1
    assert second.told == [
        ("link refused", {"peer": "robot",
                          "reason": "another run of workstation is linked already: "
                          "workstation-run"})
    ]  # fmt: skip
    first.alive = False
    world.run(4_000)
    assert second.talk.up and world.robot.talk.process == 33
    assert world.robot.begun[-1] == (None, False), "it knows nothing of what the first took"


def test_a_restarted_robot_is_known_for_another_process(world: World) -> None:
    workstation = world.caller()
    world.run(500)
    world.robot = End(world, "robot", "workstation", 12, run="another-run")
    world.run(4_000)
    assert workstation.talk.up and workstation.talk.run == "another-run"
    assert workstation.begun[-1] == ({}, False)
    assert world.robot.begun == [(None, False)], "what was taken of another process is no matter"


def test_who_is_not_who_it_should_be_is_refused(world: World) -> None:
    workstation = world.caller(host="laptop")
    world.run(1_000)
    assert world.robot.told[0][1]["reason"] == "robot waits for workstation, not for laptop"
    assert not workstation.talk.up


def test_garbage_is_counted_and_ends_nothing(world: World) -> None:
    workstation = world.caller()
    world.run(500)
    for frame in (b"", b"\xc1", b"\x93\x01\x02\x03", pack(Kind.HELLO, 5, *_hello())):
        workstation.take(0, frame)
        world.robot.take(workstation.process, frame)
    world.run(2_000)
    assert workstation.talk.up and world.robot.talk.up
    assert workstation.talk.malformed == world.robot.talk.malformed == 4


def _hello() -> tuple[Any, ...]:
    return (1, "workstation", "run", 99, "graph", 0, {})  # by another process than the socket's


def test_a_peer_that_stands_still_is_lost_and_found(world: World) -> None:
    """As after SIGSTOP: what queued up meanwhile is of an earlier session when it goes on."""
    workstation = world.caller()
    world.run(500)
    workstation.alive = False
    world.run(3_000)
    assert not world.robot.talk.up
    workstation.alive = True
    world.run(3_000)
    assert workstation.talk.up and world.robot.talk.up


def test_lanes() -> None:
    sent: list[tuple[bytes, bytes]] = []
    world = World()
    workstation = world.caller()
    world.run(500)
    workstation.talk._send = lambda process, lane, frame: bool(sent.append((lane, frame))) or True
    workstation.talk.say(Kind.LATEST, "t", 1, b"", {})
    workstation.talk.say(Kind.STREAM, "t", 1, b"")
    assert [lane for lane, _ in sent] == [NOW, b"b"]
