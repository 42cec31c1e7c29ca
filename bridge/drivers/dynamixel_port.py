"""The vendor's packet handler, on a serial port that never waits longer than it may.

The SDK builds, sends and parses every packet but the e-stop's. Three of its functions are replaced:
`addStuffing` returns a stuffed copy that its caller drops, so the packet goes out as it was;
`removeStuffing` takes FF FD FD for stuffing once it has removed one; `updateCRC` makes its table
anew for each packet. All three are those of `protocols/dynamixel.py` here.
"""

from __future__ import annotations

import os
import select
from time import monotonic_ns

import serial
from dynamixel_sdk import Protocol2PacketHandler

from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.protocols.dynamixel import HEADER, OVERHEAD, STUFFED, crc16


class Packets(Protocol2PacketHandler):  # type: ignore[misc]  # the SDK has no types
    """The SDK's packet handler with what is wrong or slow in it replaced."""

    def updateCRC(self, crc: int, data: list[int], size: int) -> int:  # noqa: N802  # the SDK's name
        return crc16(data[:size], crc)

    def addStuffing(self, packet: list[int]) -> list[int]:  # noqa: N802
        return _restuff(packet, HEADER, STUFFED)

    def removeStuffing(self, packet: list[int]) -> list[int]:  # noqa: N802
        return _restuff(packet, STUFFED, HEADER)


def _restuff(packet: list[int], old: bytes, new: bytes) -> list[int]:
    """Replaces in instruction and parameters, in place, and corrects the length."""
    end = 5 + (packet[5] | packet[6] << 8)
    body = bytes(packet[7:end])
    if old in body:
        packet[7:end] = body = body.replace(old, new)
        packet[5:7] = (len(body) + 2).to_bytes(2, "little")
    return packet


class Port:
    """A serial port as the SDK's packet handler wants it, which gives it only what is here already.

    Waiting is `wait`'s business. What a parse took and could not complete goes back.

    Attributes:
        fd: for who has to write from another thread; -1: closed.
        low_latency: whether the adapter sends on what it receives at once.
    """

    is_using = False

    def __init__(self, path: str, baud: int) -> None:
        """Open it, for this process alone.

        Raises:
            DriverError: it cannot be opened.
        """
        try:
            self._serial = serial.Serial(path, baud, timeout=0, write_timeout=0, exclusive=True)
        except (OSError, ValueError) as error:  # SerialException is an OSError
            raise DriverError(
                f"the port {path} cannot be opened at {baud} baud: {error}; is the adapter plugged "
                "in, may you use it (group dialout), and does no other process have it?"
            ) from error
        self.fd = self._serial.fileno()
        try:
            self._serial.set_low_latency_mode(True)
            self.low_latency = True
        except (OSError, ValueError, NotImplementedError):
            self.low_latency = False
        self._buffer = bytearray()
        self._at = 0  # up to where a parse has taken bytes
        self._starved = False

    @property
    def waiting(self) -> int:
        """How many bytes are here and not parsed."""
        return len(self._buffer)

    def wait(self, count: int, deadline_ns: int) -> bool:
        """Whether so many bytes are here; waits for them until the deadline.

        Raises:
            DriverError: the port is gone.
        """
        while len(self._buffer) < count:
            if self._take():
                continue
            left_ns = deadline_ns - monotonic_ns()
            if left_ns <= 0:
                return False
            if select.select((self.fd,), (), (), left_ns / 1e9)[0] and not self._take():
                raise DriverError("the port is gone: it has something to read, and nothing comes")
        return True

    def _take(self) -> bool:
        """Whether there was anything new."""
        try:
            data = os.read(self.fd, 4096)
        except BlockingIOError:
            return False
        except OSError as error:
            raise DriverError(f"the port is gone: {error.strerror}") from error
        self._buffer += data
        return bool(data)

    def parse(self, packets: Packets) -> tuple[int, list[int]] | None:
        """The next packet that is here in whole: the SDK's result, and the packet; None: none is.

        What is damaged is dropped up to its end, as far as it has one.
        """
        if len(self._buffer) < OVERHEAD:
            return None
        self._at, self._starved = 0, False
        packet, result = packets.rxPacket(self, False)
        if self._starved:
            return None
        del self._buffer[: self._at]
        return result, packet

    def forget(self) -> int:
        """Drops all that has come; how many bytes."""
        while self._take():
            pass
        dropped = len(self._buffer)
        self._buffer.clear()
        return dropped

    def close(self) -> None:
        """Gives it back; a second time nothing."""
        self.fd = -1
        try:
            self._serial.close()
        except OSError:
            pass  # it is gone

    # What the SDK calls.

    def clearPort(self) -> None:  # noqa: N802
        pass  # an answer may be open while goals go out

    def readPort(self, count: int) -> bytes:  # noqa: N802
        data = bytes(self._buffer[self._at : self._at + count])
        self._at += len(data)
        return data

    def writePort(self, packet: list[int]) -> int:  # noqa: N802
        try:
            return os.write(self.fd, bytes(packet))
        except BlockingIOError:
            return 0
        except OSError as error:
            raise DriverError(f"the port is gone: {error.strerror}") from error

    def setPacketTimeout(self, length: int) -> None:  # noqa: N802
        pass  # `wait` has one

    def isPacketTimeout(self) -> bool:  # noqa: N802
        self._starved = True
        return True
