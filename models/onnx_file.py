"""Reads what matters for trust from an ONNX file's bytes, without the onnx package.

A walk over the protobuf wire format. Only fields that can carry metadata, operators or tensors are
entered, so a file is judged before a runtime builds anything from it. Field numbers: onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from safetypilot.models.errors import ModelError

# Operator sets that onnxruntime brings along itself; any other needs a library to be loaded.
DOMAINS = frozenset(("", "ai.onnx", "ai.onnx.ml", "com.microsoft"))

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DEPTH = 64
_METADATA = 14  # field of a model

# message -> {field: message it holds}; everything else is skipped
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", _METADATA: "entry", 25: "function"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "where"},
}


class Summary(NamedTuple):
    """What the bytes of a model say about it."""

    metadata: dict[str, str]
    domains: set[str]
    external: set[str]  # other files that tensors lie in, as they are named; empty: none do
    has_graph: bool


class _Torn(ValueError):
    """The bytes are not a whole protobuf message."""


def summarise(data: bytes) -> Summary:
    """Read metadata, operator domains and the files that external data lie in.

    Raises:
        ModelError: the bytes are not a whole ONNX model.
    """
    found = Summary({}, set(), set(), False)
    external, has_graph = False, False
    stack: list[tuple[str, memoryview, int]] = [("model", memoryview(data), 0)]
    try:
        while stack:
            kind, view, depth = stack.pop()
            if depth > _DEPTH:
                raise _Torn("nested too deeply")
            if kind == "entry":
                entry = {number: bytes(value).decode() for number, value in _pairs(view)}
                found.metadata[entry.get(1, "")] = entry.get(2, "")
                continue
            if kind == "where":
                entry = {number: bytes(value).decode() for number, value in _pairs(view)}
                if entry.get(1) == "location":
                    found.external.add(entry.get(2, ""))
                continue
            children = _CHILDREN.get(kind, {})
            for number, value in _fields(view):
                if isinstance(value, memoryview):
                    if number in children:
                        stack.append((children[number], value, depth + 1))
                        has_graph = has_graph or children[number] == "graph"
                    elif (kind, number) == ("node", 7):
                        found.domains.add(bytes(value).decode())
                elif (kind, number, value) == ("tensor", 14, 1):
                    external = True
    except (_Torn, UnicodeDecodeError) as error:
        raise ModelError(
            f"not a whole ONNX model ({error}); it may be half written or another kind of file"
        ) from None
    if external and not found.external:
        found.external.add("")  # it does not say where
    return found._replace(has_graph=has_graph)


def without_metadata(data: bytes) -> bytes:
    """The model's bytes but for its metadata entries, as they were before those were attached."""
    view, kept, position = memoryview(data), [], 0
    try:
        while position < len(view):
            begin = position
            tag, position = _varint(view, position)
            if tag & 7 == _VARINT:
                _, position = _varint(view, position)
            elif tag & 7 == _BYTES:
                size, position = _varint(view, position)
                position += size
            else:
                position += 8 if tag & 7 == _FIXED64 else 4
            if tag >> 3 != _METADATA:
                kept.append(view[begin:position])
    except _Torn as error:
        raise ModelError(f"not a whole ONNX model ({error})") from None
    return b"".join(kept)


def _pairs(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    for number, value in _fields(view):
        if isinstance(value, memoryview):
            yield number, value


def _fields(view: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    position, end = 0, len(view)
    while position < end:
        tag, position = _varint(view, position)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise _Torn("a field has number 0")
        if wire == _VARINT:
            value, position = _varint(view, position)
            yield number, value
            continue
        if wire == _BYTES:
            size, position = _varint(view, position)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise _Torn(f"a field has wire type {wire}")
        if position + size > end:
            raise _Torn(f"a field ends {position + size - end} bytes past the end")
        if wire == _BYTES:
            yield number, view[position : position + size]
        position += size


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(view):
            raise _Torn("it ends inside a number")
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _Torn("a number is too long")
