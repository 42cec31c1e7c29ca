"""A chain of simulated motors in a thread, on a real pseudo-terminal: for tests of the driver."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, monotonic_ns, sleep
from typing import Any

from safetypilot.bridge.contract import Measurement, Mode, Setpoint
from safetypilot.bridge.devices.dynamixel import Port
from safetypilot.bridge.devices.dynamixel_bus import Bus, Trouble
from safetypilot.bridge.devices.dynamixel_motor import Motor
from safetypilot.bridge.drivers.dynamixel import DynamixelDriver, DynamixelOptions
from safetypilot.bridge.protocols.dynamixel_table import MODELS

JOINTS = ("shoulder", "elbow")
_STEP_S, _INERTIA = 0.002, 0.02
PATIENCE_S = 10.0  # a busy machine


class Rig:
    """Two motors, each with a flywheel.

    Attributes:
        motors: in the order of JOINTS; to be changed under `lock`.
        events: what happened to them.
        refused: what the bus refused, by cause.
        heard: all that it was sent.
        deaf: nothing is heard and nothing answered, as if the cable were cut.
    """

    def __init__(
        self, model: str = "xm430-w350", trouble: Trouble | None = None, **bus: Any
    ) -> None:
        self.lock = threading.Lock()
        self.events: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self.motors = tuple(Motor(number, MODELS[model], self._tell) for number in (1, 2))
        self.bus = Bus(self.motors, self.refused.append, trouble or Trouble(), **bus)
        self.angles, self.speeds = [0.3, -0.4], [0.0, 0.0]
        self.heard = bytearray()
        self.deaf = False
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
                if data and not self.deaf and self._port.fits(self.bus.baud):
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


def goal(*angles: float) -> Setpoint:
    return Setpoint(Mode.POSITION, position=angles)


def until(condition: Callable[[], bool], step: Callable[[], Any] = lambda: sleep(0.005)) -> None:
    """Steps until something is true, which it has to become."""
    end = monotonic() + PATIENCE_S
    while not condition():
        assert monotonic() < end, "it did not come to that"
        step()


def cycle(driver: DynamixelDriver, setpoint: Setpoint, seconds: float) -> Measurement:
    """Reads and writes for a while; the last measurement."""
    end = monotonic() + seconds
    while True:
        measured = driver.read(soon())
        driver.write(setpoint, soon())
        if monotonic() > end:
            return measured
        sleep(0.005)


@contextmanager
def working(mode: Mode = Mode.POSITION, **options: Any) -> Iterator[tuple[Rig, DynamixelDriver]]:
    """A rig and a driver that is active on it."""
    with Rig() as rig, driving(rig, ramp_s=0.04, **options) as driver:
        driver.activate(mode)
        yield rig, driver
