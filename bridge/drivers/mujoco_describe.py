"""What the MuJoCo driver declares, read from the model while nothing runs."""

from __future__ import annotations

from safetypilot.bridge.contract import Description, Failsafe
from safetypilot.bridge.devices.mujoco_options import MujocoOptions
from safetypilot.bridge.devices.mujoco_robot import CONTACT, Robot


def describe(options: MujocoOptions, robot: Robot) -> Description:
    """Joints, sensors, rates and time-outs."""
    sensors = {sensor.name: sensor.unit for sensor in robot.sensors}
    if options.obstacles:
        sensors[CONTACT] = "1"
    gentle = (Failsafe.HOLD, Failsafe.DAMPING)
    return Description(
        name="mujoco",
        joints=robot.joints,
        modes=robot.modes,
        rate_hz=options.rate_hz,
        max_rate_hz=options.max_rate_hz,
        command_timeout_s=options.command_timeout_s,
        failsafes=(*gentle, Failsafe.TORQUE_OFF) if options.rest == "off" else gentle,
        watchdog_s=options.watchdog_s,
        sensors=sensors,
        time_factor=options.time_factor,
        simulated=True,
    )
