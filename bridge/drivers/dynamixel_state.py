"""The state of a Dynamixel chain, cycle by cycle, and now and then its health."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from time import monotonic_ns

from safetypilot.bridge.contract import DriverError, Measurement, Vector
from safetypilot.bridge.drivers.dynamixel_chain import Chain
from safetypilot.bridge.drivers.dynamixel_health import QUESTIONS, Health
from safetypilot.bridge.drivers.dynamixel_options import (
    NAME,
    STATE,
    DynamixelOptions,
    Servo,
    bus_time_s,
)
from safetypilot.bridge.protocols.dynamixel_table import CENTRE, RADIANS, RADIANS_PER_S, TABLE

_LAST = struct.Struct("<hii")  # current, velocity, position: the last of the bytes read
_ADDRESS = TABLE["present_pwm"].address
_BEFORE = (0, 1, 2, 4, 8, 12)  # bytes that are read too: six sizes of the same question
_LOST_NS = 1_000_000_000  # without any answer in it the chain counts as gone
_QUIET_NS = 1_000_000_000  # without a miss in it no late answer is under way


class State:
    """Has one question open at a time, which may be answered in a later cycle.

    Attributes:
        last: the newest measurement.
        here: id -> position of the control table, as bytes, of that measurement.
        health: what is asked in between.
    """

    def __init__(
        self, motors: Sequence[Servo], options: DynamixelOptions, counters: dict[str, int]
    ) -> None:
        self._motors, self._counters = motors, counters
        self.health = Health(motors)
        zeros: Vector = (0.0,) * len(motors)
        self.last = Measurement(0, 0, -1, zeros, zeros, zeros, self.health.sensors, False)
        self.here: list[tuple[int, bytes]] = []
        self._answer_ns = int(options.answer_s * 1e9)
        self._wire_ns = int(bus_time_s(STATE, len(motors), options.baud) * 1e9)
        self._question = ""  # "state", or one of the health's
        self._seq = self._shape = self._missing_since_ns = self._missed_ns = 0

    def begin(self) -> None:
        """No question is open; whoever was asked before is not waited for."""
        self._question, self._missing_since_ns = "", 0

    def read(self, chain: Chain, now_ns: int, deadline_ns: int) -> Measurement:
        """The newest state by then.

        Raises:
            DriverError: not everybody has answered for a second.
        """
        fresh, waits = False, deadline_ns > now_ns
        while not fresh:
            if self._question:
                fresh = self._harvest(chain, 0)
                if self._question and now_ns - chain.asked_ns > self._answer_ns:
                    self._miss(chain, now_ns)
            if not self._question:
                self._ask(chain, "" if waits else self._due(chain, now_ns))
            if not waits:
                break
            fresh |= self._harvest(chain, min(deadline_ns, chain.asked_ns + self._answer_ns))
            now_ns = monotonic_ns()
            waits = deadline_ns > now_ns and not chain.stopped  # in silence their watchdogs expire
        if not self._question and (question := self._due(chain, now_ns)):
            self._ask(chain, question)
        if not fresh:
            return self.last._replace(fresh=False)
        return self.last

    def clear_way(self, chain: Chain, deadline_ns: int) -> None:
        """Waits until no answer can be on the wire any more."""
        if self._question:
            chain.collect(min(deadline_ns, chain.asked_ns + self._wire_ns))

    def _due(self, chain: Chain, now_ns: int) -> str:
        return self.health.due(bool(chain.alerts), now_ns)

    def _ask(self, chain: Chain, question: str) -> None:
        """Asks that of the health; nothing: for the state."""
        self._question = question or "state"
        if question:
            chain.ask(*QUESTIONS[question])
            return
        if self._shape and monotonic_ns() - self._missed_ns > _QUIET_NS:
            self._shape = 0
        before = _BEFORE[self._shape]
        chain.ask(_ADDRESS - before, STATE + before)
        self._seq += 1

    def _harvest(self, chain: Chain, deadline_ns: int) -> bool:
        """Whether there is a new state by then."""
        if not chain.collect(deadline_ns):
            return False
        question, self._question = self._question, ""
        if question != "state":
            self.health.take(question, chain.answers, monotonic_ns())
            return False
        self._missing_since_ns = 0
        came_ns = chain.answered_ns
        if not deadline_ns:  # it has been lying here; for how long, nobody knows
            came_ns = min(came_ns, chain.asked_ns + self._wire_ns)
        self._measure(chain, came_ns)
        return True

    def _measure(self, chain: Chain, came_ns: int) -> None:
        position, velocity, effort, here = [], [], [], []
        for servo in self._motors:
            data = chain.answers[servo.number]
            current, rate, ticks = _LAST.unpack_from(data, len(data) - _LAST.size)
            position.append((ticks - CENTRE) * RADIANS)
            velocity.append(rate * RADIANS_PER_S)
            effort.append(current * servo.model.torque)
            here.append((servo.number, data[-4:]))
        self.here, health = here, self.health
        self.last = Measurement(
            self._seq, came_ns, -1, tuple(position), tuple(velocity), tuple(effort),
            health.sensors, True, health.faults,
        )  # fmt: skip

    def _miss(self, chain: Chain, now_ns: int) -> None:
        """Gives a question up; the next has another size, so that its answers cannot be mistaken.

        Raises:
            DriverError: that went on for too long.
        """
        self._question = ""
        self._shape, self._missed_ns = (self._shape + 1) % len(_BEFORE), now_ns
        self._counters["missed"] += 1
        self._missing_since_ns = self._missing_since_ns or now_ns
        if now_ns - self._missing_since_ns > _LOST_NS:
            silent = [s.joint.name for s in self._motors if s.number not in chain.answers]
            raise DriverError(f"{NAME}: no answer from {', '.join(silent)} for a second")
