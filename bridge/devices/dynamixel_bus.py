"""The bus of a simulated Dynamixel chain: which motor answers what, when, and in what condition."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from safetypilot.bridge.devices.dynamixel_motor import Motor, Refusal
from safetypilot.bridge.protocols import dynamixel as wire
from safetypilot.bridge.protocols.dynamixel import Packet
from safetypilot.bridge.protocols.dynamixel_table import BAUD_RATES

_LATE_S = (0.005, 0.03)
_GAP_S = (0.0005, 0.003)  # in the middle of a split packet
_BITS_PER_BYTE = 10
_UNKNOWN = Refusal(wire.BAD_INSTRUCTION, "unknown instruction")
_MALFORMED = Refusal(wire.BAD_LENGTH, "malformed")
_SINGLE = (wire.PING, wire.READ, wire.WRITE, wire.REG_WRITE, wire.ACTION, wire.REBOOT)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What befalls status packets on their way; probabilities.

    Attributes:
        corrupt: a bit is flipped.
        late: it comes 5 to 30 ms later.
        drop: it does not come.
        split: it comes in two pieces with a pause between them.
    """

    corrupt: float = 0.0
    late: float = 0.0
    drop: float = 0.0
    split: float = 0.0


class Bus:
    """Takes what a host sends, byte for byte, and has what the motors answer.

    Attributes:
        counters: packets that were received and answered, and what befell answers.
    """

    def __init__(
        self,
        motors: Sequence[Motor],
        refuse: Callable[[str], None],
        trouble: Trouble = Trouble(),
        seed: int = 0,
        timed: bool = False,
    ) -> None:
        """Connect the motors.

        Args:
            refuse: called with the cause of everything that is not taken.
            timed: answers take the time that their bytes need at the motors' baud rate.
        """
        self.motors, self._refuse = tuple(motors), refuse
        self._trouble, self._random, self._timed = trouble, random.Random(seed), timed
        self._receiver = wire.Receiver(refuse)
        self._due: list[tuple[int, int, bytes]] = []
        self._order = 0
        self._free_ns = 0  # when the last answer is through
        self.counters = dict.fromkeys(
            ("received", "answered", "corrupted", "delayed", "dropped", "split"), 0
        )

    @property
    def baud(self) -> int:
        return BAUD_RATES[min(self.motors[0].values["baud_rate"], len(BAUD_RATES) - 1)]

    def receive(self, data: bytes, now_ns: int) -> None:
        """Bytes from the host; answers are in `due`."""
        for packet in self._receiver.feed(data, now_ns):
            self.counters["received"] += 1
            self._free_ns = max(self._free_ns, now_ns) + self._wire_ns(
                len(packet.parameters) + wire.OVERHEAD - 1
            )
            self._handle(packet, [motor for motor in self.motors if motor.hears(now_ns)], now_ns)

    def due(self, now_ns: int) -> bytes:
        """What the motors have sent by now and the host has not got yet."""
        data = b""
        while self._due and self._due[0][0] <= now_ns:
            data += heapq.heappop(self._due)[2]
        return data

    @property
    def next_ns(self) -> int | None:
        """When there is more; None: when more is received."""
        return self._due[0][0] if self._due else None

    # What instructions do.

    def _handle(self, packet: Packet, motors: Iterable[Motor], now_ns: int) -> None:
        number, instruction, parameters = packet
        if instruction == wire.STATUS:
            self._refuse("status packet from the host")
        elif instruction in (wire.SYNC_READ, wire.SYNC_WRITE, wire.BULK_READ, wire.BULK_WRITE):
            self._group(packet, {motor.number: motor for motor in motors})
        else:
            for motor in motors:
                if number in (motor.number, wire.BROADCAST):
                    everyone = number == wire.BROADCAST
                    self._single(motor, instruction, parameters, everyone, now_ns)

    def _single(
        self, motor: Motor, instruction: int, parameters: bytes, everyone: bool, now_ns: int
    ) -> None:
        address = int.from_bytes(parameters[:2], "little")
        result: Refusal | bytes | None
        if instruction not in _SINGLE:
            result = _UNKNOWN
        elif instruction == wire.PING:
            self._answer(motor, motor.read(0, 2), motor.read(6, 1), level=0)
            return
        elif instruction == wire.READ:
            if everyone:
                return
            size = int.from_bytes(parameters[2:], "little")
            result = motor.read(address, size) if len(parameters) == 4 else _MALFORMED
        elif instruction == wire.ACTION:
            result = motor.act()
        elif instruction == wire.REBOOT:
            result = None
        elif len(parameters) < 3:
            result = _MALFORMED
        elif instruction == wire.WRITE:
            result = motor.write(address, parameters[2:])
        else:
            result = motor.register(address, parameters[2:])
        if everyone:
            self._note(result)
        else:
            self._answer(motor, result, level=1 if instruction == wire.READ else 2)
        if instruction == wire.REBOOT:
            motor.reboot(now_ns)

    def _group(self, packet: Packet, motors: dict[int, Motor]) -> None:
        parameters, reading = packet.parameters, packet.instruction in (
            wire.SYNC_READ,
            wire.BULK_READ,
        )  # fmt: skip
        if packet.motor != wire.BROADCAST:
            self._refuse("group instruction to one motor")
            return
        if packet.instruction in (wire.SYNC_READ, wire.SYNC_WRITE):
            rows = _sync_rows(parameters, reading)
        else:
            rows = _bulk_rows(parameters, reading)
        if rows is None:
            self._refuse("malformed")
            return
        for number, address, size, data in rows:
            if motor := motors.get(number):
                if reading:
                    self._answer(motor, motor.read(address, size), level=1)
                else:
                    self._note(motor.write(address, data))

    def _note(self, result: Refusal | bytes | None) -> None:
        if isinstance(result, Refusal):
            self._refuse(result.cause)

    # What comes back.

    def _answer(self, motor: Motor, *results: Refusal | bytes | None, level: int) -> None:
        """A status packet, unless the motor was told not to send any for such instructions."""
        error, data = 0, b""
        for result in results:
            self._note(result)
            if isinstance(result, Refusal):
                error, data = result.error, b""
                break
            data += result or b""
        if motor.values["status_return_level"] < level:
            return
        if motor.values["hardware_error_status"]:
            error |= wire.ALERT
        self.counters["answered"] += 1
        self._send(
            wire.packet(motor.number, wire.STATUS, bytes((error,)) + data),
            motor.values["return_delay_time"] * 2_000,
        )

    def _send(self, data: bytes, delay_ns: int) -> None:
        trouble, chance, counters = self._trouble, self._random.random, self.counters
        self._free_ns += delay_ns + self._wire_ns(len(data))
        at_ns = self._free_ns
        if chance() < trouble.drop:
            counters["dropped"] += 1
            return
        if chance() < trouble.corrupt:
            counters["corrupted"] += 1
            at = self._random.randrange(len(data))
            data = data[:at] + bytes((data[at] ^ 1 << self._random.randrange(8),)) + data[at + 1 :]
        if chance() < trouble.late:
            counters["delayed"] += 1
            at_ns += int(self._random.uniform(*_LATE_S) * 1e9)
        if chance() < trouble.split:
            counters["split"] += 1
            at = self._random.randrange(1, len(data))
            self._push(at_ns, data[:at])
            at_ns += int(self._random.uniform(*_GAP_S) * 1e9)
            self._free_ns = max(self._free_ns, at_ns)
            data = data[at:]
        self._push(at_ns, data)

    def _push(self, at_ns: int, data: bytes) -> None:
        self._order += 1
        heapq.heappush(self._due, (at_ns, self._order, data))

    def _wire_ns(self, size: int) -> int:
        return size * _BITS_PER_BYTE * 1_000_000_000 // self.baud if self._timed else 0


