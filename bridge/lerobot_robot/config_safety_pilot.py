"""The config of SafetyPilotRobot, registered with LeRobot as `safety_pilot`.

    lerobot-teleoperate --robot.discover_packages_path=safetypilot.bridge.lerobot_robot \
        --robot.type=safety_pilot --robot.driver=dynamixel \
        --robot.options='{port: /dev/ttyUSB0}' ...

LeRobot finds the robot by the name of this file: what follows `config_` is its module.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lerobot.robots import RobotConfig


@RobotConfig.register_subclass("safety_pilot")
@dataclass(kw_only=True)
class SafetyPilotRobotConfig(RobotConfig):  # type: ignore[misc]
    """Which driver, and how its robot is commanded.

    Attributes:
        driver: a name of bridge/registry.py, `module:Class`, or `file.py:Class`.
        options: of the driver.
        calibration: a calibration file (ours, not LeRobot's).
        mode: "position", "velocity", "effort" or "pd".
        kp, kd: gains of all joints, for `pd`; they rise from zero.
        degrees: angles and their velocities in degrees, as most of LeRobot's policies have them.
        sensors: name -> how many numbers, of the driver's sensors that are to be observed.
        latch: a file that keeps an e-stop; else one beside LeRobot's calibration of this robot.
    """

    driver: str = "mujoco"
    options: dict[str, Any] = field(default_factory=dict)
    calibration: str = ""
    mode: str = "position"
    kp: float = 0.0
    kd: float = 0.0
    degrees: bool = False
    sensors: dict[str, int] = field(default_factory=dict)
    latch: str = ""
