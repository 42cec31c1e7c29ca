"""Two real links, over loopback with real keys: what crosses, and who does not get in."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from links import CODECS, Pair, Side, eventually, observation, proposal
from zmq.utils import z85

from safetypilot.nodes.kernel import link_sockets, messages
from safetypilot.nodes.kernel.errors import NodeError
from safetypilot.nodes.kernel.link_frames import NOW, Kind, pack
from safetypilot.nodes.kernel.link_sockets import BROKEN_OFF, NOISE, OTHER_KEY, PLAIN, STRANGER

Start = Callable[..., Side]


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts sides; whatever the test does, they have ended afterwards."""
    sides: list[Side] = []

    def make(config: Any, **changes: Any) -> Side:
        sides.append(Side(tmp_path_factory.mktemp("r"), config, **changes))
        return sides[-1].start()

    yield make
    for side in sides:
        side.close()


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def linked(start: Start, pair: Pair) -> tuple[Side, Side]:
    robot, workstation = start(pair.robot()), start(pair.workstation())
    up(robot, workstation)
    return robot, workstation


def up(*sides: Side) -> None:
    for side in sides:
        eventually(lambda side=side: side.status["up"], what="the link")  # type: ignore[misc]


def fly(robot: Side, workstation: Side, seq: int) -> messages.Proposal:
    """One observation and its answer."""
    seen = observation(seq)
    robot.write("observation", seen)
    there = workstation.read("observation")
    assert (there.seq, there.values.tolist()) == (seen.seq, seen.values.tolist())
    workstation.write("proposal", proposal(there))
    home: messages.Proposal = robot.read("proposal")
    assert (home.seq, home.stamp_ns) == (seq, seen.stamp_ns), "its very stamp"
    assert seen.stamp_ns <= home.taken_ns <= home.sent_ns <= time.monotonic_ns()
    return home


def test_observations_go_and_answers_come_home(start: Start, pair: Pair) -> None:
    robot, workstation = linked(start, pair)
    for seq in range(20):
        fly(robot, workstation, seq)
    status = workstation.status
    assert status["in"]["observation"]["received"] == 20 and status["losses"] == 0
    assert abs(status["offset_ms"]) <= status["uncertainty_ms"], "it is one clock"
    assert status["round_trip_us"]["shortest"] > 0
    assert not robot.status["refused"] and not robot.status["refused_handshakes"]


def test_a_reader_that_stood_still_gets_the_newest_and_no_queue(start: Start, pair: Pair) -> None:
    robot, workstation = linked(start, pair)
    fly(robot, workstation, 0)
    workstation.freeze()
    for seq in range(1, 300):
        robot.write("observation", observation(seq))
        time.sleep(0.001)
    assert robot.status["out"]["observation"]["sent"] <= 4
    workstation.thaw()
    seen: list[int] = []

    def newest() -> bool:
        if (message := workstation.peek("observation")) is not None:
            seen.append(message.seq)
        return seen[-1:] == [299]

    eventually(newest, what="the newest observation")
    assert len(seen) <= 3 and seen == sorted(seen)


def transition(seq: int) -> messages.Transition:
    now, zeros = time.monotonic_ns(), np.zeros(2, np.float32)
    return messages.Transition(
        seq, now, now, 0, seq, zeros, zeros, zeros, 0, 0.0, 0.0, False, zeros, False, False
    )


def test_streams_come_whole_through_a_link_that_was_lost(start: Start, pair: Pair) -> None:
    topics = ("observation", "transition")
    robot = start(pair.robot(sends=topics, silence_s=0.4))
    workstation = start(pair.workstation(receives=topics, silence_s=0.4))
    up(robot, workstation)
    codec, got = CODECS[messages.Transition], []

    def write(first: int) -> None:
        for seq in range(first, first + 500):
            robot.streams["transition"].send(codec.encode(transition(seq)))

    def whole(count: int) -> bool:
        got.extend(codec.decode(frame).seq for frame in workstation.read_stream("transition"))
        return len(got) >= count

    write(0)
    eventually(lambda: whole(100), what="the first transitions")
    workstation.freeze()
    write(500)
    eventually(lambda: not robot.status["up"], what="the loss of the workstation")
    write(1000)
    workstation.thaw()
    eventually(lambda: whole(1500), what="all transitions")
    assert got == list(range(1500))
    eventually(lambda: robot.status["out"]["transition"]["waiting"] == 0, what="acknowledgement")
    assert workstation.status["in"]["transition"]["lost"] == 0