Rows = list[tuple[int, int, int, bytes]]  # id, address, size, data


def _sync_rows(parameters: bytes, reading: bool) -> Rows | None:
    """What a sync instruction asks of each motor; None: it is malformed."""
    if len(parameters) < 5:
        return None
    address, size = (
        int.from_bytes(parameters[:2], "little"),
        int.from_bytes(parameters[2:4], "little"),
    )
    rest = parameters[4:]
    if reading:
        return [(number, address, size, b"") for number in rest]
    if not size or len(rest) % (size + 1):
        return None
    pieces = [rest[at : at + size + 1] for at in range(0, len(rest), size + 1)]
    return [(piece[0], address, size, piece[1:]) for piece in pieces]


def _bulk_rows(parameters: bytes, reading: bool) -> Rows | None:
    """What a bulk instruction asks of each motor; None: it is malformed."""
    rows: Rows = []
    while parameters:
        if len(parameters) < 5:
            return None
        number, address = parameters[0], int.from_bytes(parameters[1:3], "little")
        size = int.from_bytes(parameters[3:5], "little")
        data = b"" if reading else parameters[5 : 5 + size]
        if len(data) < size and not reading:
            return None
        rows.append((number, address, size, data))
        parameters = parameters[5 + len(data) :]
    return rows
