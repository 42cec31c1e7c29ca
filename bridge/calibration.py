"""Calibration files: what belongs to one device and to no other.

A JSON file names the device it was made on (`device`, compared with what the device says of itself)
and the fields that the driver asks for (`values`). A file of another device is refused: with
another's zero positions the limits would not be where the robot's are. So it has to name the
serial; for a simulated device the model will do, since all of one model are alike.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from safetypilot.bridge.contract import Description, DriverError

_FORM = 'it is JSON: {"device": {"serial": ...}, "values": {...}}'


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured on one device.

    Attributes:
        device: what it says of itself: `serial`, and `model` and `firmware` if they matter.
        values: what the driver asks for, JSON-able.
        source: the file, for errors; empty: there is none.
    """

    device: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    source: str = ""

    @property
    def id(self) -> str:
        """A name that changes with every number of it; empty where there is none."""
        if not self.device and not self.values:
            return ""
        whole = json.dumps([self.device, self.values], sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()[:12]

    def check(self, description: Description, identity: Mapping[str, str]) -> dict[str, Any]:
        """The values, if they are of this device and nothing is missing.

        Args:
            identity: what the device said when it was connected.

        Raises:
            DriverError: of another device or of no certain one, or a field is missing, unknown or
                no number.
        """
        where = self.source or "no calibration file was given"
        missing = [name for name in description.calibration if name not in self.values]
        if missing:
            raise DriverError(
                f"{description.name} needs a calibration with {', '.join(missing)}: {where}"
            )
        unknown = [name for name in self.values if name not in description.calibration]
        if unknown:
            wanted = ", ".join(description.calibration) or "none at all"
            raise DriverError(f"{where}: {', '.join(unknown)} is not asked for; it is {wanted}")
        for name, wanted in self.device.items():
            if str(identity.get(name)) != wanted:
                raise DriverError(
                    f"{where} belongs to {name} {wanted!r}, the device here is "
                    f"{identity.get(name)!r}: calibrate this one"
                )
        if self.values and not self.device:
            raise DriverError(f"{where} does not say whose it is; add `device: {{serial: ...}}`")
        if self.device and not self.device.get("serial") and not description.simulated:
            raise DriverError(
                f"{where} names no serial, so it would fit every {description.name}; add that of "
                "the device it was made on: `device: {serial: ...}`"
            )
        for name, value in self.values.items():
            if not _is_finite(value):
                raise DriverError(f"{where}: {name} is {value!r}, which is not finite")
        return dict(self.values)


def load(path: Path) -> Calibration:
    """Reads a calibration file (JSON).

    Raises:
        DriverError: it cannot be read, or is no calibration.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise DriverError(f"calibration {path}: {reason}; {_FORM}") from None
    except json.JSONDecodeError as error:
        where = f"calibration {path}, line {error.lineno}"
        raise DriverError(f"{where}: {error.msg}; {_FORM}") from None
    if not isinstance(data, dict) or set(data) != {"device", "values"}:
        raise DriverError(f"calibration {path} has other keys; {_FORM}")
    device, values = data["device"], data["values"]
    if not isinstance(device, dict) or not isinstance(values, dict):
        raise DriverError(f"calibration {path}: `device` and `values` are both mappings")
    return Calibration({str(k): str(v) for k, v in device.items()}, values, str(path))


def load_given(file: str | None) -> Calibration:
    """The file's, or the empty one where none is given.

    Raises:
        DriverError: as `load`.
    """
    return load(Path(file)) if file else Calibration()


def save(calibration: Calibration, path: Path) -> None:
    """Writes it whole or not at all."""
    text = json.dumps({"device": calibration.device, "values": calibration.values}, indent=2)
    beside = path.with_name(path.name + ".new")
    beside.write_text(text + "\n", "utf-8")
    beside.replace(path)


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or isfinite(value)