def test_without_the_other_host_it_says_so_and_comes_up_when_that_comes(
    start: Start, pair: Pair
) -> None:
    workstation = start(pair.workstation())
    called = eventually(lambda: workstation.heard("link calls"))
    assert called["peer"] == "robot" and str(pair.port) in called["address"]
    time.sleep(0.5)
    assert workstation.status["down_because"] == "not linked yet"
    robot = start(pair.robot())
    up(robot, workstation)
    fly(robot, workstation, 0)


def test_a_lost_workstation_is_said_with_the_cause_and_taken_back(start: Start, pair: Pair) -> None:
    robot, workstation = linked(start, pair)
    workstation.freeze()
    lost = eventually(lambda: robot.heard("link lost"))
    assert lost["reason"] == "nothing heard for 1 s"
    for seq in range(5):  # of no use to anybody
        robot.write("observation", observation(seq))
        time.sleep(0.01)
    assert robot.status["while_down"] >= 1
    workstation.thaw()
    up(robot, workstation)
    assert robot.status["losses"] == workstation.status["losses"] == 1
    fly(robot, workstation, 100)


def test_the_end_of_the_plants_run_is_the_end_of_the_workstations(start: Start, pair: Pair) -> None:
    robot, workstation = linked(start, pair)
    robot.freeze()
    robot.executor.stations[0].finish()
    over = eventually(lambda: workstation.heard("run over"))
    assert over["reason"] == "robot says that its run has ended" and "failed" not in over
    assert robot.heard("link lost") is None, "it knows that it has gone"


def test_another_run_of_the_plant_is_not_flown_on(start: Start, pair: Pair) -> None:
    robot, workstation = linked(start, pair)
    robot.freeze()  # killed: it says nothing any more
    robot.link.close()
    start(pair.robot())
    over = eventually(lambda: workstation.heard("run over"))
    assert over["reason"] == "robot has begun another run without ending this one"
    assert over["failed"]


# Who does not get in.


def caller(pair: Pair, secret: str, peer: bytes) -> tuple[zmq.Context[Any], Any]:
    context = zmq.Context(1)
    key = bytes.fromhex((pair.folder / f"{secret}.secret").read_text())
    keys = link_sockets.Keys(link_sockets.public_of(key), key, peer)
    return context, link_sockets.Caller(context, f"tcp://127.0.0.1:{pair.port}", keys, 99)


@pytest.mark.parametrize(
    ("secret", "server", "cause"),
    [("stranger", "robot", STRANGER), ("workstation", "stranger", OTHER_KEY)],
)
def test_without_the_right_key_nobody_gets_in(
    start: Start, pair: Pair, secret: str, server: str, cause: str
) -> None:
    robot, workstation = linked(start, pair)
    context, line = caller(pair, secret, pair.key(server))

    def refused() -> bool:
        line.send(0, NOW, pack(Kind.HELLO, 1, 1, "workstation", "run", 99, "graph", 0, {}))
        line.look_after()
        return bool(robot.status["refused_handshakes"].get(cause))

    try:
        eventually(refused, what="a refusal")
        assert line.receive() is None
        eventually(lambda: line.look_after() or line.refused, what="that who calls is told")
    finally:
        line.close()
        context.destroy(0)
    told = eventually(lambda: robot.heard("link refused a handshake"))
    assert told["cause"] == cause
    fly(robot, workstation, 0)  # undisturbed


def test_a_workstation_with_the_wrong_key_says_what_is_wrong(start: Start, pair: Pair) -> None:
    start(pair.robot())
    workstation = start(pair.workstation(secret=str(pair.folder / "stranger.secret")))
    told = eventually(lambda: workstation.heard("link refused a handshake"))
    assert told["cause"] == STRANGER and not workstation.status["up"]


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", NOISE),
        (bytes(range(256)) * 8, NOISE),
        (b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48), PLAIN),
        (b"", BROKEN_OFF),
    ],
    ids=["http", "noise", "plain text", "port scan"],
)
def test_who_speaks_something_else_is_counted_and_harmless(
    start: Start, pair: Pair, words: bytes, cause: str
) -> None:
    robot, workstation = linked(start, pair)
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", pair.port)) as scanner:
            scanner.sendall(words)
            scanner.settimeout(0.2)
            try:
                scanner.recv(1)
            except OSError:
                continue
    eventually(lambda: robot.status["refused_handshakes"].get(cause, 0) >= 5, what="the count")
    fly(robot, workstation, 0)
    assert robot.status["losses"] == 0


