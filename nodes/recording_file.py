"""Recordings on disk: MCAP files of a bounded size, one after another, and reading them back.

A file is written chunk by chunk, each complete on disk about once a second, so that one whose
writer was killed can be read up to its last chunk. Times in the file are when a message was sent.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns, time_ns
from typing import Any, BinaryIO, NamedTuple

import zstandard
from mcap.exceptions import McapError
from mcap.records import Channel, Message, Metadata, Schema
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, Writer

from safetypilot.nodes import recording_schema as schema
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.kernel.messages import SCHEMAS
from safetypilot.nodes.kernel.topics import TOPICS
from safetypilot.nodes.kernel.wire import Codec, WireError

METADATA = "safetypilot"
_LEAST_CHUNK, _LARGEST_CHUNK = 16 * 2**10, 2**20
_RESTART = 2**20  # a jump of numbers this wide is a restart, not a gap
_EVERY_STEP = ("observation", "command", "decision", "transition")  # one for every number
_BY_NAME = {message.__name__: message for message in SCHEMAS}


class RecordingError(Exception):
    """A recording cannot be read or made; says what to do."""


@dataclass(frozen=True)
class Settings:
    """How a recording is written.

    Attributes:
        path: the first file; the next are called NAME-2.mcap, NAME-3.mcap.
        topics: by the graph's names; empty: all.
        max_bytes: a file that has grown beyond it is followed by the next; 0: never.
        keep: files kept, the oldest are removed; 0: all.
        queue_bytes: what may wait for a slow disk before messages are dropped.
    """

    path: Path
    topics: tuple[str, ...] = ()
    max_bytes: int = 0
    keep: int = 0
    queue_bytes: int = 64 * 2**20


class _Topic:
    """How frames of one topic become records, and what came of them."""

    def __init__(self, kind: str, dims: dict[str, int]) -> None:
        self.message = message = TOPICS[kind].message
        self._every_step = kind in _EVERY_STEP
        self.decode = Codec(message, dims).decode
        self.encode = schema.encoder(message)
        self.last_seq = -1
        self.gaps = 0  # numbers that never came: not heard, or never sent

    def count(self, seq: int) -> None:
        skipped = seq - self.last_seq - 1
        if self._every_step and self.last_seq >= 0 and 0 < skipped < _RESTART:
            self.gaps += skipped
        self.last_seq = max(seq, self.last_seq)


class RecordingWriter:
    """Writes frames of a graph into MCAP files; may block on the disk.

    Args:
        graph: what `graph.json` says of the run.

    Attributes:
        messages: written for certain. refused: frames that were no messages, by cause.
    """

    def __init__(self, settings: Settings, graph: dict[str, Any]) -> None:
        self._settings = settings
        self._graph = graph
        dims = Interface.from_dict(graph["interface"]).dims
        self.topics = {
            name: _Topic(info["type"], dims)
            for name, info in graph["topics"].items()
            if not settings.topics or name in settings.topics
        }
        realtime = graph.get("clock") == "realtime"
        self._epoch_ns = time_ns() - monotonic_ns() if realtime else 0
        self._chunk_bytes = _chunk_bytes(graph, dims)
        self.path = settings.path
        self.files: list[Path] = []
        self.messages = 0
        self.refused: dict[str, int] = {}
        self._earlier_bytes = self._written_to = 0
        self._pending = 0  # messages of the chunk that is being filled
        self._file: BinaryIO | None = None

    @property
    def size_bytes(self) -> int:
        """Of all files so far."""
        return self._earlier_bytes + (self._file.tell() if self._file else 0)

    def open(self) -> None:
        """Begins the next file. Raises OSError."""
        self.path = self._next_path()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._written_to = 0
        self._file = self.path.open("wb")
        self.files.append(self.path)
        self._writer = Writer(self._file, chunk_size=self._chunk_bytes,
                              compression=CompressionType.ZSTD)  # fmt: skip
        self._writer.start(library="safetypilot")
        facts = {"graph": json.dumps(self._graph), "epoch_ns": str(self._epoch_ns)}
        self._writer.add_metadata(METADATA, facts)
        self._channels: dict[str, int] = {}
        encoded = schema.schema_bytes()
        ids: dict[type[Any], int] = {}
        for name, topic in self.topics.items():
            if topic.message not in ids:
                ids[topic.message] = self._writer.register_schema(
                    schema.full_name(topic.message), "protobuf", encoded
                )
            self._channels[name] = self._writer.register_channel(
                f"/{name}", "protobuf", ids[topic.message]
            )
        self._file.flush()
        self._written_to = self._file.tell()
        while self._settings.keep and len(self.files) > self._settings.keep:
            self.files.pop(0).unlink(missing_ok=True)

    def _next_path(self) -> Path:
        first, number = self._settings.path, len(self.files) + 1
        path = first if number == 1 else first.with_stem(f"{first.stem}-{number}")
        while path.exists() and path.is_file() and number > 1:  # of an earlier process
            number += 1
            path = first.with_stem(f"{first.stem}-{number}")
        return path

    def write(self, name: str, frame: bytes) -> None:
        """Takes in one frame. Raises OSError; then the messages since the last chunk are lost."""
        topic = self.topics.get(name)
        if topic is None:
            return
        try:
            message = topic.decode(frame)
        except WireError as error:
            self.refused[error.cause] = self.refused.get(error.cause, 0) + 1
            return
        if self._file is None:
            self.open()
        topic.count(message.seq)
        at_ns = message.sent_ns + self._epoch_ns
        data = topic.encode(message)
        # a sequence number of MCAP has 32 bits; ours is in the message
        self._writer.add_message(self._channels[name], at_ns, data, at_ns, message.seq & 0xFFFFFFFF)
        self._pending += 1
        self._after_chunk()

    def _after_chunk(self) -> None:
        """Where the message completed a chunk, that is on disk now."""
        if self._file is None or self._file.tell() == self._written_to:
            return
        self._file.flush()
        self._written_to = self._file.tell()
        self.messages += self._pending
        self._pending = 0
        if self._settings.max_bytes and self._written_to >= self._settings.max_bytes:
            self.close()

    def close(self) -> None:
        """Ends the file under way, with its index. Raises OSError."""
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            self._writer.finish()  # type: ignore[no-untyped-call]
            self._earlier_bytes += file.tell()
            self.messages += self._pending
        finally:
            self._pending = 0
            file.close()

    def abandon(self) -> int:
        """Lets go of the file under way, whose disk has failed; the messages that were lost."""
        file, self._file = self._file, None
        lost, self._pending = self._pending, 0
        if file is not None:
            self._earlier_bytes += self._written_to
            with suppress(OSError):  # it tries to write what it still holds
                file.close()
        return lost

    def gaps(self) -> dict[str, int]:
        """Numbers that were skipped, by topic."""
        return {name: topic.gaps for name, topic in self.topics.items() if topic.gaps}


def _chunk_bytes(graph: dict[str, Any], dims: dict[str, int]) -> int:
    """About a second of this graph's messages, so that a chunk is on disk once a second."""
    per_step = 4 * (4 * dims.get("O", 0) + 16 * dims.get("A", 0)) + 800
    wanted = int(per_step * float(graph.get("rate_hz") or 50.0))
    return min(max(wanted, _LEAST_CHUNK), _LARGEST_CHUNK)


