"""What a robot did and was told, in one file (.npz): the columns that the recording driver plays.

    header      JSON in bytes: what the robot was, and in which mode it was commanded
    time_ns     (T,) int64, increasing: when a state was measured
    position, velocity, effort      (T, J): measured
    sent        (T, 5, J): position, velocity, effort, kp, kd; NaN: not told
    sensors     (T, S): the numbers of all sensors, one after the other

SI units; joints and sensors in the header's order. No pickle is read.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from safetypilot.bridge.contract import DriverError, Joint, Mode

Array = npt.NDArray[Any]
COMMANDS = ("position", "velocity", "effort", "kp", "kd")  # the rows of `sent`
_FORMAT, _VERSION = "safetypilot robot recording", 1
_COLUMNS = ("time_ns", "position", "velocity", "effort", "sent", "sensors")


@dataclass(frozen=True)
class Header:
    """Which robot it was.

    Attributes:
        sensors: name -> (unit, how many numbers).
        rate_hz: at which it was read, host time.
        time_factor: seconds of the device per second of the host.
        source: where the recording comes from.
    """

    robot: str
    joints: tuple[Joint, ...]
    mode: Mode
    rate_hz: float
    time_factor: float = 1.0
    sensors: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    identity: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    def to_json(self) -> str:
        rows = [
            {name: value if value not in (float("inf"), float("-inf")) else None
             for name, value in asdict(joint).items()}
            for joint in self.joints
        ]  # fmt: skip
        whole = {**vars(self), "joints": rows, "sensors": dict(self.sensors)}
        return json.dumps({"format": _FORMAT, "version": _VERSION, **whole}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Header:
        """Reads it back; raises KeyError, TypeError or ValueError."""
        data = json.loads(text)
        if data.pop("format") != _FORMAT or data.pop("version") != _VERSION:
            raise ValueError(f"it is no {_FORMAT} of version {_VERSION}")
        joints = tuple(
            Joint(**{name: value for name, value in row.items() if value is not None})
            for row in data.pop("joints")
        )
        sensors = {name: (str(unit), int(n)) for name, (unit, n) in data.pop("sensors").items()}
        return cls(joints=joints, sensors=sensors, mode=Mode(data.pop("mode")), **data)


@dataclass(frozen=True, eq=False)
class Track:
    """A recording in memory.

    Raises:
        DriverError: its columns do not belong together, or hold what no robot can have measured.
    """

    header: Header
    time_ns: Array  # (T,)
    position: Array  # (T, J)
    velocity: Array  # (T, J)
    effort: Array  # (T, J)
    sent: Array  # (T, 5, J)
    sensors: Array  # (T, S)

    def __post_init__(self) -> None:
        rows, joints = len(self.time_ns), len(self.header.joints)
        numbers = sum(size for _, size in self.header.sensors.values())
        shapes = {
            "time_ns": (rows,),
            "position": (rows, joints),
            "velocity": (rows, joints),
            "effort": (rows, joints),
            "sent": (rows, len(COMMANDS), joints),
            "sensors": (rows, numbers),
        }
        for name, shape in shapes.items():
            found = getattr(self, name).shape
            if found != shape:
                raise DriverError(f"recording: {name} is {found}, and should be {shape}")
        if rows < 2 or not (np.diff(self.time_ns) > 0).all():
            raise DriverError("recording: time_ns has to increase, over two rows at least")
        for name in ("position", "velocity", "effort"):
            if not np.isfinite(getattr(self, name)).all():
                raise DriverError(f"recording: {name} has numbers that are not finite")


def save(track: Track, path: Path) -> None:
    """Writes it whole or not at all.

    Raises:
        DriverError: it cannot be written.
    """
    columns = {name: getattr(track, name) for name in _COLUMNS}
    header = np.frombuffer(track.header.to_json().encode(), np.uint8)
    beside = path.with_name(path.name + ".new")
    try:
        with beside.open("wb") as file:
            np.savez_compressed(file, header=header, **columns)
        beside.replace(path)
    except OSError as error:
        raise DriverError(f"recording {path}: {error.strerror}") from None


def read_header(path: Path) -> Header:
    """What the robot was; reads nothing else.

    Raises:
        DriverError: it cannot be read, or is no recording.
    """
    return _header(_load(path, ("header",))["header"], path)


def load(path: Path) -> Track:
    """Reads a recording.

    Raises:
        DriverError: it cannot be read, or is no recording.
    """
    found = _load(path, ("header", *_COLUMNS))
    header = _header(found.pop("header"), path)
    return Track(header, **found)


def _load(path: Path, names: tuple[str, ...]) -> dict[str, Array]:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            missing = [name for name in names if name not in file]
            if missing:
                raise DriverError(
                    f"{path} is no recording of a robot: it lacks {', '.join(missing)}; make one "
                    "with `safetypilot bridge export-recording`"
                )
            return {name: file[name] for name in names}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DriverError(f"recording {path}: {error}") from None


def _header(column: Array, path: Path) -> Header:
    try:
        header = Header.from_json(column.tobytes().decode())
        numbers = (header.rate_hz, header.time_factor)
        good = header.joints and all(isfinite(each) and each > 0 for each in numbers)
    except (KeyError, TypeError, ValueError, UnicodeDecodeError) as error:
        raise DriverError(f"recording {path}: its header cannot be read: {error}") from None
    if not good:
        raise DriverError(
            f"recording {path}: its header has no joints, or no rate and time factor above 0"
        )
    return header
