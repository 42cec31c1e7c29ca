"""A simulated quadruped on DDS, with the messages of a Unitree Go2 and stricter than one.

    python -P -m safetypilot.bridge.devices.quadruped --domain 1 --events events.jsonl

It takes `rt/lowcmd`, and `rt/simulation/place`, which puts it somewhere at rest. It sends
`rt/lowstate` and `rt/sportmodestate` (its ground truth). What it obeys, and when it damps by
itself, is in quadruped_guard.py; the modes of its motors are 1 while it obeys, and 0 while it
damps. All else is refused, and counted by cause. It is heard on loopback unless an interface is
named.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns, sleep

from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.devices import quadruped_world
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
from safetypilot.bridge.devices.quadruped_guard import Guard, Refused
from safetypilot.bridge.devices.quadruped_sport import SportStates
from safetypilot.bridge.devices.quadruped_world import TIMESTEP_S, World
from safetypilot.bridge.protocols.dds import Bus
from safetypilot.bridge.protocols.unitree import (
    BUTTONS,
    COMMAND_TOPIC,
    GO,
    IDLE,
    SERVO,
    SPORT_TOPIC,
    STATE_TOPIC,
    Commands,
    Remote,
    State,
    States,
    make_remote,
)
from safetypilot.bridge.protocols.unitree_image import Corrupted
from safetypilot.bridge.protocols.unitree_place import PLACE, PLACE_TOPIC, unpack_place
from safetypilot.bridge.protocols.unitree_robots import GO2
from safetypilot.bridge.protocols.unitree_types import SPORT_MODE_STATE

TIMEOUT_S, DAMPING = 0.05, GO2.damping
_HOLD_KP, _HOLD_KD = 60.0, 3.0  # of a robot that stands by itself before anybody commands it
_DEPTH = 16  # commands between two looks; of more, the oldest are lost
_SPORT_EVERY, _LISTENERS_EVERY = 5, 50  # steps
_MARGIN_S = TIMESTEP_S + 0.001  # one look, and what a loaded host may add
_SLACK = 0.01  # rad, that a joint may be beyond its end
_VERSION = (1, 0)


@dataclass(frozen=True, slots=True)
class Press:
    """Buttons of the remote controller that are held for a while of the device's time."""

    at_s: float
    buttons: int
    duration_s: float


