"""A chain of simulated motors in a thread, on a real pseudo-terminal: for tests of the driver."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic_ns
from typing import Any

from safetypilot.bridge.contract import Mode
from safetypilot.bridge.devices.dynamixel import Port
from safetypilot.bridge.devices.dynamixel_bus import Bus, Trouble
from safetypilot.bridge.devices.dynamixel_motor import Motor
from safetypilot.bridge.drivers.dynamixel import DynamixelDriver, DynamixelOptions
from safetypilot.bridge.protocols.dynamixel_table import MODELS

JOINTS = ("shoulder", "elbow")
_STEP_S, _INERTIA = 0.002, 0.02


class Rig:
    """Two motors, each with a flywheel.

    Attributes:
        motors: in the order of JOINTS; may be changed under `lock`.
        events: what happened to them.
        refused: what the bus refused, by cause.
        packets: all that it was sent, if `record` is set.
    """

    def __init__(self, model: str = "xm430-w350", trouble: Trouble = Trouble(), **bus: Any) -> None:
        self.lock = threading.Lock()
        self.events: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self.motors = tuple(Motor(number, MODELS[model], self._tell) for number in (1, 2))
        self.bus = Bus(self.motors, self.refused.append, trouble, **bus)
        self.angles, self.speeds = [0.3, -0.4], [0.0, 0.0]
        self.heard = bytearray()
        self.deaf = False  # a cut cable: nothing is heard and nothing answered
        self._port, self._ended = Port(None), threading.Event()
        self.path = self._port.path
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _tell(self, event: str, **details: Any) -> None:
        self.events.append({"at_ns": monotonic_ns(), "event": event, **details})

    def values(self, joint: str) -> dict[str, int]:
        return self.motors[JOINTS.index(joint)].values

    def _run(self) -> None:
        next_ns = monotonic_ns()
        while not self._ended.is_set():
            due = self.bus.next_ns
            data = self._port.receive(min(next_ns, due) if due else next_ns)
            now_ns = monotonic_ns()
            with self.lock:
                if data and not self.deaf:
                    self.heard += data
                    self.bus.receive(data, now_ns)
                answer = self.bus.due(now_ns)
                if answer and not self.deaf:
                    self._port.send(answer)
                steps = 0
                while next_ns <= now_ns:
                    next_ns += int(_STEP_S * 1e9)
                    steps += 1
                for _ in range(min(steps, 5)):
                    self._step()
                for motor in self.motors:
                    motor.watch(now_ns)

    def _step(self) -> None:
        for index, motor in enumerate(self.motors):
            torque = motor.servo.drive(self.angles[index], self.speeds[index], _STEP_S)
            self.speeds[index] = 0.999 * self.speeds[index] + torque / _INERTIA * _STEP_S
            self.angles[index] += self.speeds[index] * _STEP_S

    def __enter__(self) -> Rig:
        self._step()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._port.close()


@contextmanager
def driving(rig: Rig, **options: Any) -> Iterator[DynamixelDriver]:
    """A driver that is connected to the rig and configured."""
    driver = DynamixelDriver(DynamixelOptions(**{"port": rig.path, **options}))
    try:
        driver.connect()
        driver.configure(driver.calibration())
        yield driver
    finally:
        driver.close()


def soon() -> int:
    """A deadline that a busy machine keeps."""
    return monotonic_ns() + 100_000_000


def activated(driver: DynamixelDriver, mode: Mode = Mode.POSITION) -> tuple[float, ...]:
    """Activates; the position from which."""
    return driver.activate(mode).position
