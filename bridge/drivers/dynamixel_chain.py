"""The motors of a Dynamixel chain, asked one by one or all at once.

The protocol numbers nothing, so an answer that comes late looks like one to the next question. Its
size is what tells: `ask` is never given the same size for different questions, and changes it for
the same one after an answer was missed. One motor is asked again only when the bus was silent for
longer than an answer can be late.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from time import monotonic_ns, sleep
from typing import TYPE_CHECKING, Any

from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.protocols import dynamixel as wire
from safetypilot.bridge.protocols.dynamixel_table import TABLE, Register

if TYPE_CHECKING:
    from safetypilot.bridge.drivers.dynamixel_port import Packets, Port

_PATIENCE_NS = 50_000_000  # for the answer of one motor
_SILENCE_S = 0.04
_TRIES = 6
_STOPPED = "the chain was stopped: reset it first"
_COUNTERS = ("damaged", "late", "foreign", "missed", "refused")


class Refused(DriverError):
    """A motor answered that it does not do what it was asked for."""


class Chain:
    """Motors on one port.

    Attributes:
        counters: what went wrong, by kind.
        answers: id -> data, of what was asked of all.
        alerts: the motors whose last answer said that they have a hardware error.
        sent_ns: when the last packet went out.
        asked_ns: when all were asked last.
        answered_ns: when the last of them answered.
    """

    def __init__(self, path: str, baud: int, ids: Sequence[int], counters: dict[str, int]) -> None:
        """Open the port.

        Raises:
            DriverError: it cannot be opened, or the SDK is not installed.
        """
        try:
            from safetypilot.bridge.drivers.dynamixel_port import Packets, Port
        except ImportError as error:
            raise DriverError(
                f"the Dynamixel SDK cannot be loaded ({error}): "
                'pip install "safetypilot[dynamixel]"'
            ) from error
        self._port: Port = Port(path, baud)
        self._packets: Packets = Packets()
        self.ids, self.counters = list(ids), counters
        counters.update(dict.fromkeys(_COUNTERS, 0))
        self.answers: dict[int, bytes] = {}
        self.alerts: set[int] = set()
        self._size = 0
        self._last_words = b""  # of an e-stop
        self._refusal = 0  # the error with which the last question was answered
        self.sent_ns = self.asked_ns = self.answered_ns = 0
        self.low_latency = self._port.low_latency

    def close(self) -> None:
        self._port.close()

    def stop(self, words: bytes) -> None:
        """Puts bytes on the wire at once: from any thread, at any time; raises nothing.

        From then on nothing is written to the motors until `resume`.
        """
        self._last_words = words
        self._shout(words)

    def _shout(self, words: bytes) -> None:
        try:
            os.write(self._port.fd, words)
        except OSError:
            pass  # the port is closed, gone or full; the motors' watchdog remains

    def resume(self) -> None:
        """Motors may be written to again."""
        self._last_words = b""

    @property
    def stopped(self) -> bool:
        return bool(self._last_words)

    def _change(self, call: Callable[..., Any], *args: Any) -> None:
        """Sends what changes something; an e-stop that comes at the same time has the last word."""
        if not self._last_words:
            self._send(call, *args)
        if self._last_words:
            self._shout(self._last_words)
            raise DriverError(_STOPPED)

    # All at once.

    def ask(self, address: int, size: int) -> None:
        """Asks all motors for the same registers; `collect` has the answers."""
        self._forget()
        self.answers, self._size = {}, size
        ids = self.ids
        self._send(self._packets.syncReadTx, address, size, ids, len(ids), False)
        self.asked_ns = self.sent_ns

    def collect(self, deadline_ns: int) -> bool:
        """Whether all have answered, at the latest by the deadline.

        Raises:
            DriverError: the port is gone.
        """
        port, waiting = self._port, True
        while True:
            while self._take(self.ids):
                pass
            missing = len(self.ids) - len(self.answers)
            if not missing and self.answered_ns < self.asked_ns:
                self.answered_ns = monotonic_ns()
            if not missing or not waiting:
                return not missing
            wanted = max(port.waiting + 1, missing * (wire.OVERHEAD + self._size))
            waiting = port.wait(wanted, deadline_ns)

    def tell(self, address: int, values: Sequence[bytes]) -> None:
        """Writes the same registers of all motors, which do not answer."""
        flat: list[int] = []
        for number, value in zip(self.ids, values, strict=True):
            flat.append(number)
            flat += value
        size = len(values[0])
        self._change(self._packets.syncWriteTxOnly, address, size, flat, len(flat))

    # One by one.

    def ping(self, number: int) -> tuple[int, int]:
        """Its model number and firmware.

        Raises:
            DriverError: it does not answer.
        """
        question = self._packets.txPacket, _bare(number, wire.PING)
        data = self._one(number, 3, "ping", self._send, *question)
        return data[0] | data[1] << 8, data[2]

    def read(self, number: int, name: str) -> int:
        """A register of the control table.

        Raises:
            DriverError: the motor does not answer or refuses.
        """
        register = TABLE[name]
        question = self._packets.readTx, number, register.address, register.size
        data = self._one(number, register.size, f"read {name}", self._send, *question)
        return register.decode(data)

    def write(self, number: int, name: str, value: int) -> None:
        """Writes a register and reads it back.

        Raises:
            DriverError: the motor does not answer, refuses, or has another value afterwards.
        """
        register: Register = TABLE[name]
        data = list(register.encode(value))
        order = self._packets.writeTxOnly, number, register.address, register.size, data
        self._one(number, 0, f"write {name} = {value}", self._change, *order)
        if (found := self.read(number, name)) != value:
            raise DriverError(f"motor {number} did not keep {name} = {value}; it has {found}")

    def reboot(self, number: int) -> None:
        """Restarts a motor and waits until it answers.

        Raises:
            DriverError: it does not come back.
        """
        self._send(self._packets.txPacket, _bare(number, wire.REBOOT))
        sleep(0.5)
        self.ping(number)

    def _one(
        self, number: int, size: int, what: str, send: Callable[..., None], *args: Any
    ) -> bytes:
        """The data with which one motor answers, asked again if need be."""
        for _ in range(_TRIES):
            if self._last_words:  # silence is what lets the motors' watchdogs expire
                raise DriverError(_STOPPED)
            self._forget()
            self.answers, self._size, self._refusal = {}, size, 0
            send(*args)
            end_ns, waiting = monotonic_ns() + _PATIENCE_NS, True
            while waiting and number not in self.answers and not self._refusal:
                if not self._take((number,)):
                    waiting = self._port.wait(self._port.waiting + 1, end_ns)
            if self._refusal:
                reason = wire.ERRORS.get(self._refusal, f"answers with error {self._refusal}")
                raise Refused(f"motor {number} {reason} ({what})")
            if number in self.answers:
                return self.answers[number]
            self.counters["missed"] += 1
            self._fall_silent()
        raise DriverError(
            f"motor {number} does not answer ({what}); are power, cable, baud rate and id right?"
        )

    def _fall_silent(self) -> None:
        """Waits until nothing has come for so long that nothing will."""
        while True:
            sleep(_SILENCE_S)
            if not self._forget():
                return

    # Packets.

    def _send(self, call: Callable[..., Any], *args: Any) -> None:
        self._port.is_using = False
        result = call(self._port, *args)
        self.sent_ns = monotonic_ns()
        if result != 0:
            raise DriverError("the port takes no bytes any more")

    def _forget(self) -> int:
        """Drops what came unasked; how many bytes."""
        dropped = self._port.forget()
        self.counters["late"] += dropped > 0
        return dropped

    def _take(self, ids: Sequence[int]) -> bool:
        """Takes the next packet that is here, if any is."""
        found = self._port.parse(self._packets)
        if found is None:
            return False
        result, packet = found
        if result != 0:
            self.counters["damaged"] += 1
            return True
        number, size, error = packet[4], (packet[5] | packet[6] << 8) - 4, packet[8]
        if number not in ids or number in self.answers or size < 0:
            self.counters["foreign"] += 1
        elif error & ~wire.ALERT:
            self.counters["refused"] += 1
            self._refusal = error & ~wire.ALERT
        elif size != self._size:
            self.counters["late"] += 1
        else:
            self.answers[number] = bytes(packet[9 : 9 + size])
            (self.alerts.add if error & wire.ALERT else self.alerts.discard)(number)
        return True


def _bare(number: int, instruction: int) -> list[int]:
    """An instruction without parameters, as the SDK wants it."""
    return [0, 0, 0, 0, number, 3, 0, instruction, 0, 0]
