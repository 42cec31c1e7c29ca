"""Both ends of a topic: how frames come from its writer to its readers.

`latest`: a board in shared memory (board.py) where the supervisor handed one down, plus a socket
for taps. Without a board: one conflating PUB per topic and one conflating SUB per reader. CONFLATE
on both ends, because on the reader alone a stalled reader still lags behind the publisher's pipe.
Such a pipe gives a value up when both its ends are at it at once (libzmq, dbuffer.hpp): rare, and
mended by the next value; a board loses none.
`stream`: a PUSH pipe per declared reader with a bounded backlog behind it, plus a socket for taps,
so that neither a slow reader nor an observer ever holds up the writer; what is lost is counted.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any, Protocol

import zmq

from safetypilot.nodes.kernel.board import BoardReader, BoardWriter
from safetypilot.nodes.kernel.transport import (
    NOBLOCK,
    STREAM_PIPE,
    Endpoints,
    has_frame,
    open_socket,
)

STREAM_BACKLOG = 10_000  # messages kept for a reader that is stalled or being restarted


class TapOutlet:
    """Where observers of a topic listen; costs nothing while none does.

    Attributes:
        socket: readable when somebody came or went; `update` then.
        wanted: whether anybody listens.
    """

    def __init__(self, context: zmq.Context[Any], endpoint: str, pipe: int) -> None:
        self.socket = open_socket(context, zmq.XPUB, SNDHWM=pipe)
        self.socket.bind(endpoint)
        self.wanted = False
        self._subscribed: set[bytes] = set()

    def update(self) -> None:
        while has_frame(self.socket):
            change = self.socket.recv(NOBLOCK)
            (self._subscribed.add if change[:1] == b"\1" else self._subscribed.discard)(change[1:])
        self.wanted = bool(self._subscribed)

    def send(self, frame: bytes) -> None:
        self.socket.send(frame, NOBLOCK)

    def close(self) -> None:
        self.socket.close()


Later = deque[tuple[TapOutlet, bytes]]


class Writer(Protocol):
    """What all writers of a topic have in common.

    Attributes:
        tap: observers; None where all readers are on one socket.
    """

    tap: TapOutlet | None

    @property
    def wanted(self) -> bool:
        """Whether a frame would reach anybody."""

    def send(self, frame: bytes) -> None: ...
    def flush(self) -> None: ...
    def summary(self) -> dict[str, int]: ...
    def close(self) -> None: ...


class LatestWriter:
    """Publishes the newest value of a topic on one socket; never blocks, never queues."""

    tap: TapOutlet | None = None
    wanted = True

    def __init__(self, context: zmq.Context[Any], endpoints: Endpoints, topic: str) -> None:
        self._lock = endpoints.claim(topic)
        self._socket = open_socket(context, zmq.PUB, CONFLATE=1)
        self._socket.bind(endpoints.topic(topic))
        self._send = self._socket.send

    def send(self, frame: bytes) -> None:
        self._send(frame, NOBLOCK)

    def flush(self) -> None:
        """Nothing ever waits."""

    def summary(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        self._socket.close()
        os.close(self._lock)


class BoardOutlet:
    """Puts the newest value of a topic on a board; observers get theirs when there is time.

    Args:
        later: where frames for observers wait for a quiet moment: sending one wakes a thread.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        endpoints: Endpoints,
        topic: str,
        board: BoardWriter,
        later: Later,
    ) -> None:
        self._lock = endpoints.claim(topic)
        self._board = board
        self._write = board.write
        self.tap: TapOutlet | None = TapOutlet(context, endpoints.topic(topic), STREAM_PIPE)
        self._tap = self.tap
        self._later = later
        self._has_readers = board.readers > 0

    @property
    def wanted(self) -> bool:
        return self._has_readers or self._tap.wanted

    def send(self, frame: bytes) -> None:
        self._write(frame)
        if self._tap.wanted:
            self._later.append((self._tap, frame))

    def flush(self) -> None:
        """Nothing ever waits."""

    def summary(self) -> dict[str, int]:
        return {"board.dropped": self._board.refused} if self._board.refused else {}

    def close(self) -> None:
        self._tap.close()
        self._board.close()
        os.close(self._lock)


