"""Messages to bytes and back: one msgpack array per frame, checked field by field on arrival.

Frame: `[schema id, version, field, field, ...]`; an array field is `[shape, bytes]` with the dtype
fixed by the schema. Decoding never raises anything but `WireError`, whose `cause` is a short name
that receivers count by. Arrays are read-only views into the frame, not copies.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, prod
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgpack
import numpy as np

from safetypilot.nodes.kernel import quick
from safetypilot.nodes.kernel.messages import SCHEMAS, Spec, Stamps

MAX_FRAME_BYTES = 16 * 2**20
_INT_LIMIT = 2**63

Check = Callable[[Any], Any]


class WireError(Exception):
    """A frame that may not enter the node; `cause` is what it is counted under."""

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause


def _check_int(value: Any) -> int:
    if type(value) is not int or not -_INT_LIMIT <= value < _INT_LIMIT:
        raise WireError("wrong type", f"wanted an integer, got {type(value).__name__}")
    return value


def _check_count(value: Any) -> int:
    if type(value) is not int or value >= _INT_LIMIT:
        raise WireError("wrong type", f"wanted an integer, got {type(value).__name__}")
    if value < 0:
        raise WireError("negative", f"{value}")
    return value


def _check_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise WireError("wrong type", f"wanted a boolean, got {type(value).__name__}")
    return value


def _check_str(value: Any) -> str:
    if type(value) is not str or len(value) > 4096:
        raise WireError("wrong type", f"wanted a short text, got {type(value).__name__}")
    return value


def _check_any_float(value: Any) -> float:
    if type(value) is not float:
        raise WireError("wrong type", f"wanted a float, got {type(value).__name__}")
    return value


def _check_float(value: Any) -> float:
    if type(value) is not float:
        raise WireError("wrong type", f"wanted a float, got {type(value).__name__}")
    if not isfinite(value):
        raise WireError("not finite", f"{value}")
    return value


def _array_check(spec: Spec, dims: dict[str, int]) -> Check:
    dtype = np.dtype(spec.dtype)
    expected = spec.sizes(dims)
    fixed = all(size is not None for size in expected)
    rank, itemsize, finite = len(expected), dtype.itemsize, spec.finite and dtype.kind == "f"
    fixed_bytes = prod(size or 0 for size in expected) * itemsize
    wanted = list(expected)

    def check(value: Any) -> np.ndarray[Any, Any]:
        if type(value) is not list or len(value) != 2:
            raise WireError("wrong type", f"wanted an array, got {type(value).__name__}")
        shape, raw = value
        if type(raw) is not bytes or type(shape) is not list or len(shape) != rank:
            raise WireError("wrong shape", f"wanted {spec.shape}, got {shape!r:.60}")
        if fixed:
            if shape != wanted or len(raw) != fixed_bytes:
                raise WireError("wrong shape", f"wanted {wanted}, got {shape!r:.60}")
        else:
            size = itemsize
            for got, want in zip(shape, expected, strict=True):
                if type(got) is not int or got < 0 or (want is not None and got != want):
                    raise WireError("wrong shape", f"wanted {spec.shape}, got {shape!r:.60}")
                size *= got
            if size != len(raw):
                raise WireError("wrong shape", f"{shape!r:.60} does not fit {len(raw)} bytes")
        array = np.frombuffer(raw, dtype)
        if finite:
            if array.size <= 16:
                for number in array.tolist():
                    if not isfinite(number):
                        raise WireError("not finite", f"{number}")
            elif not np.isfinite(array).all():
                raise WireError("not finite", "an array field")
        return array if rank == 1 else array.reshape(shape)

    return check


def _stamps_check(stamps: Stamps) -> Check:
    size = 8 * stamps.number

    def check(value: Any) -> bytes:
        if type(value) is not bytes or len(value) != size:
            raise WireError("wrong type", f"wanted {size} bytes, got {type(value).__name__}")
        return value

    return check


_SCALARS: dict[Any, Check] = {
    int: _check_int,
    bool: _check_bool,
    str: _check_str,
    float: _check_float,
}


def _field_check(hint: Any, dims: dict[str, int]) -> tuple[Check, Spec | None]:
    if get_origin(hint) is Annotated:
        base, *extra = get_args(hint)
        for item in extra:
            if isinstance(item, Spec):
                return _array_check(item, dims), item
            if isinstance(item, Stamps):
                return _stamps_check(item), None
        return (_check_any_float if base is float else _check_count), None
    return _SCALARS[hint], None


_KINDS: dict[Check, str] = {
    _check_int: "int",
    _check_count: "count",
    _check_bool: "bool",
    _check_str: "str",
    _check_any_float: "any float",
    _check_float: "float",
}


def _field(hint: Any, dims: dict[str, int]) -> quick.Field:
    """A field as the quick way wants to know it."""
    check, spec = _field_check(hint, dims)
    if spec is None:
        kind = _KINDS.get(check, "stamps")
        stamps = [item.number for item in get_args(hint) if isinstance(item, Stamps)]
        return quick.Field(kind, check, size=8 * sum(stamps))
    dtype = np.dtype(spec.dtype)
    sizes = tuple(-1 if size is None else size for size in spec.sizes(dims))
    known = None if -1 in sizes else sizes
    finite = spec.finite and dtype.kind == "f"
    return quick.Field("array", check, prod(sizes) * dtype.itemsize, known, spec.dtype, finite)


class Codec:
    """Encodes and decodes one message type for a graph whose sizes are known.

    Args:
        message: one of `messages.SCHEMAS`.
        dims: sizes by symbol, for example {"O": 4, "A": 2}; other symbols may be any size.
    """

    def __init__(self, message: type[Any], dims: dict[str, int]) -> None:
        self.message = message
        self._head = list(SCHEMAS[message])
        hints = get_type_hints(message, include_extras=True)
        fields = tuple(_field(hints[name], dims) for name in message._fields)
        self._checks = tuple(field.check for field in fields)
        self._arrays = tuple(
            (index, np.dtype(field.dtype)) for index, field in enumerate(fields) if field.dtype
        )
        self._floats = tuple(i for i, f in enumerate(fields) if f.kind.endswith("float"))
        self._length = 2 + len(fields)
        self._make = message._make
        self._quick = quick.decoder(message, SCHEMAS[message], fields)
        self.encode = quick.encoder(SCHEMAS[message], fields)  # message -> frame

    def admit(self, message: Any) -> Any:
        """What a message would be after its way through a frame, for readers in this process.

        Arrays are copied and checked as `decode` does, numbers and texts taken at their word.

        Raises:
            WireError: an array or a float is not as the schema says.
        """
        fields, checks = list(message), self._checks
        for index, dtype in self._arrays:
            array = np.asarray(fields[index], dtype)
            fields[index] = checks[index]([list(array.shape), array.tobytes()])
        for index in self._floats:
            fields[index] = checks[index](float(fields[index]))
        return self._make(fields)

    def decode(self, frame: bytes | memoryview) -> Any:
        """The message in a frame.

        Raises:
            WireError: anything about the frame is not as the schema says.
        """
        if len(frame) > MAX_FRAME_BYTES:
            raise WireError("too large", f"{len(frame)} bytes, at most {MAX_FRAME_BYTES}")
        try:
            values = msgpack.unpackb(frame, strict_map_key=False)
        except Exception as error:  # noqa: BLE001  msgpack raises a dozen unrelated types on garbage
            raise WireError("not msgpack", str(error)[:80]) from None
        message = self._quick(values)
        return self._explain(values) if message is None else message

    def _explain(self, values: Any) -> Any:
        """The message, looked at field by field, to say what is wrong with one that is refused."""
        if type(values) is not list or len(values) < 2:
            raise WireError("not a message", type(values).__name__)
        if values[0] != self._head[0] or type(values[0]) is not int:
            raise WireError("unknown schema", f"{values[0]!r:.40}, wanted {self._head[0]}")
        if values[1] != self._head[1] or type(values[1]) is not int:
            raise WireError(
                "wrong version",
                f"{values[1]!r:.40}, this node speaks {self._head[1]}; upgrade both ends together",
            )
        if len(values) != self._length:
            raise WireError("wrong length", f"{len(values)} fields, wanted {self._length}")
        return self._make([c(v) for c, v in zip(self._checks, values[2:], strict=True)])


def codecs(dims: dict[str, int]) -> dict[type[Any], Codec]:
    """A codec for every message type, by type."""
    return {message: Codec(message, dims) for message in SCHEMAS}
