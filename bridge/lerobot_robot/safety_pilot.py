"""SafetyPilotRobot: a driver of ours with LeRobot's calls, behind our limiter and life cycle.

`send_action` returns what has really been sent. What is not finite is refused: the robot stands
still, and what comes back says where. Between two actions a thread keeps the device commanded;
after the driver's command timeout without one the robot stands still, and `disconnect` takes it
down gently. So do limits that had to cut what was wanted for two seconds, and then again: a program
is to say what the robot can do. `estop` and `reset` are beyond LeRobot's interface: an e-stop
outlives the process.
"""

from __future__ import annotations

import logging
from math import degrees, radians
from pathlib import Path
from typing import Any

from lerobot.robots import Robot
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from safetypilot.bridge import calibration, registry
from safetypilot.bridge.contract import DriverError, Mode, Setpoint, Vector
from safetypilot.bridge.guarded import Guarded
from safetypilot.bridge.lerobot_robot.config_safety_pilot import SafetyPilotRobotConfig
from safetypilot.bridge.lifecycle import LATCHED, State, Transition

_LOG = logging.getLogger(__name__)
_SUFFIXES = {Mode.POSITION: "pos", Mode.PD: "pos", Mode.VELOCITY: "vel", Mode.EFFORT: "effort"}


class SafetyPilotRobot(Robot):  # type: ignore[misc]
    """A robot for LeRobot's scripts and policies."""

    config_class = SafetyPilotRobotConfig
    name = "safety_pilot"

    def __init__(self, config: SafetyPilotRobotConfig) -> None:
        """Connect nothing.

        Raises:
            DriverError: there is no such driver, option or mode.
        """
        super().__init__(config)
        self.config = config
        driver = registry.create(config.driver, config.options)
        joints = driver.description.joints
        modes = [str(mode) for mode in driver.description.modes]
        if config.mode not in modes:
            raise DriverError(f"mode is {config.mode!r}; {config.driver} has {', '.join(modes)}")
        for name in config.sensors:
            if name not in driver.description.sensors:
                known = ", ".join(driver.description.sensors) or "none"
                raise DriverError(f"{config.driver} has no sensor {name!r}; it has {known}")
        self.mode = Mode(config.mode)
        self._turns = tuple(joint.unit == "rad" and config.degrees for joint in joints)
        self._names = tuple(joint.name for joint in joints)
        self._actions = tuple(f"{name}.{_SUFFIXES[self.mode]}" for name in self._names)
        latch = Path(config.latch) if config.latch else self.calibration_fpath.with_suffix(".estop")
        gains = (config.kp, config.kd)
        self.guarded = Guarded(driver, self.mode, latch, gains=gains, told=self._tell)

    def _tell(self, transition: Transition) -> None:
        limits = transition.before is transition.after is State.ACTIVE
        level = logging.WARNING if limits or transition.after in LATCHED else logging.INFO
        _LOG.log(level, "%s: %s, %s", self, transition.after, transition.cause)

    @property
    def observation_features(self) -> dict[str, Any]:
        features: dict[str, Any] = {}
        for suffix in ("pos", "vel", "effort"):
            features |= {f"{name}.{suffix}": float for name in self._names}
        for name, size in self.config.sensors.items():
            features |= {f"{name}.{index}": float for index in range(size)}
        return features

    @property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(self._actions, float)

    @property
    def is_connected(self) -> bool:
        return self.guarded.life.state is not State.DISCONNECTED and self.guarded.life.connected

    @property
    def is_calibrated(self) -> bool:
        return bool(self.config.calibration) or not self.guarded.description.calibration

    def connect(self, calibrate: bool = True) -> None:
        """Connects, tests the device's watchdog and holds the robot where it is.

        Raises:
            DriverError: it failed, or an e-stop is latched: `reset` first.
        """
        if self.is_connected:
            raise DeviceAlreadyConnectedError(f"{self} is connected already")
        measured = calibration.load_given(self.config.calibration)
        try:
            self.guarded.start(measured, "LeRobot connects")
        except DriverError:
            self.guarded.close("it could not be started")
            raise

    def calibrate(self) -> None:
        """Nothing: our calibration files are made by whoever knows the device."""

    def configure(self) -> None:
        """Nothing: `connect` has done it."""

    def get_observation(self) -> dict[str, Any]:
        """The newest state.

        Raises:
            DeviceNotConnectedError: it is not connected.
        """
        self._need_connection()
        measured = self.guarded.measured
        observation: dict[str, Any] = {}
        position, velocity = self._shown(measured.position), self._shown(measured.velocity)
        for suffix, numbers in (("pos", position), ("vel", velocity), ("effort", measured.effort)):
            pairs = zip(self._names, numbers, strict=True)
            observation |= {f"{name}.{suffix}": number for name, number in pairs}
        for name, size in self.config.sensors.items():
            numbers = measured.sensors[name]
            if len(numbers) != size:
                raise DriverError(f"sensor {name!r} has {len(numbers)} numbers, not {size}")
            observation |= {f"{name}.{index}": number for index, number in enumerate(numbers)}
        return observation

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Where to go from now on; returns what was really sent.

        Raises:
            DeviceNotConnectedError: it is not connected.
            DriverError: the robot was stopped, and why.
            ValueError: a feature is missing, or no number.
        """
        self._need_connection()
        missing = [name for name in self._actions if name not in action]
        if missing:
            raise ValueError(f"the action lacks {', '.join(missing)}")
        given = tuple(float(action[name]) for name in self._actions)
        sent = self.guarded.command(self._meant(given))
        return dict(zip(self._actions, self._of(sent), strict=True))

    def disconnect(self) -> None:
        """Takes the robot down gently; what holds it then is up to the driver's options."""
        self._need_connection()
        self.guarded.close("LeRobot disconnects")

    def estop(self, reason: str) -> None:
        """Stops the robot, from any thread; latched in a file until `reset`."""
        self.guarded.estop(reason)

    def reset(self, reason: str) -> None:
        """Leaves a fault or an e-stop, by a person's intent; `disconnect` and `connect` follow.

        Raises:
            DriverError: nobody says why, or the device is not healthy.
        """
        self.guarded.reset(reason)

    def _need_connection(self) -> None:
        if not self.is_connected:
            raise DeviceNotConnectedError(f"{self} is not connected")

    def _of(self, sent: Setpoint) -> Vector:
        if self.mode is Mode.EFFORT:
            return sent.effort
        return self._shown(sent.velocity if self.mode is Mode.VELOCITY else sent.position)

    def _shown(self, numbers: Vector) -> Vector:
        """SI -> LeRobot's."""
        if not self.config.degrees:
            return numbers
        pairs = zip(self._turns, numbers, strict=True)
        return tuple(degrees(number) if turns else number for turns, number in pairs)

    def _meant(self, numbers: Vector) -> Vector:
        """LeRobot's -> SI."""
        if self.mode is Mode.EFFORT or not self.config.degrees:
            return numbers
        pairs = zip(self._turns, numbers, strict=True)
        return tuple(radians(number) if turns else number for turns, number in pairs)
