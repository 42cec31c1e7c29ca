"""One message, two layouts: the C structure that checksums are over, and the CDR on the network.

Both are little-endian with the same alignment of numbers. But C aligns and pads whole structures,
which CDR does not, so a few bytes shift; and what is between the fields has to be zero in one and
may be anything in the other. Where things are follows from the type alone.
"""

from __future__ import annotations

import numpy as np

from safetypilot.bridge.protocols.dds import HEADER, Array, Kind, Sequence, Struct

_SIZES = {"octet": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "float32": 4}


class Corrupted(ValueError):
    """A sample that is not what its topic carries.

    Attributes:
        cause: "encoding", "length" or "crc".
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Image:
    """The layouts of one type of fixed size.

    Attributes:
        size: of the C structure, bytes.
        offsets: of every field in it, by its path; of arrays, that of their first element.
        strides: of every array, bytes from one element to the next.
    """

    def __init__(self, struct: Struct) -> None:
        self.offsets: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        self._runs: list[list[int]] = []  # CDR and C offset of what shifts by the same, and length
        mask = bytearray()
        self.size, self._cdr_size = self._place(struct, "", 0, 0, mask)
        mask.extend(bytes(self.size - len(mask)))
        self._mask = np.frombuffer(bytes(mask), np.uint32)

    def to_cdr(self, image: bytes | bytearray) -> bytes:
        """A sample of DDS, its header before it."""
        parts: list[bytes | bytearray] = [HEADER]
        done = 0
        for cdr, c, length in self._runs:
            parts += bytes(cdr - done), image[c : c + length]
            done = cdr + length
        return b"".join(parts)

    def from_cdr(self, sample: bytes) -> bytes:
        """The C structure of a sample; what CDR pads inside of it stays as it came.

        Raises:
            Corrupted: it is no sample of this type.
        """
        if sample[:2] != HEADER[:2]:
            raise Corrupted("encoding")
        if len(sample) != len(HEADER) + self._cdr_size:
            raise Corrupted("length")
        parts: list[bytes] = []
        done = 0
        for cdr, c, length in self._runs:
            parts += bytes(c - done), sample[len(HEADER) + cdr : len(HEADER) + cdr + length]
            done = c + length
        return b"".join(parts)

    def blank(self, image: bytes) -> bytes:
        """The same structure, all padding zero."""
        return (np.frombuffer(image, np.uint32) & self._mask).tobytes()

    def _place(self, kind: Kind, path: str, c: int, cdr: int, mask: bytearray) -> tuple[int, int]:
        """Adds a field; where the next one may begin, in C and in CDR."""
        c = _aligned(c, _alignment(kind))
        self.offsets.setdefault(path, c)
        if isinstance(kind, Struct):
            for name, inner in kind.fields:
                c, cdr = self._place(inner, f"{path}.{name}".lstrip("."), c, cdr, mask)
            return _aligned(c, _alignment(kind)), cdr
        if isinstance(kind, Array):
            before = c
            for _ in range(kind.size):
                c, cdr = self._place(kind.kind, path, c, cdr, mask)
            self.strides[path] = (c - before) // kind.size
            return c, cdr
        size = _size(kind)
        cdr = _aligned(cdr, size)
        mask.extend(bytes(c - len(mask)) + b"\xff" * size)
        last = self._runs[-1] if self._runs else [0, 0, 0]
        if not self._runs or c - cdr != last[1] - last[0]:
            self._runs.append([cdr, c, size])
        else:
            last[2] = cdr + size - last[0]
        return c + size, cdr + size


def _alignment(kind: Kind) -> int:
    if isinstance(kind, Struct):
        return max(_alignment(inner) for _, inner in kind.fields)
    return _alignment(kind.kind) if isinstance(kind, Array) else _size(kind)


def _size(kind: Kind) -> int:
    if isinstance(kind, Struct | Array | Sequence) or kind not in _SIZES:
        raise TypeError(f"{kind} has no fixed size that is known here")
    return _SIZES[kind]


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
