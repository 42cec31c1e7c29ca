"""The checksum of Unitree's low-level messages.

Polynomial 04C11DB7, begun with FFFFFFFF, not reflected, over 32-bit words of the C structure, most
significant bit first; the last word is the checksum itself. zlib's CRC-32 is the same but for the
order of bits, so bits are turned around on the way in and out: a hundred times as fast as a loop.
"""

from __future__ import annotations

import zlib
from array import array

_TURNED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def checksum(image: bytes | bytearray | memoryview) -> int:
    """Of a whole structure of 32-bit words, whose last word does not count."""
    words = array("I", bytes(image[:-4]))
    words.byteswap()
    turned = zlib.crc32(words.tobytes().translate(_TURNED)) ^ 0xFFFFFFFF
    return int.from_bytes(turned.to_bytes(4, "little").translate(_TURNED), "big")
