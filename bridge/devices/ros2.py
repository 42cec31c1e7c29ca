"""A robot behind ros2_control, as it is seen from DDS: no ROS is installed, none is needed.

    python -P -m safetypilot.bridge.devices.ros2 --domain 42 --controller position

A joint_state_broadcaster tells of an MJCF's joints, one controller moves them. Like its original
it obeys whoever publishes and holds the last command for ever; with --timeout it damps the joints
after so long a silence, as some newer controllers do. What it refuses it counts by cause. The
e-stop topic (std_msgs/Bool) is what many robots have beside ros2_control: true damps until false
comes, and a topic below it tells which it is.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from time import monotonic_ns, time_ns

from safetypilot.bridge.contract import DriverError, Mode
from safetypilot.bridge.devices.common import (
    EventLog,
    Pace,
    Stop,
    above_zero,
    dds_domain,
    parser,
    read_pushes,
    ready,
    settle,
)
from safetypilot.bridge.devices.mujoco_options import MujocoOptions
from safetypilot.bridge.devices.mujoco_robot import Robot, load
from safetypilot.bridge.devices.mujoco_world import World
from safetypilot.bridge.devices.ros2_controllers import Controller, Follow, Forward
from safetypilot.bridge.protocols import ros2
from safetypilot.bridge.protocols.cdr import CdrError
from safetypilot.bridge.protocols.dds import Bus

_MODES = {"position": Mode.POSITION, "velocity": Mode.VELOCITY, "effort": Mode.EFFORT}
_DEPTH = 32  # commands that may come between two looks


class Device:
    """Everything in one loop: commands, physics, joint states."""

    def __init__(
        self,
        robot: Robot,
        world: World,
        controller: Controller,
        bus: Bus,
        log: EventLog,
        options: argparse.Namespace,
    ) -> None:
        self._names, self._mode = robot.names, robot.modes[0]
        self._world, self._controller, self._log = world, controller, log
        self._states = bus.writer(ros2.topic(options.states), ros2.JOINT_STATE)
        topic = ros2.topic(options.commands or controller.topic)
        self._commands = bus.reader(topic, controller.message, depth=_DEPTH, reliable=True)
        self._stops = bus.reader(ros2.topic(options.estop), ros2.BOOL, depth=_DEPTH, reliable=True)
        self._stopped = bus.writer(ros2.topic(f"{options.estop}/state"), ros2.BOOL)
        self._timeout_ns = round(options.timeout * 1e9)
        step_s = float(robot.model.opt.timestep)
        self._pace = Pace(step_s, options.time_factor, 1.0 / options.rate)
        self._fed_ns: int | None = None  # None: nobody has commanded yet
        self._cause = ""  # of damping
        world.stay(self._mode)
        world.lead = 1.0

    def serve(self, stop: Stop) -> None:
        """Until told to stop."""
        due_ns = self._pace.next_ns
        while not stop.asked:
            for sample in self._commands.wait(self._pace.next_ns):
                self._take(sample.data)
            for sample in self._stops.take():
                self._obey_stop(sample.data)
                self._tell_stop()
            now = monotonic_ns()
            self._watch(now)
            wanted = None if self._cause else self._controller.wants(now)
            if wanted is not None:
                self._world.command(wanted)
            if steps := self._pace.due(now):
                self._world.step(steps)
            if self._pace.next_ns != due_ns:
                due_ns = self._pace.next_ns
                position, velocity, effort, _ = self._world.measure()
                self._tell_stop()
                self._states.write(
                    ros2.joint_state(time_ns(), self._names, position, velocity, effort)
                )

    def _take(self, sample: bytes) -> None:
        now = monotonic_ns()
        try:
            if self._cause == "estop":
                raise CdrError("e-stopped")
            position, _, _, _ = self._world.measure()
            self._controller.take(sample, position, now)
        except CdrError as error:
            self._log.refuse(str(error))
            return
        if self._cause:
            self._recover()
        elif self._fed_ns is None:
            self._log("active", mode=self._mode)
        self._fed_ns = now

    def _obey_stop(self, sample: bytes) -> None:
        try:
            stop = ros2.read_flag(sample)
        except CdrError as error:
            self._log.refuse(str(error))
            return
        if stop and self._cause != "estop":
            self._damp("estop")
        elif not stop and self._cause == "estop":
            self._recover()
            self._world.stay(self._mode)
            self._controller.forget()
            self._fed_ns = None

    def _tell_stop(self) -> None:
        self._stopped.write(ros2.flag(self._cause == "estop"))

    def _watch(self, now_ns: int) -> None:
        if self._timeout_ns and self._fed_ns is not None and not self._cause:
            silence_ns = now_ns - self._fed_ns
            if silence_ns > self._timeout_ns:
                self._damp("silence", silence_s=silence_ns / 1e9)

    def _damp(self, cause: str, **details: float) -> None:
        self._cause = cause
        self._world.damp()
        self._world.lead = 0.0
        self._log("damping", cause=cause, **details)

    def _recover(self) -> None:
        self._log("recovered", cause=self._cause)
        self._cause = ""
        self._world.lead = 1.0


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    made = parser(__doc__.partition("\n")[0], timeout=False)
    made.add_argument("--model", default="arm.xml", help="an MJCF, or one of ours (%(default)s)")
    made.add_argument("--joints", default="", help="names with commas between; else all")
    made.add_argument(
        "--controller", default="position", choices=[*_MODES, "trajectory"],
        help="forward_command_controller of a kind, or joint_trajectory_controller (%(default)s)",
    )  # fmt: skip
    made.add_argument("--domain", default="0", help="ROS_DOMAIN_ID, or `free` (%(default)s)")
    made.add_argument("--interface", default="lo", help="of the network (%(default)s)")
    made.add_argument("--rate", type=above_zero, default=200.0, help="of states, Hz (%(default)s)")
    made.add_argument("--timeout", type=float, default=0.0, metavar="S", help="0: none")
    made.add_argument("--states", default="/joint_states", help="a topic (%(default)s)")
    made.add_argument("--commands", default="", help="a topic; else the controller's own")
    made.add_argument("--estop", default="/emergency_stop", help="a topic (%(default)s)")
    return made.parse_args(arguments)


def _stiff(robot: Robot) -> Robot:
    """With servos three times as fast as those that suit any model: an arm of industry's."""
    return replace(robot, kp=9.0 * robot.kp, kd=3.0 * robot.kd)


def main() -> None:
    options = options_of()
    try:
        if not 0.0 <= options.timeout < 3600.0:
            raise DriverError(f"--timeout {options.timeout}: seconds, or 0 for none")
        domain = dds_domain(options.domain)
        follows = options.controller == "trajectory"
        mode = Mode.POSITION if follows else _MODES[options.controller]
        joints = tuple(name for name in options.joints.split(",") if name)
        rate = {"rate_hz": options.rate, "max_rate_hz": options.rate}
        robot = _stiff(load(MujocoOptions(options.model, joints, str(mode), **rate)))
        bodies = [robot.model.body(each).name for each in range(robot.model.nbody)]
        pushes = read_pushes(options.disturb, bodies)
        log, stop = EventLog(options.events), Stop()
        settle(options)
        bus = Bus(domain, options.interface)
    except (DriverError, ValueError) as error:
        sys.exit(f"error: {error}")
    controller = Follow(robot.names) if follows else Forward(mode, robot.names)
    device = Device(robot, World(robot, pushes), controller, bus, log, options)
    ready(log, domain=domain, interface=options.interface, joints=list(robot.names))
    try:
        device.serve(stop)
    finally:
        bus.close()
        log.end()


if __name__ == "__main__":
    main()
