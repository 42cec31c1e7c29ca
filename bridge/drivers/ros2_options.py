"""What the ROS 2 driver is told: which joints, which controller moves them, where it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safetypilot.bridge.contract import Description, DriverError, Failsafe, Joint, Mode
from safetypilot.bridge.drivers.vetting import joints as joints_of
from safetypilot.bridge.drivers.vetting import number

NAME = "ros2"
CONTROLLERS = ("position", "velocity", "effort", "trajectory")
_DOWN_S = 5.0  # beside the ramp, until `deactivate` knows that it stands
_ABOVE_ZERO = (
    "rate_hz", "connect_s", "silence_s", "ramp_s", "command_timeout_s", "time_factor",
)  # fmt: skip
_ARM: dict[str, dict[str, float]] = {
    "shoulder": {"low": -2.0, "high": 2.0},
    "elbow": {"low": -2.4, "high": 2.4},
}
_LIMITS = {"velocity": 3.0, "effort": 4.1, "acceleration": 30.0, "jerk": 3000.0, "margin": 0.02}


def _arm() -> dict[str, Any]:
    """Of the simulated device."""
    return {name: {**limits, **_LIMITS} for name, limits in _ARM.items()}


@dataclass(frozen=True, slots=True)
class Ros2Options:
    """A robot behind ros2_control.

    Attributes:
        joints: name -> limits (low, high, velocity, ...) in SI units, in the controller's order; by
            default the arm of the simulated device.
        controller: "position", "velocity" or "effort", a forward_command_controller; or
            "trajectory", a joint_trajectory_controller, which stops at the last point it was sent.
        commands: the controller's topic, by its full name; by default that of a controller called
            forward_position_controller and so on, or joint_trajectory_controller.
        states: the joint_state_broadcaster's topic.
        domain: ROS_DOMAIN_ID.
        interface: of the network; "lo" hears this host only.
        estop: a topic (std_msgs/Bool) that the robot is stopped with, if it has one: true stops it,
            false lets it go on, which `reset` sends.
        estop_state: a topic (std_msgs/Bool) that says whether the robot is stopped, if it has one.
        horizon_s: in which a point of a trajectory is to be reached; by default two periods.
        rate_hz: of commands.
        connect_s: until states of all joints, and a controller that listens, have to be there.
        silence_s: without states, after which the robot is lost.
        ramp_s: in which `deactivate` takes speed or effort off.
        command_timeout_s: what the bridge is to use for its own.
        watchdog_s: of the controller, if it has a time-out for commands; most have none.
        time_factor: seconds of the robot per second of the host, if it is simulated.
        model: what the robot is called.
        simulated: nothing real can be hurt.
    """

    joints: Mapping[str, Mapping[str, Any]] = field(default_factory=_arm)
    controller: str = "position"
    commands: str = ""
    states: str = "/joint_states"
    domain: int = 0
    interface: str = "lo"
    estop: str = ""
    estop_state: str = ""
    horizon_s: float | None = None
    rate_hz: float = 100.0
    connect_s: float = 5.0
    silence_s: float = 0.5
    ramp_s: float = 0.5
    command_timeout_s: float = 0.1
    watchdog_s: float | None = None
    time_factor: float = 1.0
    model: str = "ros2_control"
    simulated: bool = False

    def __post_init__(self) -> None:
        if self.controller not in CONTROLLERS:
            known = ", ".join(CONTROLLERS)
            raise DriverError(f"ros2: controller is {self.controller!r}; it is one of {known}")
        if type(self.domain) is not int:
            raise DriverError(f"ros2: domain is {self.domain!r}; it is a whole number")
        for name in _ABOVE_ZERO:
            number(NAME, name, getattr(self, name))
        for name in ("horizon_s", "watchdog_s"):
            if getattr(self, name) is not None:
                number(NAME, name, getattr(self, name))
        if not self.model:
            raise DriverError("ros2: model is empty; the robot needs a name")

    @property
    def mode(self) -> Mode:
        """In which the controller is commanded."""
        return Mode.POSITION if self.controller == "trajectory" else Mode(self.controller)

    @property
    def commands_topic(self) -> str:
        """The controller's topic, as ROS 2 calls it."""
        if self.commands:
            return self.commands
        if self.controller == "trajectory":
            return "/joint_trajectory_controller/joint_trajectory"
        return f"/forward_{self.controller}_controller/commands"


def describe(options: Ros2Options) -> Description:
    """What the driver declares.

    Raises:
        DriverError: joints or limits will not do.
    """
    joints: tuple[Joint, ...] = joints_of(NAME, options.joints)
    effort = options.mode is Mode.EFFORT
    return Description(
        name=f"ros2 {options.model}",
        joints=joints,
        modes=(options.mode,),
        rate_hz=options.rate_hz,
        max_rate_hz=10 * options.rate_hz,
        command_timeout_s=options.command_timeout_s,
        failsafes=(Failsafe.TORQUE_OFF,) if effort else (Failsafe.HOLD,),
        watchdog_s=options.watchdog_s,
        down_s=options.ramp_s + _DOWN_S,
        time_factor=options.time_factor,
        simulated=options.simulated,
    )
