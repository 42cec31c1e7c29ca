"""CDR, the bytes of DDS samples: reading and writing what the types of ROS 2 are made of.

Little-endian, plain, version 1, which all of ROS 2 writes: numbers are aligned to their size, as
counted from behind the 4 bytes that say which encoding it is. Before the elements of an empty
sequence nothing is aligned.
"""

from __future__ import annotations

import struct

_PLAIN = b"\x00\x01"  # the encoding; two bytes of options follow
_U32, _TIME = struct.Struct("<I"), struct.Struct("<iI")


class CdrError(ValueError):
    """Bytes that are not what they have to be; the message names the cause in a word or two."""


class CdrReader:
    """Reads a sample from its start on."""

    def __init__(self, sample: bytes) -> None:
        """Raises CdrError: it is not in an encoding that is known here."""
        if sample[:2] != _PLAIN or len(sample) < 4:
            raise CdrError("encoding")
        self._sample = sample
        self.offset = 4

    def align(self, size: int) -> None:
        self.offset += -(self.offset - 4) % size

    def count(self) -> int:
        """An unsigned 32-bit number."""
        self.align(4)
        return int(self._unpack(_U32)[0])

    def time(self) -> tuple[int, int]:
        """Seconds and nanoseconds."""
        self.align(4)
        sec, nanosec = self._unpack(_TIME)
        return sec, nanosec

    def text(self) -> str:
        """Raises CdrError: too long, without its end, or no UTF-8."""
        length = self.count()
        end = self.offset + length
        raw = self._sample[self.offset : end]
        if not length or len(raw) != length or raw[-1]:
            raise CdrError("text")
        self.offset = end
        try:
            return raw[:-1].decode()
        except UnicodeDecodeError:
            raise CdrError("text") from None

    def texts(self, most: int = 1024) -> tuple[str, ...]:
        count = self.count()
        if count > most:
            raise CdrError("too many")
        return tuple([self.text() for _ in range(count)])

    def doubles(self) -> tuple[float, ...]:
        """A sequence of 64-bit numbers."""
        count = self.count()
        if not count:
            return ()
        self.align(8)
        if count > (len(self._sample) - self.offset) // 8:
            raise CdrError("cut off")
        numbers = struct.unpack_from(f"<{count}d", self._sample, self.offset)
        self.offset += 8 * count
        return numbers

    def end(self) -> None:
        """Raises CdrError: there is more than padding."""
        if len(self._sample) - self.offset > 3:
            raise CdrError("too long")

    def _unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        try:
            numbers = layout.unpack_from(self._sample, self.offset)
        except struct.error:
            raise CdrError("cut off") from None
        self.offset += layout.size
        return numbers


class CdrWriter:
    """Writes a sample from its start on."""

    def __init__(self) -> None:
        self._bytes = bytearray(_PLAIN + b"\x00\x00")

    @property
    def sample(self) -> bytes:
        return bytes(self._bytes)

    def align(self, size: int) -> CdrWriter:
        self._bytes += bytes(-(len(self._bytes) - 4) % size)
        return self

    def count(self, number: int) -> CdrWriter:
        self.align(4)
        self._bytes += _U32.pack(number)
        return self

    def time(self, sec: int, nanosec: int) -> CdrWriter:
        self.align(4)
        self._bytes += _TIME.pack(sec, nanosec)
        return self

    def text(self, text: str) -> CdrWriter:
        raw = text.encode() + b"\x00"
        self.count(len(raw))
        self._bytes += raw
        return self

    def texts(self, texts: tuple[str, ...]) -> CdrWriter:
        self.count(len(texts))
        for text in texts:
            self.text(text)
        return self

    def doubles(self, numbers: tuple[float, ...]) -> CdrWriter:
        self.count(len(numbers))
        if numbers:
            self.align(8)
            self._bytes += struct.pack(f"<{len(numbers)}d", *numbers)
        return self
