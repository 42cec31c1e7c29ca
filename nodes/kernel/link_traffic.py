"""All topics of a link at once: what waits to go out, what has come, what is to be acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import monotonic_ns
from typing import Any

from safetypilot.nodes.kernel.link_frames import Kind
from safetypilot.nodes.kernel.link_lanes import LatestOut, StreamIn, StreamOut

Say = Callable[..., bool]  # (kind, *fields) -> whether it is on its way
Frames = list[tuple[str, bytes]]  # (topic, frame)


class Traffic:
    """What crosses a link, by topic; knows no socket and no message.

    Args:
        values: topics that go out and of which only the newest counts -> ns between two of them.
        streams: topics that go out whole.
        incoming_values, incoming_streams: topics that the other host sends.
        say: says something in the conversation (link_talk.py).
        patience_ns: how long an acknowledgement may wait for a frame to go with.
    """

    def __init__(
        self,
        values: Mapping[str, int],
        streams: Iterable[str],
        incoming_values: Iterable[str],
        incoming_streams: Iterable[str],
        say: Say,
        patience_ns: int,
        now: Callable[[], int] = monotonic_ns,
    ) -> None:
        self._values = {topic: LatestOut(topic, period) for topic, period in values.items()}
        self._streams = {topic: StreamOut(topic) for topic in streams}
        self._incoming = {topic: StreamIn() for topic in incoming_streams}
        self._received = dict.fromkeys((*incoming_values, *self._incoming), 0)
        self._say, self._patience_ns, self._now = say, patience_ns, now
        self._owed: dict[str, int] = {}
        self._owe_until_ns = 0
        self.while_down = self.foreign = 0

    def restart(self, taken: Mapping[str, int] | None, known: bool) -> None:
        """A new session.

        Args:
            taken: what the other host has taken of our streams; None: it does not know of us.
            known: it is the same process as before.
        """
        self._owed = {}
        for value in self._values.values():
            value.restart()
        for topic, stream in self._streams.items():
            stream.restart(None if taken is None else taken.get(topic))
        if not known:
            for incoming in self._incoming.values():
                incoming.taken = None

    def taken(self) -> dict[str, int]:
        """What has been taken of the other host's streams."""
        return {t: s.taken for t, s in self._incoming.items() if s.taken is not None}

    # Out.

    def put(self, topic: str, frame: bytes, up: bool) -> None:
        """Something to be sent; without a session a stream waits, a value is of no use later."""
        stream = self._streams.get(topic)
        if stream is not None:
            stream.put(frame)
        elif up:
            self._values[topic].put(frame)
        else:
            self.while_down += 1

    def pump(self, round_trip_ns: int) -> None:
        """Sends what may be sent."""
        for value in self._values.values():
            value.pump(self._say_value, round_trip_ns)
        for stream in self._streams.values():
            stream.pump(self._say_stream)

    def _say_value(self, topic: str, number: int, frame: bytes) -> bool:
        if not self._say(Kind.LATEST, topic, number, frame, self._owed):
            return False
        self._owed = {}
        return True

    def _say_stream(self, topic: str, number: int, frame: bytes) -> bool:
        return self._say(Kind.STREAM, topic, number, frame)

    # In.

    def take(self, kind: Kind, fields: list[Any], newest: dict[str, bytes]) -> Frames:
        """Takes in what the other host says of topics.

        Args:
            newest: where values go, which may yet be overtaken by what has come as well.

        Returns:
            Messages of streams.
        """
        if kind is Kind.TAKEN:
            self._credit(fields[0])
            return []
        topic, number, frame = fields[:3]
        stream = self._incoming.get(topic)
        if topic not in self._received or (stream is not None) != (kind is Kind.STREAM):
            self.foreign += 1
            return []
        self._owe(topic, number)
        self._received[topic] += 1
        if stream is not None:
            return [(topic, frame)] if stream.take(number) else []
        self._credit(fields[3])
        newest[topic] = frame
        return []

    def _credit(self, taken: Mapping[Any, Any]) -> None:
        for topic, number in taken.items():
            out = self._values.get(topic) or self._streams.get(topic)
            if out is not None and type(number) is int:
                out.acknowledge(number)

    # Acknowledgements: with the next value that goes out anyway, or by themselves after a while.

    def _owe(self, topic: str, number: int) -> None:
        if not self._owed:
            self._owe_until_ns = self._now() + self._patience_ns
        self._owed[topic] = number

    def due_ns(self, otherwise_ns: int) -> int:
        """When `acknowledge` is to be called at the latest, if that is earlier."""
        return min(otherwise_ns, self._owe_until_ns) if self._owed else otherwise_ns

    def acknowledge(self, now_ns: int) -> None:
        """Says what has been taken, if it has waited long enough."""
        if self._owed and now_ns >= self._owe_until_ns and self._say(Kind.TAKEN, self._owed):
            self._owed = {}

    def summary(self) -> dict[str, Any]:
        values = {
            topic: {"sent": value.sent, "overtaken": value.overtaken}
            for topic, value in self._values.items()
        }
        streams = {
            topic: {"sent": stream.taken, "waiting": stream.waiting, "dropped": stream.dropped}
            for topic, stream in self._streams.items()
        }
        received = {
            topic: {"received": count} | _lost(self._incoming.get(topic))
            for topic, count in self._received.items()
        }
        return {
            "out": values | streams,
            "in": received,
            "while_down": self.while_down,
            "foreign": self.foreign,
        }


def _lost(stream: StreamIn | None) -> dict[str, int]:
    return {} if stream is None else {"lost": stream.lost}