class Recorded(NamedTuple):
    """One message of a recording."""

    topic: str
    message: Any


class Recording:
    """A recording that is read.

    Attributes:
        graph: what `graph.json` said of the run.

    Raises:
        RecordingError: it is not a recording of this program.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut_off = False  # the file has no end: its writer was killed; known after reading
        for record in self._records():
            if isinstance(record, Metadata) and record.name == METADATA:
                self.graph: dict[str, Any] = json.loads(record.metadata["graph"])
                return
        raise RecordingError(f"{path} is MCAP, but not a recording of safetypilot")

    def __iter__(self) -> Iterator[Recorded]:
        """All messages in the order in which they were written. Raises RecordingError."""
        dims = Interface.from_dict(self.graph["interface"]).dims
        schemas: dict[int, Schema] = {}
        decoders: dict[int, tuple[str, Callable[[bytes], Any]]] = {}
        for record in self._records():
            if isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, Channel) and record.id not in decoders:
                found = schemas.get(record.schema_id)
                message = _BY_NAME.get(found.name.rpartition(".")[2]) if found else None
                if found is not None and message is not None:
                    decode = self._decoder(message, found, dims)
                    decoders[record.id] = record.topic.removeprefix("/"), decode
            elif isinstance(record, Message) and record.channel_id in decoders:
                topic, decode = decoders[record.channel_id]
                try:
                    yield Recorded(topic, decode(record.data))
                except schema.SchemaError as error:
                    raise RecordingError(f"{self.path}: {error}") from None

    def _decoder(
        self, message: type[Any], found: Schema, dims: dict[str, int]
    ) -> Callable[[bytes], Any]:
        try:
            return schema.decoder(message, found.data, dims)
        except schema.SchemaError as error:
            raise RecordingError(f"{self.path}: {error}") from None

    def _records(self) -> Iterator[Any]:
        """Record after record, as far as they are whole."""
        read = False
        try:
            with self.path.open("rb") as file:
                for record in StreamReader(file, validate_crcs=True).records:
                    read = True
                    yield record
        except OSError as error:
            raise RecordingError(f"{self.path}: {error.strerror}") from None
        except (McapError, ValueError, struct.error, zstandard.ZstdError) as error:
            if not read:
                raise RecordingError(f"{self.path} is not an MCAP file: {error}") from None
            self.cut_off = True
