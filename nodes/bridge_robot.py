"""The robot as the bridge has it: its driver, and everything that may stop it.

Between the graph's time and the driver's calls: life cycle, e-stop lines, limiter and time-outs. It
knows joints and setpoints; what they mean to a task is the bridge's business (bridge.py).
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from safetypilot.bridge import calibration, latch, registry
from safetypilot.bridge.contract import Description, DriverError, Measurement, Setpoint, Vector
from safetypilot.bridge.estop import SOCKET, Lines
from safetypilot.bridge.lifecycle import LATCHED, Lifecycle, State, Transition, words
from safetypilot.bridge.limits import WORST, Escalation, Limiter
from safetypilot.envs.body import Drive
from safetypilot.nodes.bridge_config import BridgeConfig, describe
from safetypilot.nodes.bridge_joints import Joints
from safetypilot.nodes.kernel.node import Context

LATCH = "estop-bridge"  # of a simulated device, in the run's private directory
_TOO_OLD = 2  # periods after which a state of the device is none any more
_GO_ON = {"mend": "`safetypilot bridge reset --reason WHY`, then `configure` and `activate`"}


class Robot:
    """A driver that is called in order, limited and stopped.

    Attributes:
        description: of the driver.
        measured: the newest state; None: there has been none.
        sent: what was sent last since it was armed.
    """

    def __init__(self, config: BridgeConfig, context: Context) -> None:
        """Look the driver up; nothing is connected yet.

        Raises:
            DriverError: there is none like this, or an e-stop of it could not be kept.
        """
        self._config, self._context, self._clock = config, context, context.clock.now_ns
        self._driver = registry.create(config.driver, config.driver_options)
        self.description: Description = self._driver.description
        self._calibration = calibration.load_given(config.calibration)
        folder = context.runtime_dir
        self._life = Lifecycle(self._driver, self._latch_file(), self._clock, self._tell)
        self._lines = Lines(self._life.trip, folder / SOCKET, config.wiring)
        self._held = ExitStack()
        self._held.callback(self._lines.close)
        self._held.callback(self._life.close, "the graph stops")
        # Coming down may take longer than a supervisor that ends the run, or is dead, goes on
        # beating; an e-stop for that would cut it short.
        self._held.callback(self._lines.expect, False)
        timeout_s = config.command_timeout_s or self.description.command_timeout_s
        self._timeout_ns = int(timeout_s * 1e9)
        self._silence_ns = int(config.silence_s * 1e9)
        self.measured: Measurement | None = None
        self._fresh_ns = self._commanded_ns = self._armed_ns = 0
        self._limiter: Limiter | None = None
        self._level = self._too_late = 0
        self._tested: dict[str, str] = {}
        self._cause = ""  # of the state it is in
        self._called = False  # a person, since it is in this state
        self._effective: dict[str, Any] = {}  # what the device was configured to

    def _latch_file(self) -> Path:
        """A simulated device is forgotten with the run, and so is its e-stop."""
        config = self._config
        if config.latch:
            file = Path(config.latch)
        elif self.description.simulated:
            file = self._context.runtime_dir / LATCH
        else:
            file = latch.of_device(config.driver, config.driver_options)
        latch.check(file)
        return file

    # Before anything moves.

    def open(self, joints: Joints) -> None:
        """The e-stop first: it is there before the robot is. Then up to configured, unless latched.

        Raises:
            DriverError: it cannot be, or what is to stop it does not work.
        """
        self._joints = joints
        self._lines.open()
        if (self._context.runtime_dir / "estop").exists():  # the arbiter's
            self.estop("the graph is e-stopped")
        if self.state is State.DISCONNECTED:
            self.prepare("start")
        else:
            self._cause = "latched before this start"
            self._context.event("bridge", state=self.state, cause=self._cause, **_GO_ON)

    def prepare(self, cause: str) -> None:
        """Connects and configures, and tests what is to stop the robot.

        Raises:
            DriverError: something of it failed.
        """
        life = self._life
        if life.state is State.DISCONNECTED:
            life.connect(cause)
        life.check("configure")  # a latched robot has not said which one it is
        values = self._calibration.check(self.description, life.identity)
        self._effective = life.configure(values, cause)
        if self._config.self_test:
            self._tested = self._lines.test()
            seen = life.check_watchdog()
            self._tested["watchdog"] = seen or "the device has none that can be tested"
        self._context.event(
            "ready to be armed",
            device=" ".join(life.identity.values()),
            calibration=self._calibration.id,
            tested="; ".join(f"{what}: {result}" for what, result in self._tested.items()),
        )

    def close(self) -> None:
        """Takes an active robot down and lets go of it."""
        self._held.close()

    # Its states.

    @property
    def state(self) -> State:
        return self._life.state

    @property
    def active(self) -> bool:
        return self._life.state is State.ACTIVE

    @property
    def connected(self) -> bool:
        return self._life.connected

    def _tell(self, transition: Transition) -> None:
        change = f"{transition.before} -> {transition.after}"
        self._cause, self._called = transition.cause, False
        mend = _GO_ON if transition.after in LATCHED else {}
        self._context.event("bridge", state=change, cause=transition.cause, **mend)
        if transition.after is not State.ACTIVE:
            self._lines.expect(False)
            self._limiter = None

    def settle(self) -> None:
        """Follows an e-stop that came by a line of its own; without those lines nothing flies."""
        if self._life.tripped:
            self._life.estop(self._life.tripped)
        if self._lines.dead:
            self._life.fault("nobody waits on the e-stop lines any more; restart the bridge")

    def estop(self, reason: str) -> None:
        self._life.estop(reason)

    def reset(self, reason: str) -> None:
        """Raises DriverError: nothing is latched, nobody says why, or the device is not healthy."""
        self._life.reset(reason)

    def disarm(self, cause: str) -> None:
        """Raises DriverError: it is not active, or does not go down."""
        self._life.deactivate(cause)

    def arm(self, cause: str) -> None:
        """From where it is, with gains from zero.

        Raises:
            DriverError: not now.
        """
        if whose := self._lines.missing:
            mend = ": `safetypilot bridge operator`" if whose == "operator" else ""
            raise DriverError(f"the {whose}'s heartbeat is missing{mend}")
        if self._clock() - self._commanded_ns > self._timeout_ns:
            raise DriverError("the graph commands nothing yet; see `safetypilot nodes`")
        measured = self._life.activate(self._joints.mode, cause)
        self._armed_ns = self._commanded_ns = self._clock()
        self._level = 0
        try:
            self._start_from(measured)
        except ValueError as error:
            self._life.fault(f"cannot be limited: {error}")
            raise DriverError(f"cannot be limited: {error}") from None
        self._lines.expect(True)

    def arm_by_itself(self, cause: str) -> bool:
        """Arms if the heartbeats are there; whether it was tried. What fails is a fault."""
        if self._lines.missing:
            return False
        try:
            self.arm(cause)
        except DriverError as error:
            if self.state is State.CONFIGURED:
                self._life.fault(f"cannot be activated: {error}")
        return True

    def call_a_person(self) -> None:
        """Says once that the graph is ready, and that nothing moves until somebody arms it."""
        if not self._called:
            self._called = True
            whose = self._lines.missing
            first = f"the {whose}'s heartbeat (`safetypilot bridge operator`), " if whose else ""
            self._context.event("waits to be armed", by=f"{first}`safetypilot bridge activate`")

    # A step.

    def read(self, now_ns: int) -> Measurement | None:
        """The newest state of the device; None if that is too old to act on."""
        wait_ns = int(self._config.wait * self._context.period_ns)
        try:
            measured = self._driver.read(now_ns + wait_ns)
        except Exception as error:  # noqa: BLE001  a bug of the driver stops the robot too
            self._life.fault(f"cannot be read: {words(error)}")
            return None
        now_ns = self._clock()
        if measured.fresh:
            self.measured, self._fresh_ns = measured, now_ns
        elif self.active and now_ns - self._fresh_ns > self._silence_ns:
            self._life.fault(f"the device was silent for {self._config.silence_s:g} s")
        if measured.faults and self.active:
            self._life.fault(f"the device says: {'; '.join(measured.faults)}")
        if now_ns - self._fresh_ns > _TOO_OLD * self._context.period_ns:
            return None
        return self.measured

    def hear(self, came: bool, now_ns: int) -> None:
        """The graph has said something, or has not: silence for too long is a fault."""
        if came:
            self._commanded_ns = now_ns
        elif self.active and now_ns - self._commanded_ns > self._timeout_ns:
            self._life.fault(f"no command for {self._timeout_ns / 1e9:g} s")

    def drive(self, wanted: Drive, now_ns: int) -> int:
        """Sends what passes the limiter; why that is not what was asked for, a sum of Cut."""
        limiter, measured = self._limiter, self.measured
        if limiter is None or measured is None or self._life.tripped:
            return 0
        setpoint = self._joints.setpoint(wanted, measured, now_ns - self._armed_ns)
        cut = limiter.limit(setpoint, measured.position, measured.velocity, self._device_ns(now_ns))
        if self._clock() - now_ns > self._context.period_ns:
            self._too_late += 1  # the host stood still: the next command is due already
            return int(cut)
        try:
            self._driver.write(limiter.sent, now_ns + self._timeout_ns)
        except Exception as error:  # noqa: BLE001
            if not self._life.tripped:
                self._life.fault(f"cannot be commanded: {words(error)}")
        if limiter.level > self._level:
            self._escalate(limiter)
        return int(cut)

    def _device_ns(self, now_ns: int) -> int:
        """Limits are in the device's seconds, which may be shorter than the host's."""
        return int(now_ns * self.description.time_factor)

    def _escalate(self, limiter: Limiter) -> None:
        self._level = limiter.level
        cuts = f"{self._config.cuts} of {self._config.window} commands had to be cut"
        self._context.event("limits", level=self._level, cause=cuts, counts=limiter.counts)
        if self._level >= WORST:
            try:
                self._life.deactivate(f"limits: {cuts} again")
            except DriverError:
                return  # it has been stopped as a fault

    def place(self, start: Vector) -> None:
        """Puts it there, if it is a simulated one that can be put; `start` in the task's order."""
        place = getattr(self._driver, "place", None)
        if place is None or self.measured is None:
            return
        try:
            place(self._joints.to_driver(start, self.measured.position))
            measured = self._driver.read(self._clock() + self._context.period_ns)
            self._start_from(measured)
        except Exception as error:  # noqa: BLE001
            self._life.fault(f"cannot be put at its start: {words(error)}")

    def _start_from(self, measured: Measurement) -> None:
        """The limiter begins anew where the robot is."""
        self.measured, self._fresh_ns = measured, self._clock()
        if self._limiter is None:
            period_s = self._context.period_ns / 1e9 * self.description.time_factor
            escalation = Escalation(self._config.cuts, self._config.window)
            self._limiter = Limiter(self._joints.limits, self._joints.mode, period_s, escalation)
        self._limiter.start(measured.position, self._device_ns(self._fresh_ns))

    # What is told of it.

    @property
    def sent(self) -> Setpoint:
        return self._limiter.sent if self._limiter else Setpoint(self._joints.mode)

    def preflight(self) -> dict[str, Any]:
        """What a person should read before arming."""
        return {
            "state": self.state,
            "identity": self._life.identity,
            "calibration": self._calibration.id,
            "tested": self._tested,
            "effective": self._effective,
            "heartbeat_missing": self._lines.missing,
            "commands": self._clock() - self._commanded_ns < self._timeout_ns,
            "position": list(self.measured.position) if self.measured else [],
            **describe(self._config, self.description),
        }

    def status(self) -> dict[str, Any]:
        return {
            "estop": self.state is State.ESTOPPED,
            "bridge": self.state,
            "cause": self._cause,
            "latched": self.state in LATCHED,
            "identity": self._life.identity,
            "cuts": self._limiter.counts if self._limiter else {},
            "level": self._level,
            "too_late": self._too_late,
            "device": dict(self._driver.counters),
        }
