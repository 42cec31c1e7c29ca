"""Sockets: where they are, and what goes over them beside topics (which are in ports.py).

All endpoints are files of the run's private directory. Requests to a node, its reports to the
supervisor, the lockstep scheduler's calls, and taps, by which anybody may look at a topic.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import msgpack
import zmq
from zmq.backend import zmq_poll as zmq_poll

from safetypilot.nodes.kernel.errors import KernelError, RequestRefused, TopicTaken, Unanswered

STREAM_PIPE = 1000  # messages in flight per reader
_LONGEST_IPC_PATH = 100

POLLIN, NOBLOCK, EVENTS = zmq.POLLIN, zmq.NOBLOCK, zmq.EVENTS


def open_context(fifo_priority: int | None = None) -> zmq.Context[Any]:
    """One I/O thread; it inherits this process's CPU set and niceness.

    Args:
        fifo_priority: of the I/O thread under SCHED_FIFO, which this process must be allowed to
            take (libzmq aborts otherwise); None: an ordinary thread.
    """
    context: zmq.Context[Any] = zmq.Context(1)
    if fifo_priority is not None:
        context.set(zmq.THREAD_SCHED_POLICY, os.SCHED_FIFO)
        context.set(zmq.THREAD_PRIORITY, fifo_priority)
        for cpu in os.sched_getaffinity(0):
            context.set(zmq.THREAD_AFFINITY_CPU_ADD, cpu)
    return context


def descriptor(socket: zmq.Socket[Any]) -> int:
    """To be polled, edge-triggered; then `has_frame` until it says no, or the next is missed."""
    return int(socket.get(zmq.FD))


def has_frame(socket: zmq.Socket[Any]) -> bool:
    """Whether a receive would give something now; cheaper than a refused receive."""
    return bool(int(socket.get(EVENTS)) & POLLIN)


class Endpoints:
    """Names of the sockets of one run, all below its private runtime directory."""

    def __init__(self, runtime_dir: str | Path) -> None:
        self.root = Path(runtime_dir)
        if len(str(self.root)) > _LONGEST_IPC_PATH - 40:
            raise KernelError(
                f"the runtime directory's path is too long for local sockets: {self.root}; "
                "set TMPDIR to a shorter one"
            )

    def make(self) -> None:
        """Creates the directory tree, private to this user."""
        for folder in (self.root, *(self.root / name for name in "tscl")):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def topic(self, topic: str) -> str:
        return f"ipc://{self.root}/t/{topic}"

    def stream(self, topic: str, reader: str) -> str:
        return f"ipc://{self.root}/s/{topic}.{reader}"

    def control(self, node: str) -> str:
        return f"ipc://{self.root}/c/{node}"

    def lockstep(self, node: str) -> str:
        return f"ipc://{self.root}/l/{node}"

    @property
    def supervisor(self) -> str:
        return f"ipc://{self.root}/supervisor"

    def claim(self, topic: str) -> int:
        """Takes the one write lock of a topic; held until the process ends.

        Raises:
            TopicTaken: another writer holds it.
        """
        handle = os.open(self.root / "t" / f"{topic}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise TopicTaken(
                f"topic {topic!r} has a writer already; a topic has exactly one: "
                "remap one of the two or remove it from the launch file"
            ) from None
        return handle


def open_socket(context: zmq.Context[Any], kind: int, **options: int) -> zmq.Socket[Any]:
    """A socket that never holds up the end of its process; LINGER in ms, 0 unless given."""
    socket: zmq.Socket[Any] = context.socket(kind)
    socket.setsockopt(zmq.LINGER, options.pop("LINGER", 0))
    socket.setsockopt(zmq.MAXMSGSIZE, 16 * 2**20)
    for name, value in options.items():
        socket.setsockopt(getattr(zmq, name), value)
    return socket


class Tap:
    """An observer of a topic or stream: sees what passes, and can never hold up the writer."""

    def __init__(self, endpoints: Endpoints, topic: str, conflate: bool = False) -> None:
        self._context = zmq.Context(1)
        self._socket = open_socket(self._context, zmq.SUB, CONFLATE=int(conflate), RECONNECT_IVL=50)
        self._socket.subscribe(b"")
        self._socket.connect(endpoints.topic(topic))

    def receive(self, timeout_s: float) -> bytes | None:
        if self._socket.poll(int(timeout_s * 1000)):
            return self._socket.recv()
        return None

    def close(self) -> None:
        self._context.destroy(0)


class ControlServer:
    """A node's side of requests: one at a time, answered between two steps."""

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        self.socket = open_socket(context, zmq.REP)
        self.socket.bind(endpoint)
        self.refused = 0

    @property
    def waiting(self) -> bool:
        return has_frame(self.socket)

    def receive(self) -> tuple[str, dict[str, Any]] | None:
        """The next request and its arguments; a malformed one is answered and counted."""
        if not has_frame(self.socket):
            return None
        parts = self.socket.recv_multipart(NOBLOCK)
        try:
            request, arguments = msgpack.unpackb(b"".join(parts))
            if type(request) is not str or type(arguments) is not dict:
                raise ValueError
        except Exception:  # noqa: BLE001  msgpack raises a dozen unrelated types on garbage
            self.refused += 1
            self.answer({"ok": False, "error": "malformed request"})
            return None
        return request, arguments

    def answer(self, reply: dict[str, Any]) -> None:
        self.socket.send(msgpack.packb(reply, default=str), NOBLOCK)

    def close(self) -> None:
        self.socket.close()


