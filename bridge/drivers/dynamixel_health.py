"""What the state of a Dynamixel chain does not tell, asked for one register at a time."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic_ns

from safetypilot.bridge.contract import Vector
from safetypilot.bridge.drivers.dynamixel_chain import Chain
from safetypilot.bridge.drivers.dynamixel_options import Servo
from safetypilot.bridge.protocols import dynamixel_table as table
from safetypilot.bridge.protocols.dynamixel_table import TABLE

# Address and size of what is asked; no two have the same size, nor has the state one of them.
QUESTIONS = {
    "watchdog": (TABLE["bus_watchdog"].address, 1),
    "torque": (TABLE["torque_enable"].address, 2),  # and the LED
    "errors": (TABLE["status_return_level"].address, 3),  # the last of them
    "environment": (TABLE["position_trajectory"].address, 7),  # from byte 4 on: V, degC
}
_PERIOD_NS = 250_000_000  # between two questions
_ENOUGH_NS = 1_000_000  # with less time than that left, none is asked
_PATIENCE_NS = 5_000_000  # for the answers to one


class Health:
    """Asks one question in every quarter of a second.

    Attributes:
        faults: what is wrong, in words.
        sensors: what was measured last beside the joints, one number for each.
    """

    def __init__(self, motors: Sequence[Servo]) -> None:
        self._motors = motors
        self._found: dict[str, tuple[str, ...]] = {}
        self._turn = list(QUESTIONS)
        self._next_ns = 0
        self._watchdog: int | None = None
        self.faults: tuple[str, ...] = ()
        zeros: Vector = (0.0,) * len(motors)
        self.sensors: dict[str, Vector] = {"voltage": zeros, "temperature": zeros}

    def expect(self, watchdog: int | None) -> None:
        """From now on torque is on and the watchdogs are set to that; None: that is open."""
        self._watchdog = watchdog
        self._found.clear()
        self.faults = ()

    def hurry(self, question: str) -> None:
        """That one comes next, and at once."""
        self._turn.remove(question)
        self._turn.insert(0, question)
        self._next_ns = 0

    def look(self, chain: Chain, deadline_ns: int) -> None:
        """Asks the next question if it is time and there is enough of it."""
        now_ns = monotonic_ns()
        if chain.alerts and "errors" not in self._found:
            self.hurry("errors")
        if now_ns < self._next_ns or deadline_ns - now_ns < _ENOUGH_NS:
            return
        question = self._turn.pop(0)
        self._turn.append(question)
        chain.ask(*QUESTIONS[question])
        if not chain.collect(min(deadline_ns, now_ns + _PATIENCE_NS)):
            self.hurry(question)
            return
        self._next_ns = now_ns + _PERIOD_NS
        answers = [chain.answers[servo.number] for servo in self._motors]
        if question == "environment":
            volts = tuple([int.from_bytes(data[4:6], "little") / 10 for data in answers])
            self.sensors = {
                "voltage": volts,
                "temperature": tuple([float(data[6]) for data in answers]),
            }
            return
        rows = zip(self._motors, answers, strict=True)
        complaints = [self._complaint(question, servo, data) for servo, data in rows]
        found = tuple([complaint for complaint in complaints if complaint])
        if found:
            self._found[question] = found
        else:
            self._found.pop(question, None)
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
