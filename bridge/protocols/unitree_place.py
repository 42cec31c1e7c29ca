"""How a simulated quadruped is put somewhere; no robot knows of it."""

from __future__ import annotations

from struct import Struct as Layout
from typing import NamedTuple

from safetypilot.bridge.contract import Vector
from safetypilot.bridge.protocols.dds import HEADER, Array, Struct
from safetypilot.bridge.protocols.unitree_image import Corrupted

PLACE_TOPIC = "rt/simulation/place"
PLACE = Struct(
    "safetypilot.msg.dds_.Place_", (("number", "uint32"), ("position", Array("float32", 12)))
)
_PLACE = Layout("<I12f")


class Place(NamedTuple):
    """Where a simulated quadruped is to be, at rest; its states tell the number once it is."""

    number: int
    position: Vector


def pack_place(place: Place) -> bytes:
    """As a sample."""
    return HEADER + _PLACE.pack(place.number, *place.position)


def unpack_place(sample: bytes) -> Place:
    """From a sample.

    Raises:
        Corrupted: it is none.
    """
    if sample[:2] != HEADER[:2] or len(sample) != len(HEADER) + _PLACE.size:
        raise Corrupted("length")
    number, *position = _PLACE.unpack_from(sample, len(HEADER))
    return Place(number, tuple(position))
