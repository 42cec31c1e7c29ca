"""The two ends of ros2_control on DDS: states that come from one broadcaster, commands that go out.

Of all who publish joint states, the first that has all joints is the robot; others are counted and
not listened to, so that a second broadcaster cannot speak for it. ROS 2 numbers no messages: what
comes is numbered here, and put in order by the stamps of their headers.
"""

from __future__ import annotations

from time import monotonic_ns

from safetypilot.bridge.contract import DriverError, Measurement, Vector
from safetypilot.bridge.drivers.ros2_options import Ros2Options
from safetypilot.bridge.protocols import ros2
from safetypilot.bridge.protocols.cdr import CdrError
from safetypilot.bridge.protocols.dds import Bus, Sample

_DEPTH = 16  # states that may come between two reads, of all publishers
_LOOK_NS = 500_000_000  # how often it is looked who else is there
_DIFFERENTIATED_NS = 200_000_000  # beyond such a gap there is no velocity


class Link:
    """One robot.

    Attributes:
        newest: the last state; None: none yet.
        complaint: about a state that came after it; empty: none.
    """

    def __init__(self, options: Ros2Options, counters: dict[str, int]) -> None:
        """Join the domain and wait for the robot.

        Raises:
            DriverError: cyclonedds is missing, or the robot is.
        """
        self._options, self._counters = options, counters
        self._joints = tuple(options.joints)
        self._zeros: Vector = (0.0,) * len(self._joints)
        self._reader = ros2.JointStates(self._joints)
        self.newest: Measurement | None = None
        self._rival = ""  # who commands the robot, too
        self.complaint = ""  # about the states that came
        self._is_stopped: bool | None = None  # None: not told yet
        self._writer_of_states: int | None = None
        self._looked_ns = 0
        follows = options.controller == "trajectory"
        horizon_s = options.horizon_s or 2.0 / options.rate_hz
        self._encode = (
            ros2.Trajectories(self._joints, horizon_s).write
            if follows
            else ros2.Commands(len(self._joints)).write
        )
        kind = ros2.JOINT_TRAJECTORY if follows else ros2.FLOAT64_MULTI_ARRAY
        self._bus = Bus(options.domain, options.interface)
        try:
            topic = ros2.topic(options.commands_topic)
            self._states = self._bus.reader(
                ros2.topic(options.states), ros2.JOINT_STATE, depth=_DEPTH
            )
            self._commands = self._bus.writer(topic, kind)
            self._others = self._bus.reader(topic, kind)
            self._stop = self._stop_states = None
            if options.estop:
                self._stop = self._bus.writer(ros2.topic(options.estop), ros2.BOOL)
            if options.estop_state:
                named = ros2.topic(options.estop_state)
                self._stop_states = self._bus.reader(named, ros2.BOOL)
            self._go, self._halt = ros2.flag(False), ros2.flag(True)
            self._wait_for_robot(monotonic_ns() + round(options.connect_s * 1e9))
        except DriverError:
            self._bus.close()
            raise

    def _wait_for_robot(self, deadline_ns: int) -> None:
        while True:
            self.receive(min(deadline_ns, monotonic_ns() + 20_000_000))
            missing = self._missing()
            if not missing:
                return
            if monotonic_ns() > deadline_ns:
                options = self._options
                where = f"domain {options.domain} of {options.interface}"
                raise DriverError(f"ros2: {missing}; {options.connect_s:g} s on {where}")

    def _missing(self) -> str:
        """What the robot lacks; empty: nothing."""
        options = self._options
        if self.complaint:
            return self.complaint
        if self.newest is None:
            there = "no message came" if self._states.writers else "nobody publishes it"
            return f"{options.states}: {there}"
        if not self._controllers:
            return f"no controller listens to {options.commands_topic}; is it active?"
        if self._stop is not None and not self._stop.readers:
            return f"nobody listens to {options.estop}"
        if self._stop_states is not None and self._is_stopped is None:
            return f"{options.estop_state}: no message came"
        return ""

    def receive(self, deadline_ns: int) -> None:
        """Takes in what has come; waits for it until the deadline if there is nothing."""
        if self._stop_states is not None:
            for sample in self._stop_states.take():
                self._hear_stop(sample)
        samples = self._states.wait(deadline_ns)
        chosen = self._writer_of_states
        own = samples
        if chosen is not None:
            own = [sample for sample in samples if sample.writer == chosen]
            self._counters["foreign"] += len(samples) - len(own)
        for sample in reversed(own):  # the newest is all that matters
            if self._take(sample, len(own)):
                return

    def _take(self, sample: Sample, count: int) -> bool:
        """Whether it is the robot's newest state, the last of so many messages."""
        now_ns = monotonic_ns()
        try:
            state = self._reader.read(sample.data)
        except CdrError as error:
            self.complaint = f"{self._options.states}: a message with {error}"
            self._counters["refused"] += 1
            return False
        before = self.newest
        if before is not None and state.stamp_ns <= before.device_ns:
            self._counters["late"] += 1
            return False
        self._writer_of_states, self.complaint = sample.writer, ""
        self.newest = Measurement(
            before.seq + count if before else 1,
            now_ns,
            state.stamp_ns or -1,
            state.position,
            state.velocity or self._slopes(state, now_ns),
            state.effort or self._zeros,
            {},
        )
        return True

    def _hear_stop(self, sample: Sample) -> None:
        try:
            self._is_stopped = ros2.read_flag(sample.data)
        except CdrError:
            self._counters["refused"] += 1

    def _slopes(self, state: ros2.JointState, now_ns: int) -> Vector:
        """The velocity of a robot that publishes none."""
        before = self.newest
        if before is None:
            return self._zeros
        elapsed_ns = state.stamp_ns - before.device_ns if state.stamp_ns else 0
        elapsed_ns = elapsed_ns or now_ns - before.received_ns
        if not 0 < elapsed_ns < _DIFFERENTIATED_NS:
            return before.velocity
        pairs = zip(state.position, before.position, strict=True)
        return tuple([(now - then) / elapsed_ns * 1e9 for now, then in pairs])

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with the robot, or with who commands it."""
        if not (self._rival or self.complaint or self._is_stopped):
            return ()
        stopped = "the robot is e-stopped" if self._is_stopped else ""
        return tuple(text for text in (stopped, self._rival, self.complaint) if text)

    @property
    def _controllers(self) -> int:
        """How many listen to our commands, beside ourselves."""
        return self._commands.readers - 1

    def look(self, now_ns: int) -> None:
        """Twice a second: whether there is a controller, and nobody else who commands it.

        Raises:
            DriverError: nobody listens any more.
        """
        if now_ns - self._looked_ns < _LOOK_NS:
            return
        self._looked_ns = now_ns
        if not self._controllers:
            raise DriverError(
                f"ros2: no controller listens to {self._options.commands_topic} any more"
            )
        others = self._others.writers - 1
        self._rival = f"{others} others publish {self._options.commands_topic}" if others else ""
        self._others.take()

    def encode(self, numbers: Vector) -> bytes:
        """What goes out for a setpoint's numbers."""
        return self._encode(numbers)

    def send(self, message: bytes) -> None:
        """Hands a message to the network; waits for nothing."""
        self._commands.write(message)

    def stop(self) -> None:
        """The robot's own e-stop, if it has one."""
        if self._stop is not None:
            self._stop.write(self._halt)

    def let_go_on(self) -> None:
        """Ends the robot's own e-stop."""
        if self._stop is not None:
            self._stop.write(self._go)

    def close(self) -> None:
        self._bus.close()
