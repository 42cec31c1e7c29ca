"""The plant on a robot: a task's body on the graph's clock, behind the last line of defence.

It trusts nobody. Commands are refused as every plant refuses them (plant.py); what they ask of the
joints passes the limiter; and when the graph is silent, the device is, or somebody says stop, the
robot is stopped, whatever the arbiter says (bridge_robot.py). A fault is latched, as an e-stop is.
After a restart the robot stands by until a person activates it.

An observation is the newest state of the device, for which it may wait a part of the period; where
that is too old, nothing is published, and so nobody is asked to act on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from safetypilot.bridge.contract import DriverError, Measurement
from safetypilot.bridge.lifecycle import State
from safetypilot.nodes.bridge_config import BridgeConfig, check_fit, find_body, tightened
from safetypilot.nodes.bridge_joints import Joints, actuation
from safetypilot.nodes.bridge_robot import Robot
from safetypilot.nodes.kernel.errors import NodeError, RequestRefused
from safetypilot.nodes.kernel.node import Context
from safetypilot.nodes.kernel.process import main
from safetypilot.nodes.plant import FAILSAFE, Array, Order, Outcome, Plant, parts_of_a_step


class Bridge(Plant):
    outputs: ClassVar[tuple[str, ...]] = (*Plant.outputs, "actuation")
    Config = BridgeConfig

    def __init__(self, config: BridgeConfig, context: Context) -> None:
        super().__init__(config, context)
        self._robot: Robot | None = None
        nothing = np.zeros(0, np.float32)
        self._observation = self._before = nothing  # of this step, and of the one under way
        self._began = nothing  # what was observed as the control step began,
        self._origin: tuple[float, ...] = ()  # and where the body was
        self._pending: Order | None = None  # what the step that is under way was told
        self._arms_itself = False
        self._unseen = False  # since it was armed, nobody has been asked what to do
        self._generator = np.random.default_rng(context.seed + 7919 * context.generation)

    def configure(self) -> None:
        config, period_ns = self.config, self.context.period_ns
        try:
            robot = self._robot = Robot(config, self.context)
            description = robot.description
            self._body, steps = find_body(config.env)
            self._parts = parts_of_a_step(config.control_rate, period_ns)
            self._last_step = (config.episode_steps or steps) * self._parts
            limits = tightened(description, config.limits)
            places, mode = check_fit(self._body, description, period_ns, self._parts)
            self._joints = Joints(places, mode, limits, config.ramp_s)
            robot.open(self._joints)
        except (DriverError, ValueError) as error:
            self.close()
            raise NodeError(str(error)) from None
        may = config.arm == "auto" or (config.arm == "safe" and description.simulated)
        # What was e-stopped before this run is armed by the person who looked, as in the same run.
        fresh = not self.context.generation and robot.state is State.CONFIGURED
        self._arms_itself = may and fresh

    @property
    def robot(self) -> Robot:
        if self._robot is None:
            raise NodeError("the bridge has not been configured")
        return self._robot

    # A step.

    def _tick(self, now_ns: int) -> None:
        self._keep_time(now_ns)
        robot = self.robot
        robot.settle()
        measured = robot.read(now_ns) if robot.connected else None
        if measured is None:
            self._stamp_ns = now_ns
            self._rest()
            return
        self._observe(measured)
        if self._pending is not None:
            self._finish_step(self._pending)
        if not robot.active:
            self._step = 0
        if self._step % self._parts == 0:
            self._began = self._observation
            self._origin = self._joints.of_body(robot.measured or measured)[0]
        self._unseen = False
        self._before = self._observation
        self._ask(self._observation, self.context.clock.now_ns())

    def _observe(self, measured: Measurement) -> None:
        position, velocity, effort = self._joints.of_body(measured)
        self._observation = self._body.observe(position, velocity, effort, measured.sensors)

    def _act(self, order: Order, now_ns: int) -> None:
        """What a command asks of the joints, as far as it may."""
        robot = self.robot
        came = order.latency_us == order.latency_us  # not NaN
        robot.hear(came and (robot.active or order.source != FAILSAFE), now_ns)
        if order.source != FAILSAFE and robot.state is State.CONFIGURED:
            if self._arms_itself:
                self._arms_itself = not robot.arm_by_itself("the graph's first command")
                self._begin()
            if robot.state is State.CONFIGURED:
                robot.call_a_person()
        cut, flying = 0, robot.active and not self._unseen
        if flying:
            cut = robot.drive(self._body.drive(order.action, self._origin), now_ns)
        if came:
            latency_us = (self.context.clock.now_ns() - self._stamp_ns) / 1e3
            order = order._replace(latency_us=latency_us)
        self._tell(cut)
        if flying:
            self._pending = order
        else:
            self._seq += 1
        self._rest()

    def _tell(self, cut: int) -> None:
        robot, now_ns = self.robot, self.context.clock.now_ns()
        if robot.measured is not None:
            told = (robot.state, cut, robot.measured, robot.sent)
            self.context.emit("actuation", actuation(self._seq, self._stamp_ns, now_ns, *told))

    def _finish_step(self, order: Order) -> None:
        """What the step that was under way came to, by what was measured after it."""
        self._pending = None
        outcome = self._outcome(order.action)
        active = self.robot.active
        if not active and not outcome.terminated:
            outcome = outcome._replace(truncated=True)
        if self._conclude(self._before, order, outcome) and active:
            self._begin_episode()

    def _outcome(self, action: Array) -> Outcome:
        after = self._observation
        if (self._step + 1) % self._parts:
            return Outcome(after, 0.0, 0.0, False, False, False)
        verdict = self._body.judge(self._began, action, after)
        success = verdict.success and not verdict.cost
        over = bool(verdict.cost) or success or verdict.over
        last = self._step + 1 >= self._last_step
        return Outcome(after, verdict.reward, verdict.cost, success, over, last and not over)

    def _arm(self, cause: str) -> None:
        self.robot.arm(cause)
        self._begin()

    def _begin(self) -> None:
        """The first episode since it was armed."""
        if self.robot.active:
            self._pending, self._unseen, self._step = None, True, 0
            self._report = self._new_report()
            self._begin_episode()
        self._skip_time()

    def _begin_episode(self) -> None:
        """Puts the robot where an episode begins, if it is one that can be put."""
        start = self._body.start(self._generator)
        if start is not None:
            self.robot.place(start)
            self._skip_time()
        if self.robot.measured is not None:
            self._observe(self.robot.measured)  # also where it stays: its task may be another now

    # What a person may ask.

    def on_request(self, request: str, arguments: dict[str, Any], now_ns: int) -> dict[str, Any]:
        robot, reason = self.robot, str(arguments.get("reason", ""))
        cause = reason or "by request"
        if request == "epoch":
            return self._set_epoch(arguments.get("epoch"))
        answers: dict[str, Callable[[], object]] = {
            "configure": lambda: robot.prepare(cause),
            "arm": lambda: self._arm(cause),
            "disarm": lambda: robot.disarm(cause),
            "reset": lambda: robot.reset(reason),
            "estop": lambda: robot.estop(cause),
            "preflight": lambda: None,
        }
        if request not in answers:
            known = ", ".join(answers)
            raise RequestRefused(f"the bridge knows {known} and epoch, not {request!r}")
        try:
            answers[request]()
        except DriverError as error:
            raise RequestRefused(str(error)) from None
        if request == "preflight":
            return robot.preflight()
        if request != "estop":
            self._skip_time()
        return {"state": robot.state}

    def status(self) -> dict[str, Any]:
        factor = self.robot.description.time_factor
        seconds = factor * self.context.period_ns / 1e9
        return {**super().status(), **self.robot.status(), "step_seconds": seconds}

    def deactivate(self, now_ns: int) -> None:
        self.close()

    def close(self) -> None:
        if self._robot is not None:
            self._robot.close()


if __name__ == "__main__":
    main(Bridge)
