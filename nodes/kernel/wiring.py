"""Connects the inputs and outputs of nodes to what carries their messages.

Nodes that share a process hand each other messages in memory, with the codec's checks of arrays;
readers elsewhere get frames (ports.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from safetypilot.nodes.kernel import rates
from safetypilot.nodes.kernel.board import BoardReader, BoardWriter
from safetypilot.nodes.kernel.health import InputHealth
from safetypilot.nodes.kernel.node import Spec
from safetypilot.nodes.kernel.ports import (
    BoardInlet,
    BoardOutlet,
    Later,
    LatestReader,
    LatestWriter,
    Reader,
    StreamReader,
    StreamWriter,
    Writer,
)
from safetypilot.nodes.kernel.topics import TOPICS
from safetypilot.nodes.kernel.transport import Endpoints
from safetypilot.nodes.kernel.wire import Codec, WireError

STREAM_BATCH = 64  # stream messages taken per turn, so that a flood cannot starve the rest
Background = Callable[[Callable[[], Any], Callable[[Any, int], None], str], None]
Watch = Callable[[Any, Callable[[], None]], None]
Codecs = dict[type[Any], Codec]


class Handover:
    """An input whose writer lives in this process: the message itself, not a frame of it."""

    def __init__(self, call: Callable[[], None] | None, health: InputHealth, stream: bool) -> None:
        self._call = call
        self._queue: deque[Any] = deque(maxlen=None if stream else 1)
        self.health = health

    def put(self, message: Any) -> None:
        self._queue.append(message)
        if self._call is not None:
            self._call()

    def take(self) -> Any:
        return self._queue.popleft() if self._queue else None

    def rehearse(self) -> None:
        """There is nothing to decode."""


class Decoded:
    """An input that comes as frames; the last one is kept to rehearse with."""

    def __init__(self, receive: Callable[[], bytes | None], decode: Callable[[bytes], Any]) -> None:
        self._receive = receive
        self._decode = decode
        self._last: bytes | None = None

    def take(self) -> Any:
        frame = self._receive()
        if frame is None:
            return None
        self._last = frame
        return self._decode(frame)

    def rehearse(self) -> None:
        if self._last is not None:
            with suppress(WireError):
                self._decode(self._last)


class Inlet(NamedTuple):
    """An input at work: `take` gives the next message, None if there is none; may raise WireError.

    Attributes:
        rehearse: what `take` does, without taking anything.
        batch: how many are taken in one go.
        reader: None for a handover.
    """

    name: str
    take: Callable[[], Any]
    rehearse: Callable[[], None]
    health: InputHealth
    batch: int
    wakes: bool
    reader: Reader | None


@dataclass(slots=True)
class Outlet:
    """An output at work; `every` stands for an output that is thinned out."""

    writer: Writer
    codec: Codec
    handovers: list[Handover]
    every: int = 1
    last: Any = None

    def rehearse(self) -> None:
        if self.last is not None:
            self.codec.encode(self.last)

    def send(self, message: Any) -> None:
        if self.handovers:
            try:
                checked = self.codec.admit(message)
            except WireError as error:
                for handover in self.handovers:
                    handover.health.refuse(error.cause)
            else:
                for handover in self.handovers:
                    handover.put(checked)
        if self.writer.wanted:
            self.writer.send(self.codec.encode(message))
            self.last = message


@dataclass
class Yard:
    """What the stations of one process share.

    Attributes:
        watch: see node.py, NetworkNode.
        handovers: topic -> inputs in this process; topics that no node of this process writes have
            none here.
        later: frames for observers, to be sent when the step is over.
    """

    zmq: Any
    endpoints: Endpoints
    background: Background
    watch: Watch
    handovers: dict[str, list[Handover]] = field(default_factory=dict)
    later: Later = field(default_factory=deque)

    def tell_observers(self) -> None:
        """Sends what has waited for a quiet moment."""
        while self.later:
            tap, frame = self.later.popleft()
            tap.send(frame)


def outlets(name: str, spec: Spec, yard: Yard, codecs: Codecs) -> tuple[Outlet, ...]:
    """An output at work: first the outlets of slow readers, who have more to do with what comes."""
    topic = spec.remap.get(name, name)
    codec = codecs[TOPICS[name].message]
    made = []
    for every in (*spec.slow.get(name, ()), 1):
        thinned = rates.thinned(topic, every)
        handovers = yard.handovers.get(thinned, [])
        made.append(Outlet(_writer(name, thinned, spec, yard), codec, handovers, every))
    return tuple(made)


def _writer(name: str, topic: str, spec: Spec, yard: Yard) -> Writer:
    if TOPICS[name].port == "stream":
        readers = spec.readers.get(topic, [])
        return StreamWriter(yard.zmq, yard.endpoints, topic, readers, later=yard.later)
    if topic not in spec.boards:
        return LatestWriter(yard.zmq, yard.endpoints, topic)
    board = BoardWriter(spec.boards[topic], spec.bells.get(topic, ()))
    return BoardOutlet(yard.zmq, yard.endpoints, topic, board, yard.later)


def inlet(
    name: str, call: Callable[[], None] | None, spec: Spec, yard: Yard, codecs: Codecs
) -> Inlet:
    """An input at work.

    Args:
        call: what wakes the node when a message comes in memory; None: the input is passive.
    """
    info, topic = TOPICS[name], spec.remap.get(name, name)
    if name in spec.thinned:
        topic = rates.thinned(topic, spec.every)
    stream, wakes = info.port == "stream", call is not None
    every = spec.rates.get(name, 1)
    health = InputHealth(spec.input_period_ns(name), info.stale_after_periods, every)
    batch = STREAM_BATCH if stream else 1
    if topic in yard.handovers:
        handover = Handover(call, health, stream)
        yard.handovers[topic].append(handover)
        return Inlet(name, handover.take, handover.rehearse, health, batch, wakes, None)
    reader: Reader
    if stream:
        reader = StreamReader(yard.zmq, yard.endpoints.stream(topic, spec.name))
    elif topic in spec.boards:
        reader = BoardInlet(BoardReader(spec.boards[topic], spec.places[topic], wakes))
    else:
        reader = LatestReader(yard.zmq, yard.endpoints.topic(topic))
    decoded = Decoded(reader.receive, codecs[info.message].decode)
    return Inlet(name, decoded.take, decoded.rehearse, health, batch, wakes, reader)
