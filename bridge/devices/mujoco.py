"""A robot simulated by MuJoCo, as a device: a process with its own clock, socket and watchdog.

    python -P -m safetypilot.bridge.devices.mujoco --options '{"model": "maze.xml"}'

It obeys one client at a time and checks what comes: magic, version, checksum, length, session,
sequence, age, mode, finite numbers. What it refuses it counts by cause. Physics follows the clock:
a command counts from the moment at which it came, whenever the steps around it are computed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from math import ceil
from pathlib import Path
from time import monotonic_ns
from typing import Any

from safetypilot.bridge.contract import DriverError, Setpoint
from safetypilot.bridge.devices.common import (
    EventLog,
    Pace,
    Push,
    Stop,
    above_zero,
    parser,
    read_pushes,
    ready,
    settle,
)
from safetypilot.bridge.devices.imperfections import Chance, Delay
from safetypilot.bridge.devices.mujoco_control import Control
from safetypilot.bridge.devices.mujoco_door import Door, Link
from safetypilot.bridge.devices.mujoco_options import MujocoOptions
from safetypilot.bridge.devices.mujoco_robot import LONGEST_TICK_S, Robot, identity, load
from safetypilot.bridge.devices.mujoco_world import World
from safetypilot.bridge.protocols.mujoco import (
    Cause,
    CommandCodec,
    Head,
    Kind,
    Refused,
    State,
    StateCodec,
    body_of,
    message,
)

_FURTHEST = 1e6  # rad or m, of joints without limits
_OBEYED_WITHIN = 2.0  # watchdog times; a command that is older is not taken


class Device:
    """Everything in one loop: packets, commands, physics, states."""

    def __init__(
        self,
        options: MujocoOptions,
        robot: Robot,
        pushes: tuple[Push, ...],
        door: Door,
        log: EventLog,
    ) -> None:
        self._options, self._robot, self._door, self._log = options, robot, door, log
        self._world = World(robot, pushes)
        step_s = float(robot.model.opt.timestep)
        self._control = Control(
            self._world, robot.modes[0], log, options.watchdog_s, options.ramp_s / step_s
        )
        self._chance = Chance(
            options.drop_rate, options.noise_position, options.noise_velocity, options.seed
        )
        self._commands: Delay[tuple[Setpoint, int, int]] = Delay(options.latency_s)
        self._states: Delay[bytes] = Delay(options.sensor_latency_s)
        joints = len(robot.joints)
        sensors = sum(sensor.size for sensor in robot.sensors) + bool(options.obstacles)
        self._command_codec, self._state_codec = CommandCodec(joints), StateCodec(joints, sensors)
        period_s = 1.0 / options.rate_hz
        self._tick_s = period_s / ceil(period_s / LONGEST_TICK_S - 1e-9)
        self._pace = Pace(step_s, options.time_factor, self._tick_s)
        self._late_ns = round(_OBEYED_WITHIN * options.watchdog_s * 1e9)
        self._seq = self._touches = 0
        self._touching = False

    def serve(self, stop: Stop) -> None:
        """Until told to stop, or nobody has been there for as long as the door says."""
        due_ns = self._pace.next_ns
        while not stop.asked and not self._door.forsaken:
            for link, frame in self._door.frames(self._wake_ns()):
                self._take(link, frame)
            now = monotonic_ns()
            self._control.watch(now)
            self._advance(now)
            if self._pace.next_ns != due_ns:
                due_ns = self._pace.next_ns
                self._send_state(now)
            while (waiting := self._states.take(now)) is not None:
                self._door.send(waiting[1])

    def counters(self) -> dict[str, int]:
        """What went wrong on the way, for the last event."""
        return {
            "skipped": self._pace.skipped,
            "lost": self._chance.lost,
            "unsent": self._door.unsent,
            "ticks": self._world.ticks,
        }

    def _wake_ns(self) -> int:
        times = (self._pace.next_ns, self._commands.due_ns, self._states.due_ns)
        return min(time for time in times if time is not None)

    def _advance(self, now_ns: int) -> None:
        """Physics up to now, with each command from its time on."""
        while (waiting := self._commands.take(now_ns)) is not None:
            due_ns, (setpoint, seq, stamp_ns) = waiting
            self._control.advance(self._pace.due(due_ns))
            self._control.obey(setpoint, seq, due_ns - stamp_ns)
        steps = self._pace.due(now_ns)
        self._control.advance(steps)
        if self._world.touches != self._touches:
            if not self._touching:
                self._log("contact", tick=self._world.ticks)
            self._touches, self._touching = self._world.touches, True
        elif steps:
            self._touching = False

    # What comes.

    def _take(self, link: Link, frame: memoryview) -> None:
        now = monotonic_ns()
        try:
            head = self._door.check(link, frame)
            if head.kind == Kind.COMMAND:
                self._take_command(head, frame, now)
            elif head.kind == Kind.ESTOP:
                self._control.damp(Cause.ESTOP)
            elif head.kind in _REQUESTS:
                self._answer(link, head, body_of(frame), now)
            else:
                raise Refused("kind")
        except Refused as refusal:
            self._log.refuse(refusal.cause)
            self._door.refused(link)

    def _take_command(self, head: Head, frame: memoryview, now_ns: int) -> None:
        setpoint = self._command_codec.unpack(head, frame)
        if not -self._late_ns < now_ns - head.stamp_ns < self._late_ns:
            raise Refused("late")
        if self._chance.loses():
            return
        self._control.feed(setpoint.mode, now_ns)
        self._commands.put((setpoint, head.seq, head.stamp_ns), now_ns)

    def _answer(self, link: Link, head: Head, body: dict[str, Any], now_ns: int) -> None:
        self._advance(now_ns)
        try:
            details = _REQUESTS[Kind(head.kind)](self, link, head, body, now_ns)
            answer = {"ok": True, **(details or {})}
        except DriverError as error:
            self._log.refuse(f"request {Kind(head.kind).name.lower()}", text=str(error))
            answer = {"ok": False, "text": str(error)}
        reply = Head(Kind.ANSWER, head.kind, 0, self._door.session, head.seq, now_ns)
        self._door.send_to(link, message(reply, answer))
        if answer["ok"]:  # a state of after it follows at once
            self._states.clear()
            self._door.send(self._state(monotonic_ns()))

    def _hello(self, link: Link, head: Head, _: dict[str, Any], __: int) -> dict[str, Any]:
        self._door.admit(link, head)
        self._commands.clear()
        return identity(self._options, self._robot)

    def _arm(self, _: Link, __: Head, body: dict[str, Any], now_ns: int) -> None:
        self._commands.clear()
        self._control.arm(str(body.get("mode")), now_ns)

    def _release(self, _: Link, __: Head, body: dict[str, Any], ___: int) -> None:
        self._control.release(str(body.get("rest")))

    def _reset(self, _: Link, __: Head, body: dict[str, Any], ___: int) -> None:
        self._control.reset(str(body.get("rest")))

    def _rehearse(self, _: Link, __: Head, ___: dict[str, Any], now_ns: int) -> None:
        self._control.rehearse(now_ns)

    def _place(self, _: Link, __: Head, body: dict[str, Any], ___: int) -> dict[str, Any]:
        position = body.get("position")
        joints = self._robot.joints
        if not isinstance(position, list) or len(position) != len(joints):
            raise DriverError(f"placed at {position!r}; it takes {len(joints)} numbers")
        for joint, its in zip(joints, position, strict=True):
            good = isinstance(its, int | float) and abs(its) < _FURTHEST
            if not good or not joint.low <= its <= joint.high:
                raise DriverError(
                    f"{joint.name} placed at {its!r}; it goes from {joint.low} to {joint.high}"
                )
        self._commands.clear()
        touches = self._world.touches
        self._control.place(tuple(map(float, position)))
        return {"touches": touches}

    # What goes.

    def _send_state(self, now_ns: int) -> None:
        if not self._door.session:
            return
        if self._chance.loses():
            self._seq += 1  # as if it had been sent
        else:
            self._states.put(self._state(now_ns), now_ns)

    def _state(self, now_ns: int) -> bytes:
        self._seq += 1
        position, velocity, effort, sensors = self._world.measure()
        if self._options.obstacles:
            sensors = (*sensors, float(self._world.touches))
        control = self._control
        head = Head(
            Kind.STATE, control.status, control.cause, self._door.session, self._seq, now_ns
        )
        numbers = (*self._chance.blur(position, velocity), effort, sensors)
        return self._state_codec.pack(
            State(head, self._world.ticks, control.acknowledged, control.delay_ns, *numbers)
        )


_REQUESTS = {
    Kind.HELLO: Device._hello,
    Kind.ARM: Device._arm,
    Kind.RELEASE: Device._release,
    Kind.RESET: Device._reset,
    Kind.PLACE: Device._place,
    Kind.REHEARSE: Device._rehearse,
}


def _options(arguments: argparse.Namespace) -> MujocoOptions:
    """What --options says, with what was said on the command line itself.

    Raises:
        DriverError: it is not right.
    """
    try:
        options = MujocoOptions(**json.loads(arguments.options))
    except (ValueError, TypeError) as error:
        raise DriverError(f"--options: {error}") from None
    said: dict[str, Any] = {
        "watchdog_s": arguments.timeout,
        "time_factor": arguments.time_factor,
        "seed": arguments.seed,
        "disturb": arguments.disturb and str(arguments.disturb),
        "events": arguments.events and str(arguments.events),
    }
    return replace(options, **{name: its for name, its in said.items() if its is not None})


def main() -> None:
    made = parser("A robot simulated by MuJoCo.")
    made.set_defaults(timeout=None, time_factor=None, seed=None)  # those of --options
    made.add_argument("--options", default="{}", help="the driver's options, JSON")
    made.add_argument("--socket", type=Path, help="in a private folder; default: one of its own")
    made.add_argument("--end-after", type=above_zero, metavar="S", help="without a client")
    arguments = made.parse_args()
    stop = Stop()
    try:
        options = _options(arguments)
        robot = load(options)
        pushes = read_pushes(Path(options.disturb) if options.disturb else None, robot.bodies)
        log = EventLog(Path(options.events) if options.events else None)
        door = Door(arguments.socket and arguments.socket.absolute(), arguments.end_after)
        device = Device(options, robot, pushes, door, log)
    except DriverError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    os.chdir(door.path.parent)  # where MuJoCo may leave its log
    settle(arguments)
    ready(log, socket=str(door.path), pid=os.getpid())
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads what MuJoCo says
    device.serve(stop)
    door.close()
    log.end(**device.counters())


if __name__ == "__main__":
    main()
