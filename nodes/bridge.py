"""The plant on a robot: a driver on the graph's clock, behind the last line of defence.

It trusts nobody. Commands are refused as every plant refuses them (plant.py); what they ask of the
joints passes the limiter; and when the graph is silent, the device is, or somebody says stop, the
robot is stopped, whatever the arbiter says. A fault is latched, as an e-stop is. After a restart
the robot stands by until a person activates it.

An observation is the newest state of the device, for which it may wait a part of the period; where
that is too old, nothing is published, and so nobody is asked to act on it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from safetypilot.bridge import calibration, registry
from safetypilot.bridge.contract import DriverError, Measurement, Mode, Setpoint
from safetypilot.bridge.estop import SOCKET, Lines, Wiring
from safetypilot.bridge.lifecycle import LATCHED, Lifecycle, State, Transition
from safetypilot.bridge.limits import Escalation, Limiter
from safetypilot.nodes.bridge_config import BridgeConfig, check_fit, describe, find_body, tightened
from safetypilot.nodes.bridge_joints import Joints, actuation
from safetypilot.nodes.kernel.errors import NodeError, RequestRefused
from safetypilot.nodes.kernel.node import Context
from safetypilot.nodes.kernel.process import main
from safetypilot.nodes.plant import FAILSAFE, Array, Order, Outcome, Plant, parts_of_a_step

LATCH = "estop-bridge"  # in the run's private directory
_TOO_OLD = 2  # periods after which a state of the device is no observation any more
_WORST = 2  # level of the limiter at which the robot is taken down


class Bridge(Plant):
    outputs: ClassVar[tuple[str, ...]] = (*Plant.outputs, "actuation")
    Config = BridgeConfig

    def __init__(self, config: BridgeConfig, context: Context) -> None:
        super().__init__(config, context)
        self._measured: Measurement | None = None
        self._fresh_ns = self._commanded_ns = 0
        self._observation = self._observation_before = self._began = np.zeros(0, np.float32)
        self._origin: tuple[float, ...] = ()  # where the body was as the control step began
        self._pending: Order | None = None  # what the step that is under way was told
        self._limiter: Limiter | None = None
        self._level = 0
        self._armed_since_ns = 0
        self._held = ExitStack()
        self._arms_itself = False
        self._unasked = False  # since it was put somewhere, nobody has seen where
        self._tested: dict[str, str] = {}
        self._effective: dict[str, Any] = {}  # what the device was configured to
        self._generator = np.random.default_rng(context.seed + 7919 * context.generation)

    # Before anything moves.

    def configure(self) -> None:
        config, context = self.config, self.context
        try:
            self._driver = registry.create(config.driver, config.driver_options)
            self._description = self._driver.description
            self._calibration = calibration.Calibration()
            if config.calibration:
                self._calibration = calibration.load(Path(config.calibration))
            self._body, steps = find_body(config.env)
            self._parts = parts_of_a_step(config.control_rate, context.period_ns)
            self._last_step = (config.episode_steps or steps) * self._parts
            limits = tightened(self._description, config.limits)
            places, self._mode = check_fit(
                self._body, self._description, context.period_ns, self._parts
            )
            self._escalation = Escalation(config.cuts, config.window)
            self._joints = Joints(places, self._mode, limits, config.ramp_s)
            self._open(config.wiring)
        except (DriverError, ValueError) as error:
            self.close()
            raise NodeError(str(error)) from None
        simulated = config.arm == "safe" and self._description.simulated
        self._arms_itself = (config.arm == "auto" or simulated) and not context.generation
        timeout_s = config.command_timeout_s or self._description.command_timeout_s
        self._timeout_ns = int(timeout_s * 1e9)
        self._silence_ns = int(config.silence_s * 1e9)

    def _open(self, wiring: Wiring) -> None:
        """The e-stop first: it is there before the robot is."""
        folder = self.context.runtime_dir
        latch = Path(self.config.latch) if self.config.latch else folder / LATCH
        self._life = Lifecycle(self._driver, latch, self.context.clock.now_ns, self._tell)
        self._lines = Lines(self._life.trip, folder / SOCKET, wiring)
        self._held.callback(self._lines.close)
        self._held.callback(self._life.close, "the graph stops")
        self._lines.open()
        if (folder / "estop").exists():  # the arbiter's
            self._life.estop("the graph is e-stopped")
        if self._life.state is State.DISCONNECTED:
            self._prepare("start")
        else:
            self.context.event("bridge", state=self._life.state, cause="latched before this start")

    def _prepare(self, cause: str) -> None:
        """Connects and configures, and tests what is to stop the robot.

        Raises:
            DriverError: something of it failed.
        """
        life = self._life
        if life.state is State.DISCONNECTED:
            life.connect(cause)
        values = self._calibration.check(self._description, life.identity)
        self._effective = life.configure(values, cause)
        if self.config.self_test:
            self._tested = self._lines.test()
            seen = life.check_watchdog()
            self._tested["watchdog"] = seen or "the device has none that can be tested"
        self.context.event(
            "ready to be armed",
            device=" ".join(life.identity.values()),
            calibration=self._calibration.id,
            tested="; ".join(f"{what}: {result}" for what, result in self._tested.items()),
        )

    def _tell(self, transition: Transition) -> None:
        change = f"{transition.before} -> {transition.after}"
        self.context.event("bridge", state=change, cause=transition.cause)
        if transition.after is not State.ACTIVE:
            self._lines.expect(False)
            self._limiter = None

    # A step.

    def _tick(self, now_ns: int) -> None:
        self._keep_time(now_ns)
        life = self._life
        if life.tripped:
            life.estop(life.tripped)
        if not life.connected:
            self._stamp_ns = now_ns
            self._rest()
            return
        now_ns = self._read(now_ns)
        measured = self._measured
        if measured is None or now_ns - self._fresh_ns > _TOO_OLD * self.context.period_ns:
            self._stamp_ns = now_ns
            self._rest()
            return
        self._observation = self._body.observe(
            *self._joints.of_body(measured), measured.sensors
        )  # (O,)
        if self._pending is not None:
            self._finish_step(self._pending)
        if life.state is not State.ACTIVE:
            self._step = 0
        if self._step % self._parts == 0:
            self._began = self._observation
            self._origin = self._joints.of_body(self._measured or measured)[0]
        self._unasked = False
        self._ask(self._observation, self.context.clock.now_ns())

    def _read(self, now_ns: int) -> int:
        """Takes the newest state of the device; the time after it."""
        wait_ns = int(self.config.wait * self.context.period_ns)
        try:
            measured = self._driver.read(now_ns + wait_ns)
        except DriverError as error:
            self._life.fault(f"cannot be read: {error}")
            return self.context.clock.now_ns()
        now_ns = self.context.clock.now_ns()
        if measured.fresh:
            self._measured, self._fresh_ns = measured, now_ns
        elif self._life.state is State.ACTIVE and now_ns - self._fresh_ns > self._silence_ns:
            self._life.fault(f"the device was silent for {self.config.silence_s:g} s")
        if measured.faults and self._life.state is State.ACTIVE:
            self._life.fault(f"the device says: {'; '.join(measured.faults)}")
        return now_ns

    def _act(self, order: Order, now_ns: int) -> None:
        """What a command asks of the joints, as far as it may."""
        if order.source != FAILSAFE:
            self._commanded_ns = now_ns
            if self._arms_itself and self._life.state is State.CONFIGURED:
                self._arm("the graph's first command", now_ns)
        cut = 0
        if self._life.state is State.ACTIVE and not self._unasked:
            self._watch_graph(order, now_ns)
            cut = self._drive(order, now_ns)
        latency_us = (self.context.clock.now_ns() - self._stamp_ns) / 1e3
        if order.latency_us == order.latency_us:  # not NaN: a command came
            order = order._replace(latency_us=latency_us)
        if self._life.state is State.ACTIVE and not self._unasked:
            self._pending = order
        else:
            self._seq += 1
        if self._measured is not None:
            sent = self._limiter.sent if self._limiter else Setpoint(self._mode)
            self.context.emit(
                "actuation",
                actuation(
                    self._seq, self._stamp_ns, self.context.clock.now_ns(), self._life.state,
                    cut, self._measured, sent,
                ),
            )  # fmt: skip
        self._rest()

    def _arm(self, cause: str, now_ns: int) -> None:
        """Once, and never again by itself."""
        if self._lines.missing:
            return
        self._arms_itself = False
        try:
            self._request_activate(cause, now_ns)
        except DriverError as error:
            if self._life.state is State.CONFIGURED:
                self._life.fault(f"cannot be activated: {error}")

    def _watch_graph(self, order: Order, now_ns: int) -> None:
        """A failsafe command is a word of the graph too; silence is not."""
        if order.latency_us == order.latency_us:
            self._commanded_ns = now_ns
        elif now_ns - self._commanded_ns > self._timeout_ns:
            self._life.fault(f"no command for {self._timeout_ns / 1e9:g} s")

    def _drive(self, order: Order, now_ns: int) -> int:
        """Sends what passes the limiter; why that is not what was asked for."""
        limiter, measured = self._limiter, self._measured
        if limiter is None or measured is None:
            return 0
        wanted = self._body.drive(order.action, self._origin)
        setpoint = self._joints.setpoint(wanted, measured, now_ns - self._armed_since_ns)
        device_ns = int(now_ns * self._description.time_factor)
        cut = limiter.limit(setpoint, measured.position, measured.velocity, device_ns)
        try:
            self._driver.write(limiter.sent, now_ns + self.context.period_ns)
        except DriverError as error:
            if not self._life.tripped:
                self._life.fault(f"cannot be commanded: {error}")
        if limiter.level > self._level:
            self._escalate(limiter)
        return int(cut)

    def _escalate(self, limiter: Limiter) -> None:
        self._level = limiter.level
        cuts = f"{self.config.cuts} of {self.config.window} commands had to be cut"
        self.context.event("limits", level=self._level, cause=cuts, counts=limiter.counts)
        if self._level >= _WORST:
            try:
                self._life.deactivate(f"limits: {cuts} again")
            except DriverError:
                return  # it has been stopped as a fault

    def _finish_step(self, order: Order) -> None:
        """What the step that was under way came to, by what was measured after it."""
        self._pending = None
        if (self._step + 1) % self._parts:
            outcome = Outcome(self._observation, 0.0, 0.0, False, False, False)
        else:
            verdict = self._body.judge(self._began, order.action, self._observation)
            success = verdict.success and not verdict.cost
            over = bool(verdict.cost) or success or verdict.over
            last = self._step + 1 >= self._last_step
            outcome = Outcome(
                self._observation, verdict.reward, verdict.cost, success, over, last and not over
            )
        active = self._life.state is State.ACTIVE
        if not active and not outcome.terminated:
            outcome = outcome._replace(truncated=True)
        if self._conclude(self._observation_before, order, outcome) and active:
            self._begin_episode()

    def _ask(self, observation: Array, now_ns: int) -> None:
        self._observation_before = observation
        super()._ask(observation, now_ns)

    def _begin_episode(self) -> None:
        """Puts the robot where an episode begins, if it is one that can be put."""
        start = self._body.start(self._generator)
        place = getattr(self._driver, "place", None)
        if self._measured is None:
            return
        if start is not None and place is not None:
            try:
                place(self._joints.to_driver(start, self._measured.position))
                late_ns = self.context.clock.now_ns() + self.context.period_ns
                self._measured = self._driver.read(late_ns)
            except DriverError as error:
                self._life.fault(f"cannot be put at its start: {error}")
                return
            self._fresh_ns = self.context.clock.now_ns()
            self._start_limiter(self._measured, self._fresh_ns)
        self._observation = self._body.observe(  # also where it stays: its task may be another now
            *self._joints.of_body(self._measured), self._measured.sensors
        )

    def _start_limiter(self, measured: Measurement, now_ns: int) -> None:
        period_s = self.context.period_ns / 1e9 * self._description.time_factor
        if self._limiter is None:
            joints = self._joints.limits
            self._limiter = Limiter(joints, self._mode, period_s, self._escalation)
        self._limiter.start(measured.position, int(now_ns * self._description.time_factor))

    # What a person may ask.

    def on_request(self, request: str, arguments: dict[str, Any], now_ns: int) -> dict[str, Any]:
        cause = str(arguments.get("reason", "")) or "by request"
        if request == "epoch":
            return self._set_epoch(arguments.get("epoch"))
        answers: dict[str, Callable[[str, int], None]] = {
            "configure": self._request_configure,
            "arm": self._request_activate,
            "disarm": lambda why, _: self._life.deactivate(why),
            "reset": lambda _, __: self._life.reset(str(arguments.get("reason", ""))),
            "estop": lambda why, _: self._life.estop(why),
            "preflight": lambda _, __: None,
        }
        if request not in answers:
            raise RequestRefused(
                "the bridge knows configure, arm, disarm, estop, reset, preflight and "
                f"epoch, not {request!r}"
            )
        try:
            answers[request](cause, now_ns)
        except DriverError as error:
            raise RequestRefused(str(error)) from None
        return self._preflight() if request == "preflight" else {"state": self._life.state}

    def _request_configure(self, cause: str, now_ns: int) -> None:
        self._prepare(cause)

    def _request_activate(self, cause: str, now_ns: int) -> None:
        """From where the robot is, with gains from zero.

        Raises:
            DriverError: not now.
        """
        if whose := self._lines.missing:
            mend = ": `safetypilot bridge operator`" if whose == "operator" else ""
            raise DriverError(f"the {whose}'s heartbeat is missing{mend}")
        if now_ns - self._commanded_ns > self._timeout_ns:
            raise DriverError("the graph commands nothing yet; see `safetypilot nodes`")
        measured = self._life.activate(Mode(self._body.mode), cause)
        now_ns = self.context.clock.now_ns()
        self._measured, self._fresh_ns, self._level = measured, now_ns, 0
        self._start_limiter(measured, now_ns)
        self._armed_since_ns = self._commanded_ns = now_ns
        self._origin = self._joints.of_body(measured)[0]
        self._lines.expect(True)
        self._pending, self._unasked, self._step = None, True, 0
        self._report = self._new_report()
        self._begin_episode()

    def _preflight(self) -> dict[str, Any]:
        """What a person should read before arming."""
        return {
            "state": self._life.state,
            "identity": self._life.identity,
            "calibration": self._calibration.id,
            "tested": self._tested,
            "effective": self._effective,
            "heartbeat_missing": self._lines.missing,
            "commands": self.context.clock.now_ns() - self._commanded_ns < self._timeout_ns,
            "position": list(self._measured.position) if self._measured else [],
            **describe(self.config, self._description),
        }

    def status(self) -> dict[str, Any]:
        factor = self._description.time_factor
        limiter = self._limiter
        return {
            **super().status(),
            "estop": self._life.state is State.ESTOPPED,
            "bridge": self._life.state,
            "latched": self._life.state in LATCHED,
            "identity": self._life.identity,
            "cuts": limiter.counts if limiter else {},
            "level": self._level,
            "device": dict(self._driver.counters),
            "step_seconds": factor * self.context.period_ns / 1e9,
        }

    def deactivate(self, now_ns: int) -> None:
        self._life.close("the graph stops")

    def close(self) -> None:
        self._held.close()


if __name__ == "__main__":
    main(Bridge)
