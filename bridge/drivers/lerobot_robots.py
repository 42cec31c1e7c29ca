"""Finds and makes the robots of LeRobot; imports it only for those that are its own."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from safetypilot.bridge.contract import DriverError

# What modules and robots of others raise, one way or another.
FOREIGN = (
    ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError,
    NotImplementedError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
_DROPS = "disable_torque_on_disconnect"  # a field of some configs: their arms fall when closed


def maker(robot: str, config: Mapping[str, Any]) -> tuple[Callable[[], Any], str]:
    """Who makes the robot, not connected yet, and which library it is of.

    Args:
        robot: a type registered with LeRobot, or `module:Class`.
        config: fields of its config.

    Raises:
        DriverError: there is no such robot, or its config has no such field.
    """
    module, colon, name = robot.partition(":")
    if colon:
        kind = getattr(_module(module), name, None)
        if not isinstance(kind, type) or not hasattr(kind, "config_class"):
            raise DriverError(f"lerobot: {module} has no robot {name!r} (with a config_class)")
        made = _config(robot, kind.config_class, config)
        return partial(kind, made), module
    robots = _module("lerobot.robots")
    version = importlib.metadata.version("lerobot")
    made = _config(robot, _registered(robot, robots), config)
    return partial(robots.make_robot_from_config, made), f"lerobot {version}"


def _registered(robot: str, robots: Any) -> Any:
    """The config class of a type; LeRobot registers one when its module is imported."""
    known = robots.RobotConfig.get_known_choices
    if robot not in known():
        for found in pkgutil.iter_modules(robots.__path__):
            try:
                importlib.import_module(f"lerobot.robots.{found.name}")
            except FOREIGN:
                continue  # a robot whose own library is not installed
        importlib.import_module("lerobot.utils.import_utils").register_third_party_plugins()
    if robot not in known():
        raise DriverError(f"lerobot: no robot {robot!r}; there are {', '.join(sorted(known()))}")
    return known()[robot]


def _config(robot: str, kind: Any, config: Mapping[str, Any]) -> Any:
    names = [each.name for each in dataclasses.fields(kind)]
    given = dict(config)
    if _DROPS in names:
        given.setdefault(_DROPS, False)
    try:
        return kind(**given)
    except FOREIGN as error:
        raise DriverError(
            f"lerobot: config of {robot}: {error}; it has {', '.join(names)}"
        ) from None


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except FOREIGN as error:
        hint = ": pip install 'safetypilot[lerobot]'" if name.startswith("lerobot") else ""
        raise DriverError(
            f"lerobot: {name} cannot be imported ({type(error).__name__}: {error}){hint}"
        ) from error