class Reader(Protocol):
    """What all readers of a topic have in common.

    Attributes:
        socket: readable when there may be something; None where a bell says so.
    """

    socket: zmq.Socket[Any] | None
    fresh: bool

    def receive(self) -> bytes | None: ...
    def close(self) -> None: ...


class _SocketReader:
    """What reading a topic and reading a stream over a socket have in common.

    Attributes:
        fresh: whether it is worth looking, which costs a system call; for who polls the socket.
    """

    socket: zmq.Socket[Any] | None
    fresh = True

    def __init__(self, socket: zmq.Socket[Any]) -> None:
        self.socket = self._own = socket

    def receive(self) -> bytes | None:
        """The next frame if one is here, or None; never waits."""
        if has_frame(self._own):
            return self._own.recv(NOBLOCK)
        self.fresh = False
        return None

    def close(self) -> None:
        self._own.close()


class LatestReader(_SocketReader):
    """Holds the newest unread frame of a topic."""

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        socket = open_socket(context, zmq.SUB, CONFLATE=1, RECONNECT_IVL=10)
        socket.subscribe(b"")
        socket.connect(endpoint)
        super().__init__(socket)


class BoardInlet:
    """Takes the newest unread frame of a topic from its board."""

    socket: zmq.Socket[Any] | None = None
    fresh = True

    def __init__(self, board: BoardReader) -> None:
        self.receive = board.receive
        self.close = board.close


class StreamWriter:
    """Sends every message to every declared reader, and says what it had to drop."""

    def __init__(
        self,
        context: zmq.Context[Any],
        endpoints: Endpoints,
        topic: str,
        readers: list[str],
        pipe: int = STREAM_PIPE,
        backlog: int = STREAM_BACKLOG,
        later: Later | None = None,
    ) -> None:
        self._lock = endpoints.claim(topic)
        self.tap: TapOutlet | None = TapOutlet(context, endpoints.topic(topic), pipe)
        self._tap, self._later = self.tap, later
        self._pipes: dict[str, tuple[zmq.Socket[Any], deque[bytes]]] = {}
        self.dropped = dict.fromkeys(readers, 0)
        self._limit = backlog
        for reader in readers:
            socket = open_socket(context, zmq.PUSH, SNDHWM=pipe, IMMEDIATE=1, LINGER=300)
            socket.bind(endpoints.stream(topic, reader))
            self._pipes[reader] = (socket, deque())

    @property
    def wanted(self) -> bool:
        return bool(self._pipes) or self._tap.wanted

    def send(self, frame: bytes) -> None:
        if self._tap.wanted and self._later is not None:
            self._later.append((self._tap, frame))
        elif self._tap.wanted:
            self._tap.send(frame)
        for reader, (_, backlog) in self._pipes.items():
            if len(backlog) >= self._limit:
                backlog.popleft()
                self.dropped[reader] += 1
            backlog.append(frame)
        self.flush()

    def flush(self) -> None:
        """Pushes what waits, as far as the readers take it."""
        for socket, backlog in self._pipes.values():
            try:
                while backlog:
                    socket.send(backlog[0], NOBLOCK)
                    backlog.popleft()
            except zmq.Again:
                continue

    def summary(self) -> dict[str, int]:
        return {
            f"{reader}.{what}": count
            for reader, (_, backlog) in self._pipes.items()
            for what, count in (("waiting", len(backlog)), ("dropped", self.dropped[reader]))
        }

    def close(self) -> None:
        self.flush()
        for socket, _ in self._pipes.values():
            socket.close()
        self._tap.close()
        os.close(self._lock)


class StreamReader(_SocketReader):
    """Receives every message of a stream that its writer sent to this reader."""

    def __init__(self, context: zmq.Context[Any], endpoint: str, pipe: int = STREAM_PIPE) -> None:
        socket = open_socket(context, zmq.PULL, RCVHWM=pipe, RECONNECT_IVL=10)
        socket.connect(endpoint)
        super().__init__(socket)