def request(
    endpoints: Endpoints,
    node: str,
    name: str,
    arguments: dict[str, Any] | None = None,
    timeout_s: float = 5.0,
) -> dict[str, Any]:
    """Asks a running node for something, from any process of this user.

    Returns:
        The node's result.

    Raises:
        Unanswered: no answer in time. RequestRefused: the node said no, and why.
    """
    context = zmq.Context(1)
    try:
        socket = open_socket(context, zmq.REQ)
        socket.connect(endpoints.control(node))
        socket.send(msgpack.packb([name, arguments or {}]))
        if not socket.poll(int(timeout_s * 1000)):
            raise Unanswered(f"{node} did not answer {name!r} within {timeout_s:g} s")
        reply: dict[str, Any] = msgpack.unpackb(socket.recv())
    finally:
        context.destroy(0)
    if not reply.get("ok"):
        raise RequestRefused(str(reply.get("error", "refused")))
    result: dict[str, Any] = reply.get("result", {})
    return result


class Report:
    """A node's line to the supervisor: health and events; dropped rather than ever waited for."""

    def __init__(self, context: zmq.Context[Any], endpoints: Endpoints, node: str) -> None:
        self._socket = open_socket(context, zmq.PUSH, SNDHWM=1000, LINGER=300)
        self._socket.connect(endpoints.supervisor)
        self._node = node

    def send(self, kind: str, data: dict[str, Any]) -> None:
        try:
            self._socket.send(msgpack.packb([self._node, kind, data], default=str), NOBLOCK)
        except zmq.Again:
            return

    def close(self) -> None:
        self._socket.close()


class Inbox:
    """The supervisor's side: reports of all nodes, and the streams it reads itself."""

    def __init__(self, endpoints: Endpoints, streams: tuple[str, ...] = ()) -> None:
        self._context = zmq.Context(1)
        self._reports = open_socket(self._context, zmq.PULL)
        self._reports.bind(endpoints.supervisor)
        self._streams = {
            topic: open_socket(self._context, zmq.PULL, RCVHWM=STREAM_PIPE, RECONNECT_IVL=10)
            for topic in streams
        }
        for topic, socket in self._streams.items():
            socket.connect(endpoints.stream(topic, "supervisor"))

    def receive(
        self, timeout_s: float
    ) -> tuple[list[tuple[str, str, dict[str, Any]]], list[tuple[str, bytes]]]:
        """Waits for something, then takes all there is: (node, kind, data)s and (topic, frame)s."""
        sockets = [self._reports, *self._streams.values()]
        zmq_poll([(socket, POLLIN) for socket in sockets], int(timeout_s * 1000))
        reports, frames = [], []
        while has_frame(self._reports):
            try:
                node, kind, data = msgpack.unpackb(self._reports.recv(NOBLOCK))
                reports.append((str(node), str(kind), dict(data)))
            except Exception:  # noqa: BLE001  garbage on the socket must not end the run
                continue
        for topic, socket in self._streams.items():
            while has_frame(socket):
                frames.append((topic, socket.recv(NOBLOCK)))
        return reports, frames

    def close(self) -> None:
        self._context.destroy(0)


class LockstepServer:
    """A node's side of the lockstep scheduler's calls."""

    def __init__(self, endpoints: Endpoints, node: str) -> None:
        self._context = zmq.Context(1)
        self._socket = open_socket(self._context, zmq.REP)
        self._socket.bind(endpoints.lockstep(node))

    def receive(self, timeout_s: float) -> list[Any] | None:
        if self._socket.poll(int(timeout_s * 1000)):
            call: list[Any] = msgpack.unpackb(self._socket.recv())
            return call
        return None

    def answer(self, reply: list[Any]) -> None:
        self._socket.send(msgpack.packb(reply, default=str))

    def close(self) -> None:
        self._context.destroy(300)


class LockstepClient:
    """The scheduler's side: one synchronous call at a time.

    Args:
        alive: whether the node's process still runs; asked while an answer is awaited.
    """

    def __init__(self, endpoints: Endpoints, node: str, alive: Callable[[], bool]) -> None:
        self._context = zmq.Context(1)
        self._socket = open_socket(self._context, zmq.REQ, RECONNECT_IVL=10)
        self._socket.connect(endpoints.lockstep(node))
        self._node = node
        self._alive = alive

    def call(self, arguments: list[Any], timeout_s: float) -> list[Any]:
        """Raises Unanswered if the node's process has died or does not answer in time."""
        self._socket.send(msgpack.packb(arguments))
        deadline = monotonic() + timeout_s
        while not self._socket.poll(50):
            if not self._alive() and not self._socket.poll(0):
                raise Unanswered(f"the process of {self._node} has died")
            if monotonic() > deadline:
                raise Unanswered(f"{self._node} did not answer the scheduler in {timeout_s:g} s")
        reply: list[Any] = msgpack.unpackb(self._socket.recv())
        return reply

    def close(self) -> None:
        self._context.destroy(0)
