"""The way to one Unitree robot: its newest state in, commands out, and all that goes wrong counted.

The robot's clock (`tick`) tells what is new: a state with the same tick is a duplicate, one with an
older tick comes late. The smallest difference between our clock and the robot's that was seen says
how old a state is, so what has waited in a buffer while this process stood still is not taken for
new.
"""

from __future__ import annotations

from time import monotonic_ns

from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.protocols import unitree_types as types
from safetypilot.bridge.protocols.dds import Bus, Sample, Writer
from safetypilot.bridge.protocols.unitree import (
    COMMAND_TOPIC,
    STATE_TOPIC,
    Commands,
    State,
    States,
)
from safetypilot.bridge.protocols.unitree_api import REQUEST_TOPIC, RESPONSE_TOPIC, MotionService
from safetypilot.bridge.protocols.unitree_image import Corrupted
from safetypilot.bridge.protocols.unitree_place import PLACE, PLACE_TOPIC
from safetypilot.bridge.protocols.unitree_robots import Robot

COUNTERS = (
    "encoding", "length", "crc",  # states that are none
    "duplicate", "late", "foreign",  # states that are not new, or not this robot's
    "gaps",  # states that never came, as often as some are missing; `seq` says how many
    "restarts",  # of the robot's clock
    "foreign_commands",  # somebody else's to this robot
)  # fmt: skip
_DEPTH = 64  # states between two looks; more are lost
_LATE_MS = 50.0
_REBASE_NS = 300_000_000  # late for so long: the robot's clock has changed, not the network
_DRIFT = 200e-6  # of the two clocks against each other, at most
_WRAP = 1 << 32
_RESTART_MS = 1000  # so far back a clock only goes when it begins anew


