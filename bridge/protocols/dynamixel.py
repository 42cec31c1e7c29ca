"""Dynamixel protocol 2.0 on the wire: packets, their checksum and the stuffing of bytes.

    FF FF FD 00 | id | length (2) | instruction | parameters | CRC (2)

Length counts from the instruction to the CRC. From the instruction to the last parameter another FD
follows each FF FF FD, so that no header appears inside a packet. Numbers are little-endian.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

PING, READ, WRITE, REG_WRITE, ACTION, REBOOT, STATUS = 0x01, 0x02, 0x03, 0x04, 0x05, 0x08, 0x55
SYNC_READ, SYNC_WRITE, BULK_READ, BULK_WRITE = 0x82, 0x83, 0x92, 0x93
BROADCAST = 0xFE
LARGEST_ID = 0xFC

HEADER = b"\xff\xff\xfd"
STUFFED = HEADER + b"\xfd"
OVERHEAD = 11  # bytes of a status packet that carry no data
LONGEST = 1024  # the largest length that is believed

ALERT = 0x80  # bit of a status packet's error byte: the motor has a hardware error
RESULT_FAIL, BAD_INSTRUCTION, BAD_CRC, BAD_RANGE, BAD_LENGTH, BAD_LIMIT, BAD_ACCESS = range(1, 8)
ERRORS = {
    RESULT_FAIL: "could not do it",
    BAD_INSTRUCTION: "does not know the instruction",
    BAD_CRC: "got a damaged packet",
    BAD_RANGE: "does not take the value: out of range, or its watchdog has expired",
    BAD_LENGTH: "got fewer bytes than the register has",
    BAD_LIMIT: "does not take the value: beyond a limit register",
    BAD_ACCESS: "does not give access: read-only, undefined, or locked while torque is on",
}

_PATIENCE_NS = 20_000_000  # after so long the rest of a packet does not come any more


def _remainder(high: int) -> int:
    crc = high << 8
    for _ in range(8):
        crc = (crc << 1) ^ 0x8005 if crc & 0x8000 else crc << 1
    return crc & 0xFFFF


_TABLE = tuple(map(_remainder, range(256)))


def crc16(data: Iterable[int], crc: int = 0) -> int:
    """The checksum of bytes: polynomial 8005, most significant bit first."""
    table = _TABLE
    for byte in data:
        crc = (crc << 8 & 0xFF00) ^ table[crc >> 8 ^ byte]
    return crc


def packet(motor: int, instruction: int, parameters: bytes = b"") -> bytes:
    """A whole packet.

    Args:
        motor: its id, or BROADCAST.
        parameters: of a status packet the first is the error.
    """
    body = (bytes((instruction,)) + parameters).replace(HEADER, STUFFED)
    size = len(body) + 2
    head = HEADER + bytes((0, motor, size & 0xFF, size >> 8))
    return head + body + crc16(body, crc16(head)).to_bytes(2, "little")


def sync_write(address: int, values: Sequence[tuple[int, bytes]]) -> bytes:
    """The packet that writes the same register of several motors at once: (id, bytes) each."""
    size = len(values[0][1])
    data = b"".join(bytes((motor,)) + value for motor, value in values)
    return packet(BROADCAST, SYNC_WRITE, address.to_bytes(2, "little") + bytes((size, 0)) + data)


class Packet(NamedTuple):
    """What was received, without stuffing."""

    motor: int
    instruction: int
    parameters: bytes


class Receiver:
    """Finds packets in a stream of bytes, whatever else is in it.

    What is wrong is reported by cause, once for each wrong packet or piece of noise, and then
    forgotten: "noise", "length", "crc" or "incomplete".
    """

    def __init__(self, refuse: Callable[[str], None]) -> None:
        self._refuse = refuse
        self._buffer = bytearray()
        self._began_ns = 0  # when the first bytes of what is in the buffer came

    def feed(self, data: bytes, now_ns: int) -> list[Packet]:
        """The packets that are complete with these bytes."""
        buffer = self._buffer
        if not buffer:
            self._began_ns = now_ns
        elif now_ns - self._began_ns > _PATIENCE_NS:
            self._skip("incomplete")
            self._began_ns = now_ns
        buffer += data
        found: list[Packet] = []
        while self._seek():
            size = buffer[5] | buffer[6] << 8
            if not 3 <= size <= LONGEST:
                self._skip("length")
                continue
            if len(buffer) < 7 + size:
                break
            sent = buffer[size + 5] | buffer[size + 6] << 8
            if crc16(memoryview(buffer)[: size + 5]) != sent:
                self._skip("crc")
                continue
            body = bytes(buffer[7 : size + 5]).replace(STUFFED, HEADER)
            found.append(Packet(buffer[4], body[0], body[1:]))
            del buffer[: size + 7]
            self._began_ns = now_ns
        return found

    def _skip(self, cause: str) -> None:
        """Past the header of what is no packet; a good one may begin right behind it."""
        self._refuse(cause)
        del self._buffer[: len(HEADER)]

    def _seek(self) -> bool:
        """Whether the buffer begins with a header and a length, after noise was dropped."""
        buffer, noisy = self._buffer, False
        while True:
            at = buffer.find(HEADER)
            if at < 0:  # the last two may be the beginning of one
                keep = 2 if buffer[-2:] == b"\xff\xff" else 1 if buffer[-1:] == b"\xff" else 0
                noisy |= len(buffer) > keep
                del buffer[: len(buffer) - keep]
                break
            noisy |= at > 0
            del buffer[:at]
            if len(buffer) < 7:
                break
            if buffer[3] == 0 and (buffer[4] <= LARGEST_ID or buffer[4] == BROADCAST):
                break
            noisy = True
            del buffer[: len(HEADER)]
        if noisy:
            self._refuse("noise")
        return len(buffer) >= 7
