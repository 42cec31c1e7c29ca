"""A robot behind ros2_control as a driver, over DDS: no ROS has to be installed.

joint_state_broadcaster at the one end, a forward_command_controller or joint_trajectory_controller
at the other. What a robot of ROS 2 cannot promise is not promised here: messages are not
acknowledged, and a forward_command_controller holds the last command for ever. So the watchdog is
the bridge's alone, unless the controller has a time-out of its own (`watchdog_s`). A trajectory at
least ends: with `controller: trajectory` the robot stops at the last point it was sent.
bridge/ROS2.md says how to use it beside a real ROS 2.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import Any, ClassVar

from safetypilot.bridge.contract import (
    DriverError,
    Measurement,
    Mode,
    Setpoint,
    Vector,
)
from safetypilot.bridge.drivers.ros2_link import Link
from safetypilot.bridge.drivers.ros2_options import NAME, Ros2Options, describe
from safetypilot.bridge.drivers.vetting import vet

_FRESH_S = 0.5  # for a state, where one is waited for
_STILL = 0.05  # rad/s or m/s
_SETTLE_S = 2.0
_LIMIT_S = 0.1  # so long it has to stand


class Ros2Driver:
    """Joints by name, commanded by position, velocity, effort or trajectory."""

    Options = Ros2Options
    ADDRESS = ("domain", "interface", "commands")
    SIMULATED: ClassVar[tuple[str, dict[str, Any]]] = (
        "{python} -P -m safetypilot.bridge.devices.ros2 --domain free",
        {
            "domain": "{domain}",
            "estop": "/emergency_stop",
            "estop_state": "/emergency_stop/state",
            "simulated": True,
        },
    )

    def __init__(self, options: Ros2Options | None = None) -> None:
        self.options = options or Ros2Options()
        self.description = describe(self.options)
        self.counters = {"foreign": 0, "late": 0, "refused": 0}
        self._zeros: Vector = (0.0,) * len(self.description.joints)
        self._link: Link | None = None
        self._last: Measurement | None = None  # that was read
        self._configured = False
        self._mode: Mode | None = None  # not None: active
        self._stopped = ""  # why, since the e-stop
        self._stop_frame = b""  # holds the robot, as far as it is known where it is
        self._sent: Vector = self._zeros

    # Once.

    def connect(self) -> dict[str, str]:
        """Waits for the states of all joints and for a controller that listens."""
        if self._link is not None:
            raise DriverError("ros2: already connected; close it first")
        self._link = Link(self.options, self.counters)
        options = self.options
        where = f"domain {options.domain} on {options.interface}"
        return {"model": options.model, "serial": where, "firmware": options.commands_topic}

    def configure(self, calibration: dict[str, Any]) -> dict[str, Any]:
        """Begins to count anew; the robot has been configured by ROS."""
        link = self._linked()
        if self._mode is not None:
            raise DriverError("ros2: deactivate before configuring")
        self._check(link)
        self.counters.update(dict.fromkeys(self.counters, 0))
        self._configured = True
        return {
            "commands": self.options.commands_topic,
            "states": self.options.states,
            "mode": str(self.options.mode),
            **calibration,
        }

    def check_watchdog(self) -> str:
        """There is none, or none that tells of itself."""
        self._need_configured()
        return ""

    def activate(self, mode: Mode) -> Measurement:
        """Commands the robot to be where it is; it holds its position already, or has no effort."""
        self._need_configured()
        link = self._linked()
        if mode is not self.options.mode:
            raise DriverError(f"ros2: the controller is for {self.options.mode}, not {mode!s}")
        start = self._fresh()
        self._check(link)
        if self._stopped:  # meanwhile
            raise DriverError(f"ros2: e-stopped ({self._stopped}); reset it first")
        hold = start.position if mode is Mode.POSITION else self._zeros
        self._stop_frame = link.encode(hold)
        self._mode = mode
        self._send(hold)
        return start

    def deactivate(self) -> None:
        """Holds the position, or takes speed or effort off over `ramp_s`; until it stands."""
        self._linked()
        if self._mode is None:
            raise DriverError("ros2: it is not active")
        if self._mode is not Mode.POSITION:
            self._ramp_down()
        else:
            self._send(self._sent)
        mode, self._mode = self._mode, None
        since_ns = still_ns = monotonic_ns()
        while mode is not Mode.EFFORT:  # without effort it may fall, and cannot be held
            state = self._fresh()
            now_ns = monotonic_ns()
            if max(map(abs, state.velocity)) > _STILL:
                still_ns = now_ns
            if now_ns - still_ns > _LIMIT_S * 1e9:
                return
            if now_ns - since_ns > _SETTLE_S * 1e9:
                raise DriverError("ros2: the robot does not come to rest; press its e-stop")
        self._fresh()

    def _ramp_down(self) -> None:
        begin, since_ns = self._sent, monotonic_ns()
        period_ns = round(1e9 / self.options.rate_hz)
        share = 0.0
        while share < 1.0:
            now_ns = monotonic_ns()
            share = min(1.0, (now_ns - since_ns) / (self.options.ramp_s * 1e9))
            self._send(tuple([(1.0 - share) * number for number in begin]))
            self._linked().receive(now_ns + period_ns)
            while monotonic_ns() < now_ns + period_ns:
                self._linked().receive(now_ns + period_ns)

    # In every cycle.

    def read(self, deadline_ns: int) -> Measurement:
        """The newest state; waits for one only if nothing has come since the last read."""
        link = self._linked()
        now_ns = monotonic_ns()
        link.look(now_ns)
        link.receive(0)
        while link.newest is self._last and now_ns < deadline_ns and not link.complaint:
            link.receive(deadline_ns)
            now_ns = monotonic_ns()
        newest, last = link.newest, self._last
        if newest is None:
            raise DriverError("ros2: no state yet")
        faults = link.faults
        if newest is not last:
            self._last = newest
            if self._mode is Mode.POSITION:
                self._stop_frame = link.encode(newest.position)
            return newest._replace(faults=faults) if faults else newest
        if monotonic_ns() - newest.received_ns > self.options.silence_s * 1e9:
            raise DriverError(
                f"ros2: {self.options.states} is silent for {self.options.silence_s:g} s"
            )
        return newest._replace(fresh=False, faults=faults)

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        """Publishes the command; whether the controller took it nobody knows."""
        if self._stopped:
            raise DriverError(f"ros2: e-stopped ({self._stopped}); reset it first")
        self._linked()
        self._send(vet(NAME, setpoint, self._mode, len(self._zeros), deadline_ns))

    # At any time.

    def estop(self, reason: str) -> None:
        """Tells the robot's own e-stop, if it has one, and the controller to hold or to let go."""
        self._stopped = self._stopped or reason or "no reason given"
        link, frame = self._link, self._stop_frame
        if link is None:
            return
        try:
            link.stop()
            if self._mode is not None and frame:
                link.send(frame)
        except DriverError:
            return  # the bus is closed

    def reset(self) -> None:
        """Leaves the e-stop if states come; it has to be configured again."""
        link = self._linked()
        self._fresh()
        link.let_go_on()
        deadline_ns = monotonic_ns() + round(_FRESH_S * 1e9)
        while link.faults and monotonic_ns() < deadline_ns:
            self._fresh()
        self._check(link)
        self._mode, self._configured, self._stopped = None, False, ""

    def close(self) -> None:
        """Leaves the domain; the controller goes on with what it was told last."""
        link, self._link = self._link, None
        self._mode, self._configured, self._last = None, False, None
        if link is not None:
            link.close()

    # How.

    def _linked(self) -> Link:
        if self._link is None:
            raise DriverError("ros2: connect it first")
        return self._link

    def _need_configured(self) -> None:
        self._linked()
        if self._stopped:
            raise DriverError(f"ros2: e-stopped ({self._stopped}); reset it first")
        if not self._configured or self._mode is not None:
            raise DriverError("ros2: configure it first, and activate it once")

    def _send(self, numbers: Vector) -> None:
        link = self._linked()
        link.send(link.encode(numbers))
        self._sent = numbers
        if self._stopped:  # it came between the question and the answer
            link.send(self._stop_frame)
            raise DriverError(f"ros2: e-stopped ({self._stopped}); reset it first")

    def _check(self, link: Link) -> None:
        """Whether the robot is one that we may command, and nobody else does.

        Raises:
            DriverError: it is not.
        """
        link.receive(0)
        link.look(monotonic_ns() + 10**9)
        if link.faults:
            raise DriverError(f"ros2: {'; '.join(link.faults)}")

    def _fresh(self) -> Measurement:
        """A state that came after the call."""
        link = self._linked()
        link.receive(0)
        before = link.newest
        deadline_ns = monotonic_ns() + round(_FRESH_S * 1e9)
        while link.newest is before:
            if monotonic_ns() > deadline_ns:
                told = "; ".join(link.faults) or f"{self.options.states} has gone silent"
                raise DriverError(f"ros2: {told}")
            link.receive(deadline_ns)
        newest = link.newest
        if newest is None:
            raise DriverError("ros2: no state yet")
        return newest
