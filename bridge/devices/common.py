"""What simulated devices share: their command line, their log of events and their clock.

options = parser("A motor.").parse_args()
log, stop = EventLog(options.events), Stop()
settle(options)
pace = Pace(0.002, options.time_factor)
ready(log, socket=path)
while not stop.asked:
    ...wait for a packet, at most until pace.next_ns
    for _ in range(pace.due(monotonic_ns())):
        ...one step of physics
log.end()
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import random
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isfinite
from pathlib import Path
from time import monotonic_ns
from typing import Any

from safetypilot.bridge.contract import DriverError

_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29
_AUTOGROUP = Path("/proc/self/autogroup")
_BURST = 4  # ticks that are made up for at most, when the host stood still


def dds_domain(text: str) -> int:
    """A domain of DDS on a command line: a number, or `free`.

    Raises:
        DriverError: it is neither.
    """
    if text != "free" and not text.isdecimal():
        raise DriverError(f"--domain {text}: a number, or `free` for one in which nobody is")
    return free_domain() if text == "free" else int(text)


def free_domain() -> int:
    """A domain of DDS in which nobody listens here."""
    while True:
        domain = random.randint(2, 99)  # above, its ports may be anybody's
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", 7410 + 250 * domain))
            except OSError:
                continue
            return domain


def parser(description: str, timeout: bool = True) -> argparse.ArgumentParser:
    """The command line that all simulated devices have.

    Args:
        timeout: False for a device whose watchdog only its host can set.
    """
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--events", type=Path, help="one JSON object per line is appended here")
    if timeout:
        made.add_argument(
            "--timeout", type=above_zero, default=0.1, metavar="S",
            help="silence, in s of the host, after which the device damps by itself (%(default)s)",
        )  # fmt: skip
    made.add_argument(
        "--time-factor", type=above_zero, default=1.0, metavar="X",
        help="seconds of the device per second of the host (%(default)s)",
    )  # fmt: skip
    made.add_argument("--seed", type=int, default=0, help="of everything random (%(default)s)")
    made.add_argument("--disturb", type=Path, metavar="FILE", help="JSON list of pushes")
    made.add_argument("--with-parent", action="store_true", help="end when the parent does")
    return made


def above_zero(text: str) -> float:
    """An option's number: above 0 and finite."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def settle(options: argparse.Namespace) -> None:
    """Makes this process punctual, and mortal with its parent if that is wanted."""
    libc = ctypes.CDLL(None, use_errno=True)
    if options.with_parent:
        parent = os.getppid()
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent or parent == 1:  # it was faster
            raise SystemExit(0)
    libc.prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)  # ns; by default wake-ups may be 50 us late
    try:  # a session of its own is a group of its own, in which alone niceness counts
        _AUTOGROUP.write_text(str(os.getpriority(os.PRIO_PROCESS, 0)))
    except OSError:
        pass  # it has no such groups, or gives no precedence
    gc.collect()
    gc.freeze()
    gc.disable()


def ready(log: EventLog, **details: Any) -> None:
    """Tells whoever started the device that it can be connected to, and how."""
    log("ready", **details)
    sys.stdout.write(json.dumps({"ready": True, **details}) + "\n")
    sys.stdout.flush()


class Stop:
    """SIGTERM or SIGINT was sent."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True


class EventLog:
    """What happened to the device and when: one line of JSON each, on the disk at once.

    Attributes:
        refused: cause -> packets or commands that were not taken.
    """

    def __init__(self, path: Path | None) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600) if path else None
        self.refused: dict[str, int] = {}

    def __call__(self, event: str, **details: Any) -> None:
        if self._file is not None:
            line = json.dumps({"at_ns": monotonic_ns(), "event": event, **details})
            os.write(self._file, line.encode() + b"\n")

    def refuse(self, cause: str, **details: Any) -> None:
        """Counts a refusal; the first of each cause is an event."""
        count = self.refused.get(cause, 0)
        self.refused[cause] = count + 1
        if not count:
            self("refused", cause=cause, **details)

    def end(self, **counters: int) -> None:
        """The last event, with all counters; once."""
        self("ended", refused=dict(self.refused), **counters)
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Pace:
    """When steps of physics are due: by absolute times, so that no delay adds up.

    Attributes:
        next_ns: when the device has to look again, CLOCK_MONOTONIC: the next tick.
        skipped: ticks that were given up, because the host stood still for longer than a few.
    """

    def __init__(
        self, step_s: float, time_factor: float = 1.0, tick_s: float | None = None
    ) -> None:
        """Begin now.

        Args:
            step_s: of physics, device time.
            time_factor: seconds of the device per second of the host.
            tick_s: between two ticks, host time; by default that of a step.
        """
        self._tick_ns = max(1, round((tick_s or step_s / time_factor) * 1e9))
        self._steps_per_ns = 1e-9 * time_factor / step_s
        self._steps = self.skipped = 0
        self._origin_ns = monotonic_ns()
        self.next_ns = self._origin_ns + self._tick_ns

    def due(self, now_ns: int) -> int:
        """How many steps are to be made to come to now, at most a few ticks' worth.

        May be asked between ticks too: what a command finds is then as old as a step.
        """
        late_ns = now_ns - self.next_ns
        if late_ns >= 0:
            ticks = late_ns // self._tick_ns
            if ticks >= _BURST:
                lost = ticks - _BURST + 1
                self.skipped += lost
                self._origin_ns += lost * self._tick_ns
            self.next_ns += (ticks + 1) * self._tick_ns
        steps = floor((now_ns - self._origin_ns) * self._steps_per_ns + 1e-7) - self._steps
        if steps <= 0:
            return 0
        self._steps += steps
        return steps


@dataclass(frozen=True, slots=True)
class Push:
    """A force on a body of the device, N, for a while of its own time."""

    at_s: float
    body: str
    force: tuple[float, float, float]
    duration_s: float

    def lasts(self, time_s: float) -> bool:
        return self.at_s <= time_s < self.at_s + self.duration_s


def read_pushes(path: Path | None, bodies: Sequence[str]) -> tuple[Push, ...]:
    """The disturbances of a --disturb file.

    Raises:
        DriverError: it is not what it has to be.
    """
    if path is None:
        return ()
    try:
        rows = json.loads(path.read_text("utf-8"))
        pushes = tuple(_push(row) for row in rows)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DriverError(
            f"{path}: {error!r}; a list of {{at_s, body, force: [x, y, z], duration_s}}"
        ) from error
    for push in pushes:
        if push.body not in bodies:
            raise DriverError(f"{path}: no body {push.body!r}; there are {', '.join(bodies)}")
    return pushes


def _push(row: dict[str, Any]) -> Push:
    x, y, z = map(float, row["force"])
    at_s, duration_s = float(row["at_s"]), float(row["duration_s"])
    if not all(map(isfinite, (x, y, z, at_s, duration_s))):
        raise ValueError(f"{row} has a number that is not finite")
    return Push(at_s, str(row["body"]), (x, y, z), duration_s)
