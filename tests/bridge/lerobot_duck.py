"""A robot with LeRobot's calls and two servos, and a driver for it that needs no options."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetypilot.bridge.drivers.lerobot import LerobotDriver, LerobotOptions

_JOINT = {"feature_unit": "deg", "low": -2.0, "high": 2.0, "velocity": 3.0, "acceleration": 30.0}


@dataclass
class DuckConfig:
    id: str = "blue"


class Duck:
    """shoulder.pos and wrist.pos, in degrees."""

    config_class, name = DuckConfig, "duck"

    def __init__(self, config: DuckConfig) -> None:
        self.id = config.id
        self.is_connected, self.is_calibrated = False, True
        self._at = {"shoulder.pos": 0.0, "wrist.pos": 0.0}
        self._goal = dict(self._at)
        self._since = time.monotonic()

    @property
    def observation_features(self) -> dict[str, type]:
        return dict.fromkeys(self._at, float)

    action_features = observation_features

    def connect(self, calibrate: bool = True) -> None:
        self.is_connected = True

    def _move(self) -> None:
        now = time.monotonic()
        share = min(1.0, 20.0 * (now - self._since))
        self._since = now
        for name, goal in self._goal.items():
            self._at[name] += share * (goal - self._at[name])

    def get_observation(self) -> dict[str, float]:
        self._move()
        return dict(self._at)

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        self._move()
        self._goal = dict(action)
        return dict(action)

    def disconnect(self) -> None:
        self.is_connected = False


@dataclass(frozen=True, slots=True)
class DuckOptions(LerobotOptions):
    """See LerobotOptions, whose defaults are others.

    Attributes:
        robot, config, joints: of the duck.
        rate_hz, simulated: too.
        timeout_s, silence_s, tolerance, estop, command_timeout_s: as there.
    """

    robot: str = f"{Path(__file__).stem}:Duck"
    joints: Mapping[str, Any] = field(default_factory=lambda: {"shoulder": _JOINT, "wrist": _JOINT})
    rate_hz: float = 50.0
    simulated: bool = True


class DuckDriver(LerobotDriver):
    """A duck, driven."""

    Options = DuckOptions