class Device:
    """Everything in one loop: commands, physics, states."""

    def __init__(self, options: argparse.Namespace, bus: Bus, log: EventLog) -> None:
        names = [joint.name for joint in GO2.joints]
        pushes = read_pushes(options.disturb, quadruped_world.bodies())
        self._presses = read_presses(options.remote)
        self._log, self._pace = log, Pace(TIMESTEP_S, options.time_factor)
        self._world = World(names, options.start, pushes)
        commands = Commands(GO, len(names))
        # It looks at every step: by the time-out it has damped, not after it.
        patience_s = max(options.timeout - _MARGIN_S, options.timeout / 2)
        self._guard = Guard(commands, patience_s, log)
        self._states, self._sport = States(GO, len(names)), SportStates()
        self._states.set_identity(options.serial, _VERSION)
        self._every = max(1, round(1.0 / (options.rate * TIMESTEP_S)))
        self._steps = 0
        self._patience_ns = int(options.end_after * 1e9) if options.end_after else 0
        self._reader = bus.reader(COMMAND_TOPIC, GO.command, depth=_DEPTH)
        self._places = bus.reader(PLACE_TOPIC, PLACE)
        self._placed = 0
        self._writer = bus.writer(STATE_TOPIC, GO.state)
        self._sport_writer = bus.writer(SPORT_TOPIC, SPORT_MODE_STATE)
        if options.start == "standing":
            self._world.hold(_HOLD_KP, _HOLD_KD)
        else:
            self._world.damp(DAMPING)

    def serve(self, stop: Stop) -> None:
        """Until told to stop, or nobody has listened for as long as the options say."""
        listened_ns = monotonic_ns()
        while not stop.asked:
            if self._patience_ns and self._steps % _LISTENERS_EVERY == 0:
                if self._writer.readers:
                    listened_ns = monotonic_ns()
                elif monotonic_ns() - listened_ns > self._patience_ns:
                    return
            for data, writer in self._reader.take():
                self._take(data, writer)
            for data, _ in self._places.take():
                self._place(data)
            now_ns = monotonic_ns()
            if self._guard.watch(now_ns):
                self._world.damp(DAMPING)
            for _ in range(self._pace.due(now_ns)):
                self._step()
            sleep(max(0, self._pace.next_ns - monotonic_ns()) / 1e9)

    def counters(self) -> dict[str, int]:
        """For the last event."""
        return {
            "accepted": self._guard.accepted,
            "skipped": self._pace.skipped,
            "steps": self._steps,
        }

    def _take(self, data: bytes, writer: int) -> None:
        try:
            self._world.obey(self._guard.take(data, writer, monotonic_ns()))
        except Refused as refused:
            self._log.refuse(str(refused))

    def _place(self, data: bytes) -> None:
        try:
            place = unpack_place(data)
        except Corrupted as corrupted:
            self._log.refuse(f"place {corrupted.cause}")
            return
        rows = zip(GO2.joints, place.position, strict=True)
        if not all(joint.low - _SLACK <= q <= joint.high + _SLACK for joint, q in rows):
            self._log.refuse("place range")
        elif place.number != self._placed:
            self._placed = place.number
            self._world.place(place.position)
            self._world.damp(DAMPING)
            self._log("placed", number=place.number)

    def _step(self) -> None:
        reached = self._world.step()
        if reached:
            self._log(reached)
        self._steps += 1
        if self._steps % self._every == 0:
            self._writer.write(self._states.pack(self._state()))
        if self._steps % _SPORT_EVERY == 0:
            self._sport_writer.write(self._sport.pack(self._world, self._time_ms))

    @property
    def _time_ms(self) -> int:
        """The robot's own clock; it goes on while the host stands still."""
        return round((self._steps + self._pace.skipped) * TIMESTEP_S * 1000)

    def _state(self) -> State:
        look = self._world.look()
        mode = IDLE if self._guard.damped else SERVO
        return State(
            self._time_ms,
            (mode,) * len(look.position),
            look.position,
            look.velocity,
            look.effort,
            (),
            look.orientation,
            look.gyroscope,
            look.accelerometer,
            look.rpy,
            look.feet,
            self._remote(),
            0,
            self._placed,
        )

    def _remote(self) -> bytes:
        at_s = self._time_ms / 1000.0
        held = [p.buttons for p in self._presses if p.at_s <= at_s < p.at_s + p.duration_s]
        return make_remote(Remote(0.0, 0.0, 0.0, 0.0, sum(set(held)))) if held else bytes(40)


def read_presses(path: Path | None) -> tuple[Press, ...]:
    """The buttons of a --remote file.

    Raises:
        DriverError: it is not what it has to be.
    """
    if path is None:
        return ()
    try:
        rows = json.loads(path.read_text("utf-8"))
        return tuple(
            Press(float(row["at_s"]), _bits(row["buttons"]), float(row["duration_s"]))
            for row in rows
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DriverError(
            f"{path}: {error!r}; a list of {{at_s, buttons: [name, ...], duration_s}}"
        ) from error


def _bits(names: Sequence[str]) -> int:
    return sum(1 << BUTTONS.index(name) for name in set(names))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the device until SIGTERM; the exit code."""
    made = parser("A quadruped on DDS.")
    made.set_defaults(timeout=TIMEOUT_S)
    made.add_argument("--domain", default="1", help="of DDS, or `free` (%(default)s)")
    made.add_argument("--interface", default="lo", help="network interface (%(default)s)")
    made.add_argument("--start", choices=("lying", "standing"), default="lying")
    made.add_argument(
        "--rate", type=above_zero, default=500.0, metavar="HZ", help="of states (%(default)s)"
    )
    made.add_argument(
        "--end-after", type=above_zero, metavar="S", help="end when nobody has listened for so long"
    )
    made.add_argument("--serial", type=int, default=1, help="number (%(default)s)")
    made.add_argument("--remote", type=Path, metavar="FILE", help="JSON list of pressed buttons")
    options = made.parse_args(arguments)
    log, stop = EventLog(options.events), Stop()
    try:
        domain = dds_domain(options.domain)
        bus = Bus(domain, options.interface)
        device = Device(options, bus, log)
    except DriverError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    settle(options)
    ready(log, domain=domain, interface=options.interface, robot=GO2.name)
    device.serve(stop)
    log.end(**device.counters())
    bus.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
