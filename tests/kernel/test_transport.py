"""Sockets keep their promises: newest value after a stall, no silent loss, one writer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from safetypilot.nodes.kernel.errors import (
    KernelError,
    RequestRefused,
    TopicTaken,
    Unanswered,
)
from safetypilot.nodes.kernel.ports import (
    LatestReader,
    LatestWriter,
    StreamReader,
    StreamWriter,
)
from safetypilot.nodes.kernel.transport import (
    ControlServer,
    Endpoints,
    Inbox,
    Report,
    Tap,
    request,
)


@pytest.fixture
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Endpoints:
    made = Endpoints(tmp_path_factory.mktemp("r"))
    made.make()
    return made


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    made = zmq.Context(1)
    yield made
    made.destroy(0)


def eventually(condition: Callable[[], Any], within_s: float = 5.0) -> Any:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.005)
    raise AssertionError("did not come about in time")


def connected(writer: LatestWriter, reader: LatestReader) -> None:
    def probe() -> bool:
        writer.send(b"hello")
        time.sleep(0.005)
        return reader.receive() is not None

    eventually(probe)


def test_after_a_burst_to_a_stalled_reader_it_reads_the_newest(
    endpoints: Endpoints, context: zmq.Context[Any]
) -> None:
    writer = LatestWriter(context, endpoints, "observation")
    reader = LatestReader(context, endpoints.topic("observation"))
    connected(writer, reader)
    for number in range(20_000):
        writer.send(b"%d" % number)
    seen: list[bytes] = []

    def newest() -> bool:
        writer.send(b"20000")  # as a writer goes on; the last of the burst may be given up
        if (message := reader.receive()) is not None:
            seen.append(message)
        return seen[-1:] == [b"20000"]

    time.sleep(0.1)
    eventually(newest)
    # One, as a rule; a socket's thread that a busy machine holds up may bring a last one after it.
    assert len(seen) <= 5 and seen == sorted(seen, key=int)
    assert eventually(lambda: reader.receive() is None)


def test_two_readers_and_a_tap_each_get_the_newest(
    endpoints: Endpoints, context: zmq.Context[Any]
) -> None:
    writer = LatestWriter(context, endpoints, "risk")
    readers = [LatestReader(context, endpoints.topic("risk")) for _ in range(2)]
    tap = Tap(endpoints, "risk")
    for reader in readers:
        connected(writer, reader)
    writer.send(b"last")
    for reader in readers:
        assert eventually(reader.receive) in (b"last", b"hello")
    assert tap.receive(2.0) in (b"last", b"hello")
    tap.close()


def test_a_reader_follows_a_restarted_writer(
    endpoints: Endpoints, context: zmq.Context[Any]
) -> None:
    first = LatestWriter(context, endpoints, "proposal")
    reader = LatestReader(context, endpoints.topic("proposal"))
    connected(first, reader)
    first.close()
    second = LatestWriter(context, endpoints, "proposal")
    connected(second, reader)


def test_a_topic_has_one_writer(endpoints: Endpoints, context: zmq.Context[Any]) -> None:
    LatestWriter(context, endpoints, "command")
    with pytest.raises(TopicTaken, match="'command' has a writer"):
        LatestWriter(context, endpoints, "command")


def test_a_stream_loses_nothing_to_a_slow_reader(
    endpoints: Endpoints, context: zmq.Context[Any]
) -> None:
    writer = StreamWriter(context, endpoints, "transition", ["learner"])
    for number in range(3000):  # before the reader exists, and beyond the pipe
        writer.send(b"%d" % number)
    reader = StreamReader(context, endpoints.stream("transition", "learner"))
    got: list[bytes] = []

    def drain() -> bool:
        writer.flush()
        while (frame := reader.receive()) is not None:
            got.append(frame)
        return len(got) == 3000

    eventually(drain)
    assert got == [b"%d" % number for number in range(3000)]
    assert writer.dropped == {"learner": 0}


def test_a_stream_counts_what_it_drops_and_never_blocks(
    endpoints: Endpoints, context: zmq.Context[Any]
) -> None:
    writer = StreamWriter(context, endpoints, "transition", ["learner"], pipe=10, backlog=20)
    begin = time.monotonic()
    for number in range(500):
        writer.send(b"%d" % number)
    assert time.monotonic() - begin < 1.0
    assert writer.dropped["learner"] == 480
    assert writer.summary() == {"learner.waiting": 20, "learner.dropped": 480}


def test_a_stalled_tap_does_not_hold_up_a_stream(
    endpoints: Endpoints, context: zmq.Context[Any]
) -> None:
    writer = StreamWriter(context, endpoints, "decision", ["learner"], pipe=10)
    reader = StreamReader(context, endpoints.stream("decision", "learner"), pipe=10)
    tap = Tap(endpoints, "decision")  # never read
    got: list[bytes] = []
    for number in range(2000):
        writer.send(b"%d" % number)
        while (frame := reader.receive()) is not None:
            got.append(frame)

    def drained() -> bool:
        writer.flush()
        while (frame := reader.receive()) is not None:
            got.append(frame)
        return len(got) == 2000

    eventually(drained)
    assert writer.dropped["learner"] == 0
    tap.close()


def _serve(
    endpoints: Endpoints, answer: Callable[[str, dict[str, Any]], dict[str, Any]]
) -> Callable[[], None]:
    stop = threading.Event()
    ready = threading.Event()

    def loop() -> None:
        context = zmq.Context(1)
        server = ControlServer(context, endpoints.control("arbiter"))
        ready.set()
        while not stop.is_set():
            server.socket.poll(10)
            if (call := server.receive()) is not None:
                server.answer(answer(*call))
        context.destroy(0)

    thread = threading.Thread(target=loop)
    thread.start()
    ready.wait()

    def finish() -> None:
        stop.set()
        thread.join()

    return finish


def test_requests_are_answered_refused_or_time_out(endpoints: Endpoints) -> None:
    def answer(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if name == "no":
            return {"ok": False, "error": "because"}
        return {"ok": True, "result": {"name": name, **arguments}}

    finish = _serve(endpoints, answer)
    assert request(endpoints, "arbiter", "status", {"x": 1}) == {"name": "status", "x": 1}
    with pytest.raises(RequestRefused, match="because"):
        request(endpoints, "arbiter", "no")
    finish()
    with pytest.raises(Unanswered, match="'status' within"):
        request(endpoints, "nobody", "status", timeout_s=0.05)


def test_garbage_on_the_control_socket_is_answered_and_counted(endpoints: Endpoints) -> None:
    finish = _serve(endpoints, lambda name, arguments: {"ok": True, "result": {}})
    context = zmq.Context(1)
    for junk in (b"", b"\xc1", b"\x01", b"\x92\x01\x02"):
        socket = context.socket(zmq.REQ)
        socket.connect(endpoints.control("arbiter"))
        socket.send(junk)
        assert socket.poll(2000)
        assert b"malformed" in socket.recv()
        socket.close(0)
    context.destroy(0)
    assert request(endpoints, "arbiter", "status") == {}
    finish()


def test_reports_reach_the_supervisor_and_garbage_does_not_stop_it(
    endpoints: Endpoints, context: zmq.Context[Any]
) -> None:
    inbox = Inbox(endpoints)
    junk = context.socket(zmq.PUSH)
    junk.connect(endpoints.supervisor)
    for frame in (b"\xc1", b"", b"\x93\x01\x02\x03"):
        junk.send(frame)
    Report(context, endpoints, "critic").send("event", {"kind": "x"})
    got: list[Any] = []

    def received() -> bool:
        got.extend(inbox.receive(0.05)[0])
        return bool(got)

    eventually(received)
    assert got == [("critic", "event", {"kind": "x"})]
    inbox.close()


def test_a_path_too_long_for_a_local_socket_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="too long for local sockets"):
        Endpoints(tmp_path / ("x" * 100))


def test_runtime_directories_are_private(endpoints: Endpoints) -> None:
    for folder in "tsc":
        assert (endpoints.root / folder).stat().st_mode & 0o077 == 0