class Link:
    """States in, commands out.

    Attributes:
        commands: makes them.
        state: the newest one.
        seq: of it; a gap is a loss.
        device_ms: the robot's clock, unwrapped.
        received_ns: when the state came, by our clock; where it waited in a buffer, before that.
        counters: what went wrong, by kind.
    """

    def __init__(self, robot: Robot, rate_hz: float, time_factor: float) -> None:
        joints = len(robot.joints)
        self._robot, self._factor = robot, time_factor
        self.commands, self._states = Commands(robot.family, joints), States(robot.family, joints)
        self._period_ms = 1000.0 / rate_hz
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.state: State | None = None
        self.seq = self.device_ms = self.received_ns = 0
        self._bus: Bus | None = None
        self._robot_id = 0
        self._taken_ns = self._looked_ns = self._late_since_ns = 0
        self._ahead_ms = 0.0  # our clock before the robot's, as it was when least had waited
        self._counted_from_ms = self._came = self._lost = self._seen = 0

    def open(self, domain: int, interface: str, wait_ns: int) -> dict[str, str]:
        """Joins the domain and waits for the robot's first state; who it is.

        Raises:
            DriverError: nobody answers, or more than one robot does.
        """
        family = self._robot.family
        types.check_digests(family.command, family.state)
        self._bus = bus = Bus(domain, interface)
        self.begin(anew=True)
        self._writer = bus.writer(COMMAND_TOPIC, family.command)
        self._reader = bus.reader(STATE_TOPIC, family.state, depth=_DEPTH)
        self._others = bus.reader(COMMAND_TOPIC, family.command, depth=_DEPTH, others_only=True)
        end_ns = monotonic_ns() + wait_ns
        while True:
            for sample in self._reader.wait(end_ns):
                if self._take([sample]):
                    return self._identify(sample)
            if monotonic_ns() >= end_ns:
                bad = {kind: count for kind, count in self.counters.items() if count}
                raise DriverError(
                    f"no {self._robot.name} answered on domain {domain} of {interface} within "
                    f"{wait_ns / 1e9:g} s (dropped: {bad or 'nothing'}); is it on, and is this "
                    "its domain and network interface?"
                )

    def _identify(self, sample: Sample) -> dict[str, str]:
        if self._reader.writers > 1:
            raise DriverError(
                f"{self._reader.writers} robots publish {STATE_TOPIC} here; one is wanted"
            )
        serial, firmware = self._states.identity(sample.data)
        identity = {"model": self._robot.name, "serial": serial, "firmware": firmware}
        if self.state is not None and self.state.machine:
            self.commands.use_machine(self.state.machine)
            identity["machine"] = str(self.state.machine)
        return identity

    def motion_service(self) -> MotionService:
        bus = self._open_bus()
        return MotionService(
            bus.writer(REQUEST_TOPIC, types.REQUEST),
            bus.reader(RESPONSE_TOPIC, types.RESPONSE, depth=4, reliable=True),
        )

    def placer(self) -> Writer:
        """Where a simulated robot hears how it is to be placed."""
        return self._open_bus().writer(PLACE_TOPIC, PLACE)

    def begin(self, *, anew: bool = False) -> None:
        """Counts from here; anew: who sends next is the robot, which may have been restarted.

        Raises:
            DriverError: the link is closed.
        """
        self._open_bus()
        self.counters.update(dict.fromkeys(COUNTERS, 0))
        self._counted_from_ms, self._came, self._lost, self._seen = self.device_ms, 0, 0, 0
        if anew:
            self._robot_id, self.state = 0, None

    def send(self, sample: bytes) -> None:
        """Hands a command to the network, from any thread; waits for nothing.

        Raises:
            DriverError: the link is closed.
        """
        self._open_bus()
        self._writer.write(sample)

    def receive(self, deadline_ns: int) -> bool:
        """Takes the newest state, if one comes by then; returns whether one did.

        Raises:
            DriverError: the link is closed.
        """
        self._open_bus()
        while True:
            samples = self._reader.wait(deadline_ns)
            if not samples:
                return False
            if self._take(samples):
                return True

    def commanded_by_others(self) -> bool:
        """Whether somebody else has commanded this robot since the last look."""
        count = 0
        for sample in self._others.take():
            try:
                self.commands.unpack(sample.data)
            except Corrupted:
                continue  # no robot heeds it
            count += 1
        self.counters["foreign_commands"] += count
        return count > 0

    @property
    def newest(self) -> State:
        """The state that came last.

        Raises:
            DriverError: none did.
        """
        if self.state is None:
            raise DriverError("the robot has not sent a state yet")
        return self.state

    @property
    def silent_ns(self) -> int:
        """For how long no new state has come."""
        return monotonic_ns() - self._taken_ns

    def close(self) -> None:
        if self._bus is not None:
            self._bus.close()
            self._bus = None

    def _open_bus(self) -> Bus:
        if self._bus is None:
            raise DriverError("the driver is not connected")
        return self._bus

    def _take(self, samples: list[Sample]) -> bool:
        """The newest of them that will do."""
        mine = [each for each in samples if each.writer == self._robot_id or not self._robot_id]
        self.counters["foreign"] += len(samples) - len(mine)
        self._came += len(mine)
        for sample in reversed(mine):
            try:
                if not self._accept(sample):
                    return False  # what came before it is older still
            except Corrupted as corrupted:
                self.counters[corrupted.cause] += 1
                continue
            self._robot_id = sample.writer
            sent = round((self.device_ms - self._counted_from_ms) / self._period_ms)
            if sent - self._came > self._lost:
                self._lost = sent - self._came
                self.counters["gaps"] += 1
            self.seq += self._came + self._lost - self._seen
            self._seen = self._came + self._lost
            return True
        return False

    def _accept(self, sample: Sample) -> bool:
        """Whether it is a new state.

        Raises:
            Corrupted: it is none at all.
        """
        state, counters = self._states.unpack(sample.data), self.counters
        now_ns = monotonic_ns()
        step_ms = (state.tick_ms - self.state.tick_ms) % _WRAP if self.state else 0
        back_ms = _WRAP - step_ms if step_ms >= _WRAP // 2 else 0
        if self.state is None or back_ms >= _RESTART_MS:
            counters["restarts"] += self.state is not None
            self._begin(state, now_ns)
            return True
        if not step_ms:
            counters["duplicate"] += 1
            return False
        waited_ms = 0.0 if back_ms else self._waited_ms(self.device_ms + step_ms, now_ns)
        if back_ms or waited_ms > _LATE_MS:
            counters["late"] += 1
            return False
        self.state, self.device_ms = state, self.device_ms + step_ms
        self._taken_ns, self.received_ns = now_ns, now_ns - int(waited_ms * 1e6)
        return True

    def _begin(self, state: State, now_ns: int) -> None:
        """With this state the robot's clock begins."""
        self.state, self.device_ms = state, max(state.tick_ms, self.device_ms)
        self._taken_ns = self.received_ns = self._looked_ns = now_ns
        self._ahead_ms = now_ns / 1e6 - self.device_ms / self._factor
        # The state itself counts already: it came, and is the one after what was seen before.
        self._counted_from_ms, self._came, self._lost, self._seen = self.device_ms, 0, 0, -1

    def _waited_ms(self, device_ms: int, now_ns: int) -> float:
        """For how long a state has been in a buffer."""
        ahead_ms = now_ns / 1e6 - device_ms / self._factor
        drift_ms = (now_ns - self._looked_ns) / 1e6 * _DRIFT
        waited_ms = ahead_ms - self._ahead_ms - drift_ms
        self._looked_ns = now_ns
        self._ahead_ms = min(ahead_ms, self._ahead_ms + drift_ms)
        if waited_ms <= _LATE_MS:
            self._late_since_ns = 0
        elif not self._late_since_ns:
            self._late_since_ns = now_ns
        elif now_ns - self._late_since_ns > _REBASE_NS:
            self._ahead_ms, self._late_since_ns = ahead_ms, 0
            return 0.0
        return max(0.0, waited_ms)
