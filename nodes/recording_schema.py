"""Messages as Protobuf, for recordings that other programs open.

Of the encodings that MCAP knows, Foxglove reads JSON and Protobuf without a plugin, Rerun only
Protobuf (it keeps JSON as opaque bytes: tried with 0.41); and Protobuf carries NaN, which JSON
does not. The schema is derived from the messages' annotations and travels in the file, so that a
recording is read by its own schema, fields by name, also after messages have gained fields.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from struct import Struct
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from safetypilot.nodes.kernel.messages import SCHEMAS, Spec, Stamps
from safetypilot.nodes.kernel.trace import Chain

PACKAGE = "safetypilot"
_FILE = "safetypilot.proto"
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    int: _Field.TYPE_INT64,
    bool: _Field.TYPE_BOOL,
    str: _Field.TYPE_STRING,
    float: _Field.TYPE_DOUBLE,
}
_ITEMS = {"<f4": _Field.TYPE_FLOAT, "|u1": _Field.TYPE_UINT32}


class SchemaError(Exception):
    """A recorded message cannot be read; says why."""


def _kinds(message: type[Any]) -> dict[str, Spec | Stamps | type[Any]]:
    """Field -> what it is: an array, stamps or a plain type."""
    kinds: dict[str, Spec | Stamps | type[Any]] = {}
    for name, hint in get_type_hints(message, include_extras=True).items():
        kinds[name] = hint
        if get_origin(hint) is Annotated:
            base, *extra = get_args(hint)
            special = [item for item in extra if isinstance(item, Spec | Stamps)]
            kinds[name] = special[0] if special else base
    return kinds


@cache
def file_descriptor() -> descriptor_pb2.FileDescriptorProto:
    """All messages of the graph in one Protobuf file."""
    file = descriptor_pb2.FileDescriptorProto(name=_FILE, package=PACKAGE, syntax="proto3")
    chain = file.message_type.add(name="Chain")
    for number, name in enumerate(Chain._fields, 1):
        chain.field.add(name=name, number=number, type=_Field.TYPE_INT64, label=1)
    for message in SCHEMAS:
        described = file.message_type.add(name=message.__name__)
        for number, (name, kind) in enumerate(_kinds(message).items(), 1):
            field = described.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
            if isinstance(kind, Stamps):
                field.type, field.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.Chain"
            elif isinstance(kind, Spec):
                field.type, field.label = _ITEMS[kind.dtype], _Field.LABEL_REPEATED
            else:
                field.type = _SCALARS[kind]
    return file


def schema_bytes() -> bytes:
    """What MCAP wants of a Protobuf schema: a FileDescriptorSet."""
    return bytes(descriptor_pb2.FileDescriptorSet(file=[file_descriptor()]).SerializeToString())


def full_name(message: type[Any]) -> str:
    """The name of a message in the schema."""
    return f"{PACKAGE}.{message.__name__}"


@cache
def _own_pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file_descriptor())
    return pool


def encoder(message: type[Any]) -> Callable[[Any], bytes]:
    """A function from a message of this type to its Protobuf bytes."""
    make = message_factory.GetMessageClass(_own_pool().FindMessageTypeByName(full_name(message)))
    kinds = _kinds(message)
    arrays = [name for name, kind in kinds.items() if isinstance(kind, Spec)]
    chains = {name: kind.number for name, kind in kinds.items() if isinstance(kind, Stamps)}

    def encode(value: Any) -> bytes:
        fields = dict(zip(value._fields, value, strict=True))
        for name in arrays:
            fields[name] = fields[name].ravel().tolist()
        for name, number in chains.items():
            stamps = Struct(f"<{number}q").unpack(fields[name])
            fields[name] = dict(zip(Chain._fields, stamps, strict=False))
        return bytes(make(**fields).SerializeToString())

    return encode


def decoder(message: type[Any], schema: bytes, dims: dict[str, int]) -> Callable[[bytes], Any]:
    """A function from recorded Protobuf bytes to a message of this type.

    Args:
        schema: the FileDescriptorSet of the recording.
        dims: sizes by symbol, of the graph that was recorded.

    Raises:
        SchemaError: the schema is broken, or lacks a field that has no default.
    """
    pool = descriptor_pool.DescriptorPool()
    try:
        for file in descriptor_pb2.FileDescriptorSet.FromString(schema).file:
            pool.Add(file)
        recorded = pool.FindMessageTypeByName(full_name(message))
    except (DecodeError, TypeError, KeyError) as error:
        raise SchemaError(f"the schema of {message.__name__} cannot be read: {error}") from None
    make = message_factory.GetMessageClass(recorded)
    present = [name for name in message._fields if name in recorded.fields_by_name]
    missing = set(message._fields) - set(present) - set(message._field_defaults)
    if missing:
        raise SchemaError(
            f"{message.__name__} was recorded without {', '.join(sorted(missing))}; "
            "it is a recording of another version"
        )
    kinds = _kinds(message)

    def decode(data: bytes) -> Any:
        try:
            value = make.FromString(data)
        except DecodeError as error:
            raise SchemaError(f"a recorded {message.__name__} is broken: {error}") from None
        return message(
            **{name: _plain(getattr(value, name), kinds[name], dims) for name in present}
        )

    return decode


def _plain(value: Any, kind: Spec | Stamps | type[Any], dims: dict[str, int]) -> Any:
    """A Protobuf field as the message's own."""
    if isinstance(kind, Stamps):
        stamps = [getattr(value, name) for name in Chain._fields[: kind.number]]
        return Struct(f"<{kind.number}q").pack(*stamps)
    if not isinstance(kind, Spec):
        return value
    array = np.array(value, kind.dtype)
    if len(kind.shape) == 1:
        return array
    rows, width = kind.sizes(dims)
    if rows is not None:
        return array.reshape(rows, -1)
    return array.reshape((-1, width) if width and array.size else (0, width or 0))
