"""What two links say to each other, and whose time the stamps in it are.

Frame: a msgpack array `[kind, session, field, ...]`; the fields of each kind are in `FIELDS`. A
session begins with a greeting and ends with silence or a goodbye; what comes from an earlier one is
not looked at.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Any, get_type_hints

import msgpack

from safetypilot.nodes.kernel.messages import SCHEMAS, Observation, Stamps
from safetypilot.nodes.kernel.wire import WireError

VERSION = 1
NOW, BULK = (
    b"n",
    b"b",
)  # the two connections: streams have their own, so that no value waits for one
_REMEMBERED = 4096  # observations whose stamps are known by their number
_FUTURE = ("valid_until_ns",)  # the one stamp that may lie ahead of the clock
_NO_TIMES = ("device_ns",)  # of a clock that is nobody's here
_ANSWERS = ("proposal", "risk", "recovery", "command")  # each to an observation, by its number


class Kind(IntEnum):
    HELLO = 0
    WELCOME = 1
    NO = 2
    READY = 3
    PING = 4
    PONG = 5
    LATEST = 6
    STREAM = 7
    TAKEN = 8
    BYE = 9
    ASK = 10
    ANSWER = 11
    BRING = 12


FIELDS: dict[Kind, tuple[type[Any], ...]] = {
    # version, host, run, process, graph; what it has taken of streams, and of which process of ours
    Kind.HELLO: (int, str, str, int, str, int, dict),
    Kind.WELCOME: (str, str, int, int, dict),  # host, run, process; as above
    Kind.NO: (str,),  # why
    Kind.READY: (bool,),  # knows the clocks, takes data; whether it knows that of the other
    Kind.PING: (int,),  # asked_ns
    Kind.PONG: (int, int, int),  # asked_ns, heard_ns, answered_ns
    Kind.LATEST: (str, int, bytes, dict),  # topic, number, frame, taken
    Kind.STREAM: (str, int, bytes),  # topic, number, frame
    Kind.TAKEN: (dict,),  # topic -> number of the last frame taken
    Kind.BYE: (str,),  # why
    Kind.ASK: (int, str, str, dict),  # number, node, request, arguments
    Kind.ANSWER: (int, bool, dict),  # number, whether it was done, {"is": result, or why not}
    Kind.BRING: (int, str, dict, str, bytes),  # a swap: number, node, arguments, file's name, model
}
ON_BULK = (Kind.STREAM, Kind.BRING)
_KINDS = {int(kind): kind for kind in Kind}


def pack(kind: Kind, session: int, *fields: Any) -> bytes:
    frame: bytes = msgpack.packb((int(kind), session, *fields))
    return frame


def unpack(frame: bytes) -> tuple[Kind, int, list[Any]]:
    """Kind, session and fields.

    Raises:
        WireError: the frame is not as `FIELDS` says.
    """
    try:
        values = msgpack.unpackb(frame)
        kind = _KINDS[values[0]]
        session, fields = values[1], values[2:]
    except Exception:  # noqa: BLE001  msgpack raises a dozen unrelated types on garbage
        raise WireError("malformed", f"{frame[:20]!r}") from None
    wanted = FIELDS[kind]
    if type(session) is not int or [type(field) for field in fields] != list(wanted):
        raise WireError("malformed", f"{kind.name.lower()} {fields!r:.60}")
    return kind, session, fields


class _Times:
    """Where in a message there are times."""

    def __init__(self, message: type[Any]) -> None:
        hints = get_type_hints(message, include_extras=True)
        names = [
            name
            for name in message._fields
            if name.endswith("_ns") and not name.endswith("_age_ns") and name not in _NO_TIMES
        ]
        self.names = tuple(names)
        self.past = tuple(message._fields.index(n) for n in names if n not in _FUTURE)
        self.ahead = tuple(message._fields.index(n) for n in names if n in _FUTURE)
        self.chains = tuple(
            (index, Struct(f"<{item.number}q"))
            for index, name in enumerate(message._fields)
            for item in getattr(hints[name], "__metadata__", ())
            if isinstance(item, Stamps)
        )
        self.stamp = message._fields.index("stamp_ns")


TIMES = {message: _Times(message) for message in SCHEMAS}


class Translator:
    """Makes times of this host's clock of those in what comes from the other host.

    An observation is stamped once. Arbiter and plant know it by that stamp, so what answers it
    comes back with exactly the stamp it had here, whatever is known of the clocks. Nothing that has
    come was sent after now.

    Args:
        home: observations are made on this host: what answers one that was not is refused.
    """

    def __init__(self, home: bool) -> None:
        self._home = home
        self._stamps: dict[int, int] = {}

    def note(self, observation: Observation) -> None:
        """Remembers an observation that goes out or has come."""
        self._stamps.setdefault(observation.seq, observation.stamp_ns)
        if len(self._stamps) > _REMEMBERED:
            del self._stamps[next(iter(self._stamps))]

    def here(self, topic: str, message: Any, offset_ns: int, now_ns: int) -> Any:
        """The message in this host's time.

        Raises:
            WireError: it answers an observation that was never sent.
        """

        def ours(there_ns: int) -> int:
            return max(0, min(there_ns + offset_ns, now_ns)) if there_ns else 0

        times = TIMES[type(message)]
        fields = list(message)
        for index in times.past:
            fields[index] = ours(fields[index])
        for index in times.ahead:
            fields[index] += offset_ns
        for index, struct in times.chains:
            fields[index] = struct.pack(*map(ours, struct.unpack(fields[index])))
        if topic != "model":  # which is about no observation
            self._restore(topic, message.seq, fields, times.stamp)
        made = message._make(fields)
        if topic == "observation":
            self.note(made)
        return made

    def _restore(self, topic: str, seq: int, fields: list[Any], index: int) -> None:
        stamp_ns = self._stamps.get(seq)
        if stamp_ns is not None:
            fields[index] = stamp_ns
        elif self._home and topic in _ANSWERS:
            raise WireError("unknown observation", f"{topic} for observation {seq}")
