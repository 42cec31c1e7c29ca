"""Any LeRobot `Robot` as a driver.

A robot is a type that is registered with LeRobot, or a class of your own with the same calls; for
that LeRobot need not be installed:

    robot: so101_follower
    config: {port: /dev/ttyACM0, id: blue}
    joints:
      shoulder_pan: {feature_unit: deg, low: -1.9, high: 1.9, velocity: 2.0, acceleration: 10.0}
      gripper: {feature_unit: percent, low: 0.0, high: 1.7, velocity: 2.0}

LeRobot has no time-outs, no watchdog, no e-stop and no units. What a feature means is taken from
`feature_unit`; what comes back of an action is compared with what was sent; and when nobody
commands them, its robots hold the last position for ever. Nothing here can change that: who needs a
robot that stops by itself when this process dies needs another interface to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic_ns
from typing import Any

from safetypilot.bridge.contract import (
    Description,
    DriverError,
    Failsafe,
    Measurement,
    Mode,
    Setpoint,
    Vector,
)
from safetypilot.bridge.drivers.lerobot_features import KEYS, ends_of, row_of
from safetypilot.bridge.drivers.lerobot_link import Link
from safetypilot.bridge.drivers.lerobot_robots import maker
from safetypilot.bridge.drivers.vetting import joints as joints_of
from safetypilot.bridge.drivers.vetting import number, vet

_NAME = "lerobot"
_STILL_RAD, _SETTLE_S, _PATIENCE_S = 0.02, 0.2, 2.0


@dataclass(frozen=True, slots=True)
class LerobotOptions:
    """Which robot, and what its features mean.

    Attributes:
        robot: a registered type, or `module:Class`.
        config: fields of the robot's config.
        joints: name -> limits in SI units, and what else is needed of: `feature` (NAME.pos),
            `velocity_feature`, `effort_feature` (none: the velocity is that of the positions, the
            effort 0), `feature_unit` (deg; rad, m; m100 and percent are LeRobot's normalised
            ranges, whose ends in rad are in the calibration file), `offset` (rad, where the
            feature is 0) and `reversed`.
        rate_hz: at which it is read.
        timeout_s: for connecting.
        silence_s: without a state, after which the robot is lost.
        tolerance: an action that comes back may differ by so much, rad or m.
        estop: "hold", or "disconnect", which on many arms cuts the torque: they fall.
        command_timeout_s: what the bridge is to use for its own.
        simulated: nothing real can be hurt.
    """

    robot: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    joints: Mapping[str, Any] = field(default_factory=dict)
    rate_hz: float = 30.0
    timeout_s: float = 10.0
    silence_s: float = 0.5
    tolerance: float = 0.01
    estop: str = "hold"
    command_timeout_s: float = 0.2
    simulated: bool = False

    def __post_init__(self) -> None:
        for name in ("rate_hz", "timeout_s", "silence_s", "tolerance", "command_timeout_s"):
            number(_NAME, name, getattr(self, name))
        if self.estop not in ("hold", "disconnect"):
            raise DriverError(f"lerobot: estop is {self.estop!r}; it is hold or disconnect")


class LerobotDriver:
    """A robot of LeRobot's, held and moved by position."""

    Options = LerobotOptions
    ADDRESS = ("robot", "config")

    def __init__(self, options: LerobotOptions) -> None:
        if not options.robot:
            raise DriverError("lerobot: robot is empty; a registered type, or module:Class")
        self.options = options
        joints = joints_of(_NAME, options.joints, KEYS)
        self._rows = [row_of(name, given) for name, given in options.joints.items()]
        self._ranged = [j.name for j, row in zip(joints, self._rows, strict=True) if row.ends]
        lets_go = options.estop == "disconnect"
        self.description = Description(
            name=f"{_NAME} {options.robot}",
            joints=joints,
            modes=(Mode.POSITION,),
            rate_hz=options.rate_hz,
            max_rate_hz=2 * options.rate_hz,
            command_timeout_s=options.command_timeout_s,
            failsafes=(Failsafe.HOLD, Failsafe.TORQUE_OFF) if lets_go else (Failsafe.HOLD,),
            calibration=("ranges",) if self._ranged else (),
            simulated=options.simulated,
        )
        self.counters = dict.fromkeys(
            ("altered", "not confirmed", "not finite", "reads failed", "writes failed"), 0
        )
        self._link: Link | None = None
        self._last: Measurement | None = None  # read by somebody
        self._configured = False
        self._mode: Mode | None = None  # not None: active
        self._stopped = ""  # why, since the e-stop
        self._sent: Vector = ()

    # Once.

    def connect(self) -> dict[str, str]:
        """Makes the robot and connects it; LeRobot's arms may go limp meanwhile."""
        if self._link is not None:
            raise DriverError("lerobot: already connected; close it first")
        make, library = maker(self.options.robot, self.options.config)
        link = Link(
            make,
            tuple(row.feature(None) for row in self._rows),
            1.0 / self.options.rate_hz,
            self.options.tolerance,
            self.counters,
        )
        self._link = link
        try:
            link.wait_until_ready(self.options.timeout_s)
        except DriverError:
            self.close()
            raise
        self._last = link.newest
        serial = str(getattr(link.robot, "id", None) or "none given")
        return {"model": str(link.robot.name), "serial": serial, "firmware": library}

    def configure(self, calibration: dict[str, Any]) -> dict[str, Any]:
        """Takes over the ends of normalised ranges; writes nothing to the robot."""
        link = self._linked()
        if self._mode is not None:
            raise DriverError("lerobot: deactivate before configuring")
        ranges = calibration.get("ranges", {})
        link.features = tuple(
            row.feature(ends_of(joint.name, ranges) if row.ends else None)
            for joint, row in zip(self.description.joints, self._rows, strict=True)
        )
        self._next_state(2)  # the first may have been under way before
        self.counters.update(dict.fromkeys(self.counters, 0))
        self._configured = True
        return {"features": [f.position for f in link.features], "ranges": ranges}

    def check_watchdog(self) -> str:
        """LeRobot's robots have none."""
        self._need_configured()
        return ""

    def activate(self, mode: Mode) -> Measurement:
        """Holds where it is; whether with torque before, only the robot knows."""
        self._need_configured()
        if mode is not Mode.POSITION:
            raise DriverError(f"lerobot: it is moved by position, not by {mode}")
        start = self._next_state(1)
        self._mode = mode
        self._send(start.position)
        return start

    def deactivate(self) -> None:
        """Holds the last position that was sent, and looks whether it stands."""
        link = self._linked()
        if self._mode is None:
            raise DriverError("lerobot: it is not active")
        self._send(self._sent)
        self._mode = None
        end_ns = monotonic_ns() + round(_PATIENCE_S * 1e9)
        while True:
            before = now = self._next_state(1)
            until_ns = monotonic_ns() + round(_SETTLE_S * 1e9)
            while monotonic_ns() < until_ns:
                now = self._next_state(1)
            moved = max(abs(a - b) for a, b in zip(before.position, now.position, strict=True))
            if moved < _STILL_RAD:
                return
            if monotonic_ns() > end_ns:
                link.stop(False)
                raise DriverError("lerobot: the robot does not come to rest; press its e-stop")

    # In every cycle.

    def read(self, deadline_ns: int) -> Measurement:
        """The newest state; waits for one only if nothing has come since the last read."""
        link, last = self._linked(), self._last
        if not self._configured and self._ranged:
            raise DriverError(f"lerobot: {', '.join(self._ranged)} mean nothing until configured")
        if link.newest is last:
            link.wait(deadline_ns, last)
        newest = link.newest
        if link.failure or newest is None:
            raise DriverError(f"lerobot: {link.failure or 'no state yet'}")
        if newest is not last:
            self._last = newest
            return newest
        if monotonic_ns() - newest.received_ns > self.options.silence_s * 1e9:
            raise DriverError(f"lerobot: no state for {self.options.silence_s:g} s; is it on?")
        return newest._replace(fresh=False)

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        """Leaves the position to the thread that talks to the robot."""
        if self._stopped:
            raise DriverError(f"lerobot: e-stopped ({self._stopped}); reset it first")
        link = self._linked()
        joints = self.description.joints
        numbers = vet(_NAME, setpoint, self._mode, len(joints), deadline_ns)
        if link.failure:
            raise DriverError(f"lerobot: {link.failure}")
        self._send(numbers)

    # At any time.

    def estop(self, reason: str) -> None:
        """One flag: the thread holds where the robot is, or disconnects it, at its next turn."""
        self._stopped = self._stopped or reason or "no reason given"
        link = self._link
        if link is not None:
            link.stop(self.options.estop == "disconnect")

    def reset(self) -> None:
        """Leaves the e-stop if states come; it has to be configured again."""
        link = self._linked()
        if link.failure:
            raise DriverError(f"lerobot: {link.failure}; close it and connect anew")
        self._next_state(1)
        self._mode, self._configured = None, False
        link.stopped, self._stopped = False, ""

    def close(self) -> None:
        """Disconnects; the torque stays on, where the robot's config lets it."""
        link, self._link = self._link, None
        self._mode, self._configured, self._last = None, False, None
        if link is not None and not link.close(self.options.timeout_s):
            self.counters["not closed"] = 1  # it hangs in a call of its own

    # How.

    def _linked(self) -> Link:
        if self._link is None:
            raise DriverError("lerobot: connect it first")
        return self._link

    def _need_configured(self) -> None:
        self._linked()
        if self._stopped:
            raise DriverError(f"lerobot: e-stopped ({self._stopped}); reset it first")
        if not self._configured or self._mode is not None:
            raise DriverError("lerobot: configure it first, and activate it once")

    def _send(self, position: Vector) -> None:
        self._sent = position
        self._linked().send(position)

    def _next_state(self, count: int) -> Measurement:
        """The state that comes next, or the one after."""
        link = self._linked()
        deadline_ns = monotonic_ns() + round((self.options.silence_s + 0.5) * 1e9)
        for _ in range(count):
            before = link.newest
            link.wait(deadline_ns, before)
            if link.failure or link.newest is before:
                raise DriverError(f"lerobot: {link.failure or 'no state comes any more'}")
        self._last = newest = link.newest
        if newest is None:
            raise DriverError("lerobot: no state yet")
        return newest