def test_fuzzed_greetings_are_counted_and_harmless(start: Start, pair: Pair) -> None:
    robot, workstation = linked(start, pair)
    chance = random.Random(5)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(47)
    hello = b"\x04\xc8\x05HELLO\x01\x00" + chance.randbytes(192)
    count = 0
    for _ in range(60):
        words = bytearray(greeting + hello)
        for _ in range(chance.randrange(6)):
            words[chance.randrange(len(words))] = chance.randrange(256)
        cut = chance.choice((len(words), chance.randrange(1, len(words))))
        with socket.create_connection(("127.0.0.1", pair.port)) as scanner:
            scanner.sendall(bytes(words[:cut]) + chance.randbytes(chance.randrange(40)))
            count += 1
    eventually(
        lambda: sum(robot.status["refused_handshakes"].values()) >= count, what="every refusal"
    )
    fly(robot, workstation, 0)
    assert robot.status["losses"] == 0


def test_a_plain_zeromq_peer_is_refused(start: Start, pair: Pair) -> None:
    robot, _ = linked(start, pair)
    context = zmq.Context(1)
    plain = context.socket(zmq.DEALER)
    plain.setsockopt(zmq.IMMEDIATE, 1)
    plain.connect(f"tcp://127.0.0.1:{pair.port}")

    def refused() -> bool:
        """Both ends see it, and the peer may hang up before ours has said why."""
        return not {PLAIN, BROKEN_OFF}.isdisjoint(robot.status["refused_handshakes"])

    try:
        eventually(refused, what="a refusal")
        with pytest.raises(zmq.Again):
            plain.send(b"x", zmq.NOBLOCK)
    finally:
        context.destroy(0)


def test_garbage_from_a_peer_with_the_key_is_counted_and_dropped(start: Start, pair: Pair) -> None:
    robot, workstation = linked(start, pair)
    send, session = workstation.link._talk._send, workstation.link._talk.session
    codec = CODECS[messages.Proposal]
    answer = codec.encode(proposal(observation(123_456)))  # to what was never observed
    broken = codec.encode(proposal(observation(1)))[:-3]
    workstation.freeze()
    for frame in (
        b"\xc1",
        pack(Kind.LATEST, session, "proposal", 1, broken, {}),
        pack(Kind.LATEST, session, "command", 1, answer, {}),
    ):
        send(0, NOW, frame)
    workstation.thaw()
    eventually(lambda: robot.status["refused"].get("proposal: not msgpack"), what="a refusal")
    workstation.write("proposal", proposal(observation(123_456)))
    eventually(lambda: robot.status["refused"].get("proposal: unknown observation"))
    assert robot.status["malformed"] == 1 and robot.status["foreign"] == 1
    fly(robot, workstation, 5)


def test_it_listens_at_its_address_and_nowhere_else(start: Start, pair: Pair) -> None:
    before = listening()
    robot, workstation = linked(start, pair)
    assert listening() - before == {("127.0.0.1", pair.port)}
    fly(robot, workstation, 0)


def listening() -> set[tuple[str, int]]:
    """Where this process listens, over TCP."""
    inodes = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            inodes.add(str(fd.readlink()).removeprefix("socket:[").removesuffix("]"))
        except OSError:
            continue
    found = set()
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and words[9] in inodes:
            address, port = words[1].split(":")
            found.add((socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(port, 16)))
    return found


def test_a_name_will_do_for_an_address(start: Start, pair: Pair) -> None:
    address = f"tcp://localhost:{pair.port}"
    robot, workstation = (
        start(pair.robot(address=address)),
        start(pair.workstation(address=address)),
    )
    up(robot, workstation)
    fly(robot, workstation, 0)


def test_a_port_that_is_taken_is_said_before_anything_flies(pair: Pair, start: Start) -> None:
    start(pair.robot())
    with pytest.raises(NodeError, match=f"cannot listen at tcp://127.0.0.1:{pair.port}"):
        start(pair.robot())


def test_keys_belong_together() -> None:
    public, secret = link_sockets.make_pair()
    assert link_sockets.public_of(secret) == public and len(public) == len(secret) == 32
    assert z85.encode(secret) not in repr(public).encode()


def test_a_secret_that_is_none_is_said(pair: Pair, start: Start, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    with pytest.raises(NodeError, match="is of no use"):
        start(pair.robot(secret=str(tmp_path / "empty")))
