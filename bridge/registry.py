"""Drivers by name, made from plain options; looking one up loads no vendor's library."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetypilot.bridge.contract import Description, Driver, DriverError

_HERE = "safetypilot.bridge.drivers"
DRIVERS = {
    "mujoco": f"{_HERE}.mujoco:MujocoDriver",
    "unitree": f"{_HERE}.unitree:UnitreeDriver",
    "dynamixel": f"{_HERE}.dynamixel:DynamixelDriver",
    "ros2": f"{_HERE}.ros2:Ros2Driver",
    "lerobot": f"{_HERE}.lerobot:LerobotDriver",
    "recording": f"{_HERE}.recording:RecordingDriver",
}


def create(name: str, options: Mapping[str, Any] | None = None) -> Driver:
    """A driver, not connected yet.

    Args:
        name: one of `DRIVERS`, `module:Class`, or `file.py:Class` of your own.
        options: fields of the driver's `Options`; the rest keep their defaults.

    Raises:
        DriverError: there is no such driver or option, or an option's value will not do.
    """
    kind = _find(name)
    given = _given(options)
    known = [field.name for field in dataclasses.fields(kind.Options)]
    for key in given:
        if key not in known:
            raise DriverError(f"driver {name!r} has no option {key!r}; {_near(key, known)}")
    for field in dataclasses.fields(kind.Options):
        if field.name in given:
            _check_kind(name, field.name, given[field.name], field.default)
    try:
        driver: Driver = kind(kind.Options(**given))
    except (TypeError, ValueError, DriverError) as error:
        raise DriverError(f"driver {name!r}: {error}") from None
    except Exception as error:  # another's code
        raise DriverError(f"driver {name!r}: {_told(error)}") from error
    return driver


def describe(name: str, options: Mapping[str, Any] | None = None) -> Description:
    """What a driver with these options declares, while nothing is connected.

    Raises:
        DriverError: as `create`.
    """
    return create(name, options).description


def address(name: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Option -> value, of those that tell one device of this driver from another.

    A driver has been made of them before, so they are sound. They are the driver's `ADDRESS`; all
    of them where it does not say, so that no two are taken for one.

    Raises:
        DriverError: there is no such driver, or `ADDRESS` names an option that there is not.
    """
    kind = _find(name)
    made = kind.Options(**_given(options))
    known = [field.name for field in dataclasses.fields(made)]
    names = getattr(kind, "ADDRESS", None) or known
    for option in names:
        if option not in known:
            raise DriverError(f"driver {name!r}: ADDRESS names {option!r}; {_near(option, known)}")
    return {option: getattr(made, option) for option in names}


def _given(options: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in (options or {}).items()}


def _find(name: str) -> Any:
    target = DRIVERS.get(name, name)
    path, colon, attribute = target.rpartition(":")
    if not colon:
        mend = f"name its class, too: {name}:Class" if name.endswith(".py") else ""
        raise DriverError(f"there is no driver {name!r}; {mend or _near(name, list(DRIVERS))}")
    try:
        module = _load_file(Path(path)) if path.endswith(".py") else importlib.import_module(path)
    except Exception as error:  # another's code
        raise DriverError(f"driver {name!r}: {_told(error)}") from error
    kind = getattr(module, attribute, None)
    if not dataclasses.is_dataclass(getattr(kind, "Options", None)):
        raise DriverError(f"driver {name!r}: {path} has no class {attribute} with Options")
    return kind


def _check_kind(driver: str, option: str, value: Any, default: Any) -> None:
    """Numbers for numbers and text for text; everything else is the driver's own affair."""
    for kinds, wanted in (((bool,), "true or false"), ((int, float), "a number"), ((str,), "text")):
        if isinstance(default, kinds) and value is not None:
            if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(default, bool):
                raise DriverError(f"driver {driver!r}: {option} is {value!r}; it is {wanted}")
            return


def _told(error: Exception) -> str:
    """What went wrong, and in which line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"


def _load_file(path: Path) -> Any:
    name = str(path.resolve())  # no module that is imported by name is called so
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _near(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"it is one of {', '.join(known)}"
