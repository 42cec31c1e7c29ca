"""Frames to messages and back in one function per message type, written out when it is made.

What wire.py does field by field, through a check for each, is one expression here: a fraction of
the time when caches are warm, and more so when they are not, since there is less to load. A frame
that does not pass is given back, so that wire.py says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, prod
from struct import Struct
from typing import Any, NamedTuple

import msgpack
import numpy as np

_FEW = 64  # numbers that are looked at one by one for finiteness


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        kind: int, count, bool, str, any float, float, stamps or array.
        size: bytes, of stamps and of arrays whose shape is known.
        shape: of an array; None: not known, `check` does it.
        check: the one of wire.py.
    """

    kind: str
    check: Callable[[Any], Any]
    size: int = 0
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    finite: bool = False


_TESTS = {
    "int": "type({0}) is int and -LIMIT <= {0} < LIMIT",
    "count": "type({0}) is int and 0 <= {0} < LIMIT",
    "bool": "type({0}) is bool",
    "str": "type({0}) is str and len({0}) <= 4096",
    "any float": "type({0}) is float",
    "float": "type({0}) is float and isfinite({0})",
    "stamps": "type({0}) is bytes and len({0}) == {1}",
    "array": "type({0}) is list and len({0}) == 2 and {0}[0] == {2}"
    " and type({0}[1]) is bytes and len({0}[1]) == {1}",
}


def decoder(
    message: type[Any], head: tuple[int, int], fields: tuple[Field, ...]
) -> Callable[[Any], Any]:
    """A function from what msgpack unpacked to a message, or to None where something is odd.

    It raises what `check` raises for arrays of unknown shape.
    """
    names = [f"f{number}" for number in range(len(fields))]
    tests = [f"type(a) is int and a == {head[0]} and type(b) is int and b == {head[1]}"]
    values = []
    scope: dict[str, Any] = {
        "isfinite": isfinite, "LIMIT": 1 << 63, "frombuffer": np.frombuffer, "message": message,
        "new": tuple.__new__,
    }  # fmt: skip
    for name, field in zip(names, fields, strict=True):
        if field.kind == "array" and field.shape is None:
            scope[f"check_{name}"] = field.check
            values.append(f"check_{name}({name})")
            continue
        shape = list(field.shape or ())
        tests.append(_TESTS[field.kind].format(name, field.size, shape))
        if field.kind != "array":
            values.append(name)
            continue
        if field.finite:
            tests.append(_finite(name, field, scope))
        scope[f"dtype_{name}"] = np.dtype(field.dtype)
        reshaped = f".reshape({tuple(shape)})" if len(shape) != 1 else ""
        values.append(f"frombuffer({name}[1], dtype_{name}){reshaped}")
    text = (
        f"def decode(values):\n"
        f"    if type(values) is not list or len(values) != {len(fields) + 2}:\n"
        f"        return None\n"
        f"    a, b, {', '.join(names)} = values\n"
        f"    if not ({' and '.join(tests)}):\n"
        f"        return None\n"
        f"    return new(message, ({', '.join(values)},))\n"
    )
    return _written(text, scope, "decode")


def _finite(name: str, field: Field, scope: dict[str, Any]) -> str:
    """A test of an array's bytes; float32 cannot overflow the sum."""
    count = prod(field.shape or ())
    if count <= _FEW:
        scope[f"unpack_{name}"] = Struct(f"<{count}f").unpack
        return f"isfinite(sum(unpack_{name}({name}[1])))"
    scope["all_finite"] = lambda raw: bool(np.isfinite(np.frombuffer(raw, "<f4")).all())
    return f"all_finite({name}[1])"


def encoder(head: tuple[int, int], fields: tuple[Field, ...]) -> Callable[[Any], bytes]:
    """A function from a message to its frame; arrays of another dtype are converted."""
    names = [f"f{number}" for number in range(len(fields))]
    scope: dict[str, Any] = {"pack": msgpack.Packer().pack}
    lines, values = [], []
    for name, field in zip(names, fields, strict=True):
        if field.kind == "array":
            scope[f"dtype_{name}"] = np.dtype(field.dtype)
            lines.append(f"    if {name}.dtype is not dtype_{name}:\n")
            lines.append(f"        {name} = {name}.astype(dtype_{name})\n")
            values.append(f"({name}.shape, {name}.tobytes())")
        else:
            values.append(f"float({name})" if field.kind.endswith("float") else name)
    text = (
        f"def encode(message):\n"
        f"    {', '.join(names)}, = message\n"
        f"{''.join(lines)}"
        f"    return pack(({head[0]}, {head[1]}, {', '.join(values)}))\n"
    )
    return _written(text, scope, "encode")


def _written(text: str, scope: dict[str, Any], name: str) -> Callable[[Any], Any]:
    exec(text, scope)
    made: Callable[[Any], Any] = scope[name]
    return made
