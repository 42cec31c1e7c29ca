"""A simulated skeleton: what the driver is tested with, as strict as the real one has to be.

It obeys one master, checks every frame, counts what it refuses, and when nobody speaks any more it
damps by itself: no vendor's simulator does that, and it is what keeps a robot from running away.

    python skeleton_device.py --events events.jsonl
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
from math import isfinite
from time import monotonic_ns
from typing import Any

from safetypilot.bridge.devices import common
from safetypilot.bridge.template import skeleton as wire
from safetypilot.bridge.template.skeleton import SIZE, Ask, Phase


class Device:
    """Two joints under a load that pulls them down to a stop."""

    STOP, LOAD = -1.0, -6.0  # rad, N m; each joint has 1 kg m^2
    KP, KD, DAMPING, FRICTION, EFFORT = 900.0, 60.0, 20.0, 0.2, 20.0
    FADE_S = 0.1

    def __init__(self, log: common.EventLog, silence_s: float) -> None:
        self._log, self._silence_ns = log, round(silence_s * 1e9)
        self._position, self._velocity = [self.STOP] * SIZE, [0.0] * SIZE
        self._effort, self._goals = [0.0] * SIZE, [self.STOP] * SIZE
        self._phase, self._stiff = Phase.LIMP, 0.0
        self._fading = self._testing = False
        self.master: Any = None  # the address that it listens to
        self._number = self._done = self._refused = self._silences = self._sent = 0
        self._heard_ns = self._time_ns = 0

    def take(self, frame: bytes, sender: Any) -> bool:
        """Obeys a request, or counts why not; whether somebody said hello."""
        body = wire.unseal(frame)
        if body is None or len(body) != wire.REQUEST.size:
            self._log.refuse("corrupt")
            return False
        what, number, *goals = wire.REQUEST.unpack(body)
        if what == Ask.HELLO and sender != self.master and self._phase is not Phase.ACTIVE:
            self.master, self._number, self._done, self._refused = sender, 0, 0, 0
        if sender != self.master:
            self._log.refuse("foreign")
        elif what == Ask.STOP:
            self._damp(Phase.STOPPED, "estop")
        elif number <= self._number or what not in _MAY:
            self._log.refuse("old or unknown")
        else:
            self._number, self._heard_ns, ask = number, monotonic_ns(), Ask(what)
            if self._phase in _MAY[ask] and self._obey(ask, goals):
                self._done = number
                return ask is Ask.HELLO
            self._refused = number
            self._log.refuse(f"{ask.name} while {self._phase.name}".lower())
        return False

    def _obey(self, what: Ask, goals: list[float]) -> bool:
        if what is Ask.FOLLOW:
            if self._fading or not all(isfinite(goal) and abs(goal) <= 1.5 for goal in goals):
                return False
            self._goals = goals
        elif what is Ask.START:
            self._phase, self._stiff, self._fading = Phase.ACTIVE, 1.0, False
            self._goals = list(self._position)
            self._log("active")
        elif what is Ask.DAMP:
            self._fading = True
        elif what is Ask.RELEASE:
            self._phase = Phase.LIMP
            self._log("limp", cause="command")
        elif what is Ask.RESET:
            self._phase = Phase.DAMPED
            self._log("recovered")
        self._testing = what is Ask.TEST
        return True

    def _damp(self, phase: Phase, cause: str) -> None:
        if self._phase is not phase:
            self._log("damping", cause=cause)
        self._phase, self._fading = phase, False

    def step(self, dt: float) -> None:
        """A moment of physics, after a look at the clock."""
        active = self._phase is Phase.ACTIVE
        if (active or self._testing) and monotonic_ns() - self._heard_ns > self._silence_ns:
            self._silences += 1
            self._testing = False
            if active:
                self._damp(Phase.DAMPED, "silence")
        if self._fading:
            self._stiff -= dt / self.FADE_S
            if self._stiff <= 0.0:
                self._damp(Phase.DAMPED, "command")
        for joint, goal in enumerate(self._goals):
            position, velocity = self._position[joint], self._velocity[joint]
            effort = 0.0 if self._phase is Phase.LIMP else -self.DAMPING * velocity
            if self._phase is Phase.ACTIVE:
                servo = self.KP * (goal - position) - self.KD * velocity
                effort += self._stiff * (servo - effort)
            self._effort[joint] = effort = min(max(effort, -self.EFFORT), self.EFFORT)
            velocity += (effort + self.LOAD - self.FRICTION * velocity) * dt
            position += velocity * dt
            at_stop = position < self.STOP
            self._position[joint] = self.STOP if at_stop else position
            self._velocity[joint] = 0.0 if at_stop else velocity
        self._time_ns += round(dt * 1e9)

    def state(self) -> bytes:
        """The next frame."""
        self._sent += 1
        numbers = (*self._position, *self._velocity, *self._effort)
        head = (b"S", self._sent, self._done, self._refused, self._time_ns, self._phase)
        return wire.seal(wire.STATE.pack(*head, self._silences & 255, *numbers))


_IDLE, _ANY = (Phase.LIMP, Phase.DAMPED), tuple(Phase)
_MAY = {
    Ask.HELLO: _ANY, Ask.CLEAR: _IDLE, Ask.TEST: _IDLE, Ask.START: _IDLE, Ask.RELEASE: _IDLE,
    Ask.FOLLOW: (Phase.ACTIVE,), Ask.DAMP: (Phase.ACTIVE,), Ask.RESET: _ANY,
}  # fmt: skip


def main() -> None:
    """Plays the device until SIGTERM."""
    arguments = common.parser("A simulated skeleton.")
    arguments.set_defaults(timeout=wire.SILENCE_S)
    arguments.add_argument("--port", type=int, default=0, help="where it is heard; 0: any")
    options = arguments.parse_args()
    log, stop = common.EventLog(options.events), common.Stop()
    common.settle(options)
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.bind(("127.0.0.1", options.port))
    link.setblocking(False)
    identity = {"model": "skeleton", "serial": "sim-1", "firmware": "1.0"}
    device, pace = Device(log, options.timeout), common.Pace(0.002, options.time_factor)
    common.ready(log, port=link.getsockname()[1])
    while not stop.asked:
        select.select([link], [], [], max(0.0, (pace.next_ns - monotonic_ns()) / 1e9))
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, sender = link.recvfrom(512)
                if device.take(frame, sender):
                    link.sendto(wire.seal(b"I" + json.dumps(identity).encode()), sender)
        for _ in range(steps := pace.due(monotonic_ns())):
            device.step(0.002)
        if steps and device.master is not None:
            with contextlib.suppress(BlockingIOError):
                link.sendto(device.state(), device.master)
    link.close()
    log.end()


if __name__ == "__main__":
    main()
