"""What the state of a Dynamixel chain does not tell, asked for one register at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from safetypilot.bridge.contract import Vector
from safetypilot.bridge.drivers.dynamixel_options import Servo
from safetypilot.bridge.protocols import dynamixel_table as table
from safetypilot.bridge.protocols.dynamixel_table import TABLE

# Address and size of what is asked; no two have the same size, nor has the state one of them.
QUESTIONS = {
    "environment": (TABLE["position_trajectory"].address, 7),  # from byte 4 on: V, degC
    "watchdog": (TABLE["bus_watchdog"].address, 1),
    "torque": (TABLE["torque_enable"].address, 2),  # and the LED
    "errors": (TABLE["status_return_level"].address, 3),  # the last of them
}
_PERIOD_NS = 250_000_000  # between two questions


class Health:
    """Knows what to ask next, four questions in a second, and what the answers mean.

    Attributes:
        faults: what is wrong, in words.
        sensors: what was measured last beside the joints, one number for each.
        stands: whether all motors have let go, or have been stopped by their watchdogs; None: that
            was not asked since `doubt`.
    """

    def __init__(self, motors: Sequence[Servo]) -> None:
        self._motors = motors
        self._found: dict[str, tuple[str, ...]] = {}
        self._turn, self._urgent = list(QUESTIONS), list[str]()
        self._next_ns = 0
        self._watchdog: int | None = None
        self._stopped: dict[str, bool] = {}
        self.faults: tuple[str, ...] = ()
        zeros: Vector = (0.0,) * len(motors)
        self.sensors: dict[str, Vector] = {"voltage": zeros, "temperature": zeros}

    def expect(self, watchdog: int | None) -> None:
        """From now on torque is on and the watchdogs are set to that; None: that is open."""
        self._watchdog = watchdog
        self._found.clear()
        self._stopped.clear()
        self.faults = ()

    def doubt(self, *questions: str) -> None:
        """These are to be asked next, and at once."""
        self._urgent = [*questions, *(old for old in self._urgent if old not in questions)]
        self._stopped.clear()

    @property
    def stands(self) -> bool | None:
        if any(self._stopped.values()):
            return True
        return None if len(self._stopped) < 2 else False

    def due(self, alerts: bool, now_ns: int) -> str:
        """The question to be asked now; empty: none.

        Args:
            alerts: a motor says that it has a hardware error.
        """
        if alerts and "errors" not in self._found and "errors" not in self._urgent:
            self._urgent.append("errors")
        if self._urgent:
            return self._urgent[0]
        return self._turn[0] if now_ns >= self._next_ns else ""

    def take(self, question: str, answers: Mapping[int, bytes], now_ns: int) -> None:
        """What all motors have answered."""
        if question in self._urgent:
            self._urgent.remove(question)
        self._turn.remove(question)
        self._turn.append(question)
        self._next_ns = now_ns + _PERIOD_NS
        data = [answers[servo.number] for servo in self._motors]
        if question == "environment":
            volts = tuple([int.from_bytes(its[4:6], "little") / 10 for its in data])
            self.sensors = {"voltage": volts, "temperature": tuple([float(its[6]) for its in data])}
            return
        if question != "errors":
            sign = 0 if question == "torque" else table.WATCHDOG_EXPIRED
            self._stopped[question] = all(its[0] == sign for its in data)
        rows = zip(self._motors, data, strict=True)
        complaints = [self._complaint(question, servo, its) for servo, its in rows]
        self._found[question] = tuple([complaint for complaint in complaints if complaint])
        if not self._found[question]:
            del self._found[question]
        self.faults = sum(self._found.values(), ())

    def _complaint(self, question: str, servo: Servo, data: bytes) -> str:
        """What is wrong with a motor; empty: nothing."""
        name, active = servo.joint.name, self._watchdog is not None
        if question == "errors":
            return f"{name}: {table.describe_errors(data[2])}" if data[2] else ""
        if question == "torque":
            return f"{name}: its torque is off" if active and not data[0] else ""
        if data[0] == table.WATCHDOG_EXPIRED:
            return f"{name}: its watchdog has stopped it, nothing was heard for too long"
        if active and data[0] != self._watchdog:
            return f"{name}: somebody has set its watchdog to {data[0]}"
        return ""
