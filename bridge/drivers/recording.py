"""A recorded run plays the robot: it moves as it did then, whatever it is told now.

What is asked of it is vetted as any robot would, and compared with what the recorded robot was told
at that moment, so that one sees what another policy, limit or version would have done. It stands at
its first row until it is activated, and where it was when it is deactivated or stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from pathlib import Path
from time import monotonic_ns, sleep
from typing import Any, NamedTuple

import numpy as np

from safetypilot.bridge.contract import (
    Description,
    DriverError,
    Failsafe,
    Measurement,
    Mode,
    Setpoint,
    Vector,
)
from safetypilot.bridge.drivers.vetting import number, vet
from safetypilot.bridge.protocols import recording

_NAME = "recording"


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """Which recording, and how it is played.

    Attributes:
        file: .npz, made by `safetypilot bridge export-recording`.
        speed: seconds of the recording per second of the host.
        loop: begin again where it ends; otherwise its end is a fault.
        tolerance: what is asked may differ by so much from what was told then, in the mode's unit.
        keep: a file (.npz) for what was asked, row by row of the recording; written by `close`.
        command_timeout_s: what the bridge is to use for its own.
    """

    file: str = ""
    speed: float = 1.0
    loop: bool = False
    tolerance: float = 1e-3
    keep: str = ""
    command_timeout_s: float = 0.1

    def __post_init__(self) -> None:
        number(_NAME, "speed", self.speed)
        number(_NAME, "tolerance", self.tolerance, least=-1e-300)
        number(_NAME, "command_timeout_s", self.command_timeout_s)


class Deviation(NamedTuple):
    """How far what was asked now is from what was told then.

    Attributes:
        compared: numbers that could be compared.
        largest, mean: of their distances, in the mode's unit.
        joint: where it was largest.
        at_s: when, from the start of the recording.
    """

    compared: int = 0
    largest: float = 0.0
    mean: float = 0.0
    joint: str = ""
    at_s: float = 0.0


class RecordingDriver:
    """Plays a recording in its own time; nothing moves."""

    Options = RecordingOptions

    def __init__(self, options: RecordingOptions) -> None:
        if not options.file:
            raise DriverError(
                "recording: file is empty; `safetypilot bridge export-recording RUN.mcap -o "
                "robot.npz` makes one"
            )
        self.options = options
        self._path = Path(options.file)
        header = recording.read_header(self._path)
        rate_hz = header.rate_hz * options.speed
        self.description = Description(
            name=f"{header.robot} (recorded)",
            joints=header.joints,
            modes=(header.mode,),
            rate_hz=rate_hz,
            max_rate_hz=2 * rate_hz,
            command_timeout_s=options.command_timeout_s,
            failsafes=(Failsafe.HOLD,),
            sensors={name: unit for name, (unit, _) in header.sensors.items()},
            time_factor=header.time_factor * options.speed,
            simulated=True,
        )
        self.counters = {"deviating": 0}
        self._header = header
        self._track: recording.Track | None = None  # not None: connected
        self._period_ns = int(1e9 / rate_hz)
        self._still: Vector = (0.0,) * len(header.joints)
        self._mode: Mode | None = None  # not None: active
        self._configured = False
        self._stopped = ""  # why, since the e-stop
        self._column = recording.COMMANDS.index(
            Mode.POSITION if header.mode is Mode.PD else header.mode
        )
        self._last = Measurement(0, 0, -1, self._still, self._still, self._still, {}, fresh=False)
        self._largest = 0.0
        self._rewind(0)

    # Once.

    def connect(self) -> dict[str, str]:
        """Reads the recording."""
        if self._track is not None:
            raise DriverError("recording: already connected; close it first")
        self._track = recording.load(self._path)
        rows, joints = self._track.position.shape
        self._asked = np.full((rows, joints), np.nan, np.float32)
        self._rewind(monotonic_ns())
        source = self._header.source or self._path.name
        identity = {"model": self._header.robot, "serial": source, "firmware": "recorded"}
        return {**identity, **self._header.identity}

    def configure(self, calibration: dict[str, Any]) -> dict[str, Any]:
        """Back to the first row; nothing has been compared yet."""
        track = self._need_track()
        if self._mode is not None:
            raise DriverError("recording: deactivate before configuring")
        self.counters.update(dict.fromkeys(self.counters, 0))
        self._asked[:] = np.nan
        self._rewind(monotonic_ns())
        self._configured = True
        return {
            "source": self._header.source,
            "rows": len(track.time_ns),
            "duration_s": self._length_ns(track) / 1e9,
            "speed": self.options.speed,
            "loop": self.options.loop,
            **calibration,
        }

    def check_watchdog(self) -> str:
        """A recording has none."""
        self._need_configured()
        return ""

    def activate(self, mode: Mode) -> Measurement:
        """It goes on from here."""
        self._need_configured()
        if mode is not self._header.mode:
            raise DriverError(f"recording: the robot was commanded by {self._header.mode}")
        start = self.read(0)
        self._since_ns = monotonic_ns()
        self._mode = mode
        return start._replace(velocity=self._still)

    def deactivate(self) -> None:
        """It stands where it is."""
        if self._mode is None:
            raise DriverError("recording: it is not active")
        self._advance(monotonic_ns())
        self._pause()

    # In every cycle.

    def read(self, deadline_ns: int) -> Measurement:
        """The row that is due now; waits for the next one, if this one has been read."""
        now_ns = monotonic_ns()
        if not self._advance(now_ns):
            wait_ns = min(deadline_ns, self._next_ns()) - now_ns
            if wait_ns <= 0:
                return self._last._replace(fresh=False)
            sleep(wait_ns / 1e9)
            now_ns = monotonic_ns()
            if not self._advance(now_ns):
                return self._last._replace(fresh=False)
        self._last = self._measured(now_ns)
        return self._last

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        """Compares what is asked with what was told then; moves nothing."""
        if self._stopped:
            raise DriverError(f"recording: e-stopped ({self._stopped}); reset it first")
        numbers = vet(_NAME, setpoint, self._mode, len(self._still), deadline_ns)
        self._asked[self._row] = numbers
        worst = self._largest
        for joint, (asked, told) in enumerate(zip(numbers, self._told(), strict=True)):
            if isnan(told):
                continue
            distance = abs(asked - told)
            self._compared += 1
            self._sum += distance
            self.counters["deviating"] += distance > self.options.tolerance
            if distance > worst:
                worst, self._worst = distance, (joint, self._row)
        self._largest = worst

    @property
    def deviation(self) -> Deviation:
        """Of all that was asked since `configure`."""
        if self._track is None or not self._compared:
            return Deviation()
        joint, row = self._worst
        times = self._track.time_ns
        return Deviation(
            self._compared,
            self._largest,
            self._sum / self._compared,
            self._header.joints[joint].name,
            int(times[row] - times[0]) / 1e9,
        )

    # At any time.

    def estop(self, reason: str) -> None:
        """It stands from now on."""
        self._stopped = self._stopped or reason or "no reason given"

    def reset(self) -> None:
        """Leaves the e-stop; it has to be configured again."""
        self._need_track()
        self._pause()
        self._configured, self._stopped = False, ""

    def close(self) -> None:
        """Keeps what was asked, if that is wanted."""
        track, self._track = self._track, None
        self._pause()
        self._configured = False
        if track is not None and self.options.keep:
            try:
                np.savez_compressed(
                    self.options.keep,
                    time_ns=track.time_ns,
                    asked=self._asked,
                    told=track.sent[:, self._column],
                )
            except OSError as error:
                self.counters[f"not kept: {error.strerror}"] = 1

    # Where the recording is.

    def _need_track(self) -> recording.Track:
        if self._track is None:
            raise DriverError("recording: connect it first")
        return self._track

    def _need_configured(self) -> None:
        self._need_track()
        if self._stopped:
            raise DriverError(f"recording: e-stopped ({self._stopped}); reset it first")
        if not self._configured or self._mode is not None:
            raise DriverError("recording: configure it first, and activate it once")

    def _rewind(self, now_ns: int) -> None:
        self._row = self._round = self._seq = 0
        self._compared, self._sum, self._largest, self._worst = 0, 0.0, 0.0, (0, 0)
        self._played_ns = 0  # of the recording, before this activation
        self._waited_ns = 0  # while it stood, in its time
        self._since_ns = self._stood_ns = now_ns
        self._told_row, self._told_then = -1, self._still
        self._last = self._last._replace(received_ns=0)

    def _pause(self) -> None:
        if self._mode is not None:
            self._mode = None
            self._played_ns = self._elapsed_ns(monotonic_ns())

    def _elapsed_ns(self, now_ns: int) -> int:
        """Of the recording."""
        return self._played_ns + int((now_ns - self._since_ns) * self.options.speed)

    def _length_ns(self, track: recording.Track) -> int:
        """From the first row to the end of the last."""
        return int(track.time_ns[-1] - track.time_ns[0]) + int(1e9 / self._header.rate_hz)

    def _advance(self, now_ns: int) -> bool:
        """Goes on to the row that is due; whether that is another one.

        Raises:
            DriverError: there is none any more.
        """
        track = self._need_track()
        if self._mode is None or self._stopped:
            ticks = (now_ns - self._stood_ns) // self._period_ns
            self._stood_ns += ticks * self._period_ns
            self._seq += ticks
            self._waited_ns += int(ticks * self._period_ns * self.options.speed)
            return ticks > 0 or self._last.received_ns == 0
        length_ns = self._length_ns(track)
        rounds, at_ns = divmod(self._elapsed_ns(now_ns), length_ns)
        if rounds and not self.options.loop:
            self._pause()
            raise DriverError(f"recording: it is over after {length_ns / 1e9:.2f} s")
        row = int(np.searchsorted(track.time_ns, track.time_ns[0] + at_ns, "right")) - 1
        moved = (rounds - self._round) * len(track.time_ns) + row - self._row
        self._row, self._round, self._stood_ns = row, rounds, now_ns
        self._seq += moved
        return moved > 0

    def _next_ns(self) -> int:
        """When the next row is due."""
        track = self._need_track()
        if self._mode is None or self._stopped:
            return self._stood_ns + self._period_ns
        length_ns = self._length_ns(track)
        is_last = self._row + 1 == len(track.time_ns)
        ahead_ns = length_ns if is_last else int(track.time_ns[self._row + 1] - track.time_ns[0])
        ahead_ns += self._round * length_ns - self._played_ns
        return self._since_ns + int(ahead_ns / self.options.speed) + 1

    def _told(self) -> Vector:
        """What the recorded robot was told in this row; NaN: nothing."""
        if self._told_row != self._row:
            track = self._need_track()
            self._told_then = tuple(track.sent[self._row, self._column].tolist())
            self._told_row = self._row
        return self._told_then

    def _measured(self, now_ns: int) -> Measurement:
        track, row = self._need_track(), self._row
        stands = self._mode is None or bool(self._stopped)
        at_ns = int(track.time_ns[row] - track.time_ns[0])
        numbers = track.sensors[row].tolist()
        sensors, start = {}, 0
        for name, (_, size) in self._header.sensors.items():
            sensors[name] = tuple(numbers[start : start + size])
            start += size
        return Measurement(
            self._seq,
            now_ns,
            self._waited_ns + self._round * self._length_ns(track) + at_ns,
            tuple(track.position[row].tolist()),
            self._still if stands else tuple(track.velocity[row].tolist()),
            tuple(track.effort[row].tolist()),
            sensors,
        )
