"""A driver behind limiter and life cycle, for programs that are no graph.

A thread reads and writes at the driver's rate, so that neither the device's watchdog nor its
commander depends on the pace of the program, which says where to go when it likes. When it says
nothing for longer than the driver's command timeout the robot stands still: the position is held,
speed is taken off, effort is none. Limits that have to cut for too long take the robot down. When
the process dies the device's own watchdog remains.

    robot = Guarded(registry.create("mujoco", options), Mode.POSITION, Path("robot.estop"))
    robot.start(calibration)
    sent = robot.command((0.1, -0.2))       # what was really sent, limits included
    robot.close()
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic_ns, sleep

from safetypilot.bridge.calibration import Calibration
from safetypilot.bridge.contract import (
    Description,
    Driver,
    DriverError,
    Measurement,
    Mode,
    Setpoint,
    Vector,
)
from safetypilot.bridge.lifecycle import Lifecycle, State, Transition, words
from safetypilot.bridge.limits import WORST, Escalation, Limiter

_SILENCE_S = 0.5  # of the device, after which it is stopped
_PATIENCE_S = 2.0  # for the thread
_CUT_S = 2.0  # of cuts, within twice that, are one level worse


class Guarded:
    """One robot, one program.

    Attributes:
        life: where the driver is; the transitions go to `told`.
        failure: why the robot was stopped; empty: it was not.
    """

    def __init__(
        self,
        driver: Driver,
        mode: Mode,
        latch: Path,
        *,
        gains: tuple[float, float] = (0.0, 0.0),
        ramp_s: float = 0.5,
        escalation: Escalation | None = None,
        told: Callable[[Transition], None] = lambda transition: None,
    ) -> None:
        """Open nothing.

        Args:
            latch: a file that keeps an e-stop.
            gains: kp and kd of all joints, for mode `pd`; they rise from zero within `ramp_s`.
            escalation: how many cuts are too many, at the second level of which the robot is taken
                down; else 2 s of them within 4 s, and again.
        """
        self.driver, self.mode = driver, mode
        self.description: Description = driver.description
        self.life, self._told = Lifecycle(driver, latch, monotonic_ns, told), told
        self.failure = ""
        self._period_ns = round(1e9 / self.description.rate_hz)
        most = max(1, round(_CUT_S * self.description.rate_hz))
        self._escalation = escalation or Escalation(most, 2 * most)
        self._level = 0  # of the limiter, as far as it has been told
        self._timeout_ns = round(self.description.command_timeout_s * 1e9)
        self._gains, self._ramp_ns = gains, ramp_s * 1e9
        self._zeros: Vector = (0.0,) * len(self.description.joints)
        self._wanted: Vector = self._zeros
        self._wanted_ns = self._since_ns = 0
        self._limiter: Limiter | None = None
        self._measured: Measurement | None = None
        self._sent = Setpoint(mode)
        self._begun = self._turns = 0  # turns: that know what is wanted, that have sent it
        self._turned = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing, self._ended = False, True

    def start(self, calibration: Calibration | None = None, cause: str = "start") -> None:
        """Connects, configures, tests the device's watchdog and activates; holds where it is.

        Raises:
            DriverError: one of them failed, or the robot is latched: `reset` first.
        """
        life = self.life
        if life.state is not State.ACTIVE:
            self._join()
        if life.state is State.DISCONNECTED:
            life.connect(cause)
        values = (calibration or Calibration()).check(self.description, life.identity)
        life.configure(values, cause)
        life.check_watchdog()
        self._activate(cause)

    def _activate(self, cause: str) -> None:
        start = self.life.activate(self.mode, cause)
        seconds = self._period_ns / 1e9 * self.description.time_factor
        limiter = Limiter(self.description.joints, self.mode, seconds, self._escalation)
        self._since_ns = monotonic_ns()
        try:
            limiter.start(start.position, self._device_ns(self._since_ns))
        except ValueError as error:
            self.life.fault(f"cannot be limited: {error}")
            raise DriverError(f"cannot be limited: {error}") from None
        self._limiter, self._measured, self.failure = limiter, start, ""
        self._begun = self._turns = self._level = 0
        self._wanted_ns, self._closing, self._ended = 0, False, False
        self._thread = threading.Thread(target=self._run, name="guard", daemon=True)
        self._thread.start()

    @property
    def measured(self) -> Measurement:
        """The newest state; while nothing is commanded, read just now.

        Raises:
            DriverError: there is none.
        """
        if self._ended and self.life.connected:
            self._measured = self.driver.read(monotonic_ns() + self._period_ns)
        if self._measured is None:
            raise DriverError("connect first")
        return self._measured

    @property
    def cuts(self) -> dict[str, int]:
        """Limit -> how many setpoints it cut since the activation."""
        return self._limiter.counts if self._limiter else {}

    def command(self, numbers: Vector) -> Setpoint:
        """Where to go from now on; what has been sent in the next turn.

        Args:
            numbers: positions, velocities or efforts, by the mode; what is not finite is refused
                by the limiter, and the robot stands still.

        Raises:
            DriverError: the robot is not active any more, and why.
        """
        with self._turned:
            self._wanted, self._wanted_ns = numbers, monotonic_ns()
            turn = self._begun + 1
            self._turned.wait_for(lambda: self._turns >= turn or self._ended, _PATIENCE_S)
            if self._turns >= turn:
                return self._sent
        if not self._ended:
            raise DriverError(f"the driver hangs: no turn within {_PATIENCE_S:g} s; estop or close")
        raise DriverError(f"not active: {self.failure or 'start it first'}")

    def estop(self, reason: str) -> None:
        """From any thread or signal; latched until `reset`."""
        self.life.trip(reason)
        if self._ended and self.life.tripped:  # nobody else will
            self.life.estop(self.life.tripped)

    def reset(self, reason: str) -> None:
        """Leaves a latched state, by a person's intent; `start` is to follow.

        Raises:
            DriverError: nobody says why, or the device is not healthy, or the driver hangs.
        """
        self._join()
        self.life.reset(reason)

    def close(self, cause: str = "closed") -> None:
        """Takes the robot down gently and closes the driver.

        Raises:
            DriverError: the driver hangs; the robot is e-stopped, and nothing is closed.
        """
        self._join()
        self.life.close(cause)
        self._measured = None

    # The thread.

    def _join(self) -> None:
        """Ends the thread. While that is in a call of the driver, no other call may be made.

        Raises:
            DriverError: it does not end; the robot is e-stopped.
        """
        self._closing = True
        if self._thread is None:
            return
        self._thread.join(_PATIENCE_S)
        if self._thread.is_alive():
            self.failure = f"the driver hangs: its thread has not ended in {_PATIENCE_S:g} s"
            self.life.estop(self.failure)
            raise DriverError(f"{self.description.name}: a call of the driver does not return")
        self._thread = None

    def _device_ns(self, now_ns: int) -> int:
        return int(now_ns * self.description.time_factor)

    def _run(self) -> None:
        try:
            self._guard()
        except BaseException as error:  # noqa: BLE001  without this thread nobody guards the robot
            self.failure = self.failure or words(error)
            self.life.fault(self.failure)
        finally:
            self._end()

    def _guard(self) -> None:
        next_ns = monotonic_ns()
        while not (self._closing or self.failure):
            next_ns = max(next_ns + self._period_ns, monotonic_ns())
            self._turn(next_ns)
            sleep(max(next_ns - monotonic_ns(), 0) / 1e9)

    def _end(self) -> None:
        try:
            if self.life.tripped:
                self.failure = self.life.tripped
                self.life.estop(self.life.tripped)
        finally:
            with self._turned:
                self._ended = True
                self._turned.notify_all()

    def _turn(self, next_ns: int) -> None:
        """One reading, one setpoint.

        Raises:
            DriverError: the robot has to be stopped, or was.
        """
        limiter = self._limiter
        if self.life.tripped or limiter is None:
            raise DriverError(self.life.tripped or "not active")
        measured = self.driver.read(next_ns - self._period_ns // 4)
        now_ns = monotonic_ns()
        self._measured = measured
        if self.life.state is not State.ACTIVE:  # it hung, and has been given up meanwhile
            raise DriverError(f"{self.life.state} while it was read")
        if measured.faults:
            raise DriverError(f"the device says: {'; '.join(measured.faults)}")
        if now_ns - measured.received_ns > _SILENCE_S * 1e9:
            raise DriverError(f"the device was silent for {_SILENCE_S:g} s")
        with self._turned:
            self._begun += 1
            wanted = self._setpoint(now_ns, limiter.sent)
        limiter.limit(wanted, measured.position, measured.velocity, self._device_ns(now_ns))
        self.driver.write(limiter.sent, now_ns + self._period_ns)
        with self._turned:
            self._sent = limiter.sent
            self._turns += 1
            self._turned.notify_all()
        if limiter.level > self._level:
            self._escalate(limiter)

    def _escalate(self, limiter: Limiter) -> None:
        """Tells of limits that cut too often; the second time the robot is taken down.

        Raises:
            DriverError: it does not go down, which is a fault.
        """
        self._level = limiter.level
        most, window = self._escalation.most, self._escalation.window
        cause = f"limits: {most} of {window} setpoints had to be cut"
        if self._level < WORST:
            state = self.life.state
            self._told(Transition(monotonic_ns(), state, state, cause))
        else:
            self.life.deactivate(f"{cause} again")
            self.failure = f"{cause} again; start it once more"

    def _setpoint(self, now_ns: int, sent: Setpoint) -> Setpoint:
        """What is asked for: the program's numbers, or to stand still."""
        mode, zeros = self.mode, self._zeros
        positions = mode in (Mode.POSITION, Mode.PD)
        numbers = self._wanted
        if now_ns - self._wanted_ns > self._timeout_ns:
            numbers = sent.position if positions else zeros
        if mode is Mode.POSITION:
            return Setpoint(mode, numbers)
        if mode is Mode.VELOCITY:
            return Setpoint(mode, velocity=numbers)
        if mode is Mode.EFFORT:
            return Setpoint(mode, effort=numbers)
        share = min(1.0, (now_ns - self._since_ns) / self._ramp_ns) if self._ramp_ns else 1.0
        kp, kd = ((share * gain,) * len(zeros) for gain in self._gains)
        return Setpoint(mode, numbers, zeros, zeros, kp, kd)
