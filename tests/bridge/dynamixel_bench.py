"""Simulated Dynamixel motors and their bus without a port: for tests of the device."""

from __future__ import annotations

from typing import Any

from safetypilot.bridge.devices.dynamixel_bus import Bus, Trouble
from safetypilot.bridge.devices.dynamixel_motor import Motor
from safetypilot.bridge.protocols import dynamixel as wire
from safetypilot.bridge.protocols.dynamixel import Receiver, packet
from safetypilot.bridge.protocols.dynamixel_table import (
    MODELS,
    TABLE,
)

MS = 1_000_000


class Chain:
    """Two motors and their bus, by hand: no port and no clock but `now_ns`."""

    def __init__(
        self, model: str = "xm430-w350", trouble: Trouble | None = None, **bus: Any
    ) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.refused: list[str] = []
        self.motors = [Motor(number, MODELS[model], self._tell) for number in (1, 2)]
        self.bus = Bus(self.motors, self.refused.append, trouble or Trouble(), **bus)
        self.now_ns = 1
        self.noise: list[str] = []

    def _tell(self, event: str, **details: Any) -> None:
        self.events.append((event, details))

    def send(self, data: bytes, wait_ns: int = 10 * MS) -> list[tuple[int, int, bytes]]:
        """Sends, waits, and gives what was answered: id, error, data."""
        self.bus.receive(data, self.now_ns)
        self.now_ns += wait_ns
        found = Receiver(self.noise.append).feed(self.bus.due(self.now_ns), 0)
        assert all(each.instruction == wire.STATUS for each in found)
        return [(each.motor, each.parameters[0], each.parameters[1:]) for each in found]

    def write(self, name: str, value: int, motor: int = 1) -> int:
        """Writes a register; the error that is answered."""
        register = TABLE[name]
        data = register.address.to_bytes(2, "little") + register.encode(value)
        ((number, error, rest),) = self.send(packet(motor, wire.WRITE, data))
        assert (number, rest) == (motor, b"")
        return error

    def read(self, name: str, motor: int = 1) -> int:
        register = TABLE[name]
        question = register.address.to_bytes(2, "little") + bytes((register.size, 0))
        ((number, error, data),) = self.send(packet(motor, wire.READ, question))
        assert (number, error) == (motor, 0)
        return register.decode(data)

    def run(self, seconds: float, inertia: float = 0.02) -> tuple[float, float]:
        """Lets motor 1 turn a flywheel, with silence on the bus; angle and speed."""
        servo, step_s = self.motors[0].servo, 0.002
        for _ in range(round(seconds / step_s)):
            self.speed += servo.drive(self.angle, self.speed, step_s) / inertia * step_s
            self.angle += self.speed * step_s
            self.now_ns += int(step_s * 1e9)
            self.motors[0].watch(self.now_ns)
        return self.angle, self.speed

    angle = speed = 0.0
