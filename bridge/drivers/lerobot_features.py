"""What a LeRobot robot's features mean: which is which joint's, and what they are in SI units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import pi
from typing import Any

from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.drivers.vetting import number

_DRIVER = "lerobot"
KEYS = frozenset(
    {"feature", "velocity_feature", "effort_feature", "feature_unit", "offset", "reversed"}
)
_ENDS = {"m100": (-100.0, 100.0), "percent": (0.0, 100.0)}  # normalised: the ends of the range
_SCALES = {"rad": 1.0, "m": 1.0, "deg": pi / 180.0}


@dataclass(frozen=True, slots=True)
class Feature:
    """Where one joint is among the robot's features; SI = gain * raw + bias."""

    position: str
    velocity: str
    effort: str
    gain: float = 1.0
    bias: float = 0.0

    def raw(self, position: float) -> float:
        return (position - self.bias) / self.gain


@dataclass(frozen=True, slots=True)
class Row:
    """One joint, as the options give it."""

    position: str
    velocity: str
    effort: str
    scale: float  # SI per unit of the feature, signed; unused where it is normalised
    offset: float
    ends: tuple[float, float] | None  # what the feature is at the ends of its range

    def feature(self, ends: tuple[float, float] | None) -> Feature:
        """Args: ends: positions at the ends of a normalised range; None: not known yet."""
        gain, bias = self.scale, self.offset
        if self.ends is not None and ends is not None:
            gain = (ends[1] - ends[0]) / (self.ends[1] - self.ends[0])
            bias = ends[0] - gain * self.ends[0]
        return Feature(self.position, self.velocity, self.effort, gain, bias)


def row_of(name: str, given: Mapping[str, Any]) -> Row:
    unit = given.get("feature_unit", "deg")
    if unit not in _SCALES and unit not in _ENDS:
        known = ", ".join([*_SCALES, *_ENDS])
        raise DriverError(
            f"lerobot: joint {name!r} has the feature_unit {unit!r}; it is one of {known}"
        )
    sign = -1.0 if given.get("reversed", False) else 1.0
    return Row(
        str(given.get("feature", f"{name}.pos")),
        str(given.get("velocity_feature", "")),
        str(given.get("effort_feature", "")),
        sign * _SCALES.get(unit, 1.0),
        number(_DRIVER, f"offset of {name!r}", given.get("offset", 0.0), least=-1e6),
        _ENDS.get(unit),
    )


def ends_of(name: str, ranges: Any) -> tuple[float, float]:
    found = ranges.get(name) if isinstance(ranges, Mapping) else None
    try:
        low, high = map(float, found)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        low = high = 0.0
    if low == high:
        raise DriverError(
            f"lerobot: the calibration's ranges have {found!r} for {name!r}; they have the "
            "positions, rad, at the lower and the upper end of its normalised range"
        )
    return low, high
