"""A robot simulated by MuJoCo: any MJCF, in a process and on a clock of its own.

What the device is and checks, devices/mujoco.py says; what goes to and fro, protocols/mujoco.py.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import Any, ClassVar

from safetypilot.bridge.contract import (
    DriverError,
    Measurement,
    Mode,
    Setpoint,
    Vector,
)
from safetypilot.bridge.devices.mujoco_options import MujocoOptions
from safetypilot.bridge.devices.mujoco_robot import CONTACT, find_model, identity, load
from safetypilot.bridge.drivers.mujoco_describe import describe
from safetypilot.bridge.drivers.mujoco_link import ANSWER_S, Child, Inlet, Link
from safetypilot.bridge.drivers.vetting import vet
from safetypilot.bridge.protocols.mujoco import Cause, Kind, State, StateCodec, Status

_RESTS = {"damping": Status.DAMPING, "hold": Status.HOLDING, "off": Status.OFF}
_NAMES = {Status.OFF: "off", Status.DAMPING: "damping"}
_LATE_S = 0.02  # a state that is older is no news
_TOO_LATE_S = 1.0  # beyond its time-out, for a watchdog
_FAULTS: tuple[tuple[str, ...], ...] = (  # by cause
    (),
    ("the device damps by itself, for it had no command in time",),
    ("the device was e-stopped",),
    ("the simulation went astray",),
)


class MujocoDriver:
    """See bridge/contract.py for the calls, and `Options`."""

    Options: ClassVar[type[MujocoOptions]] = MujocoOptions
    SIMULATED: ClassVar[tuple[str, dict[str, Any]]] = (
        "{python} -P -m safetypilot.bridge.devices.mujoco",
        {"address": "{socket}"},
    )

    def __init__(self, options: MujocoOptions | None = None) -> None:
        """Read the model; nothing is started.

        Raises:
            DriverError: the model or an option will not do.
        """
        self._options = options = options or MujocoOptions()
        robot = load(options)
        self.description = describe(options, robot)
        self._identity = identity(options, robot)
        self._step_ns = round(self._identity["timestep_s"] * 1e9)
        self._sensors = [
            (its.name, slice(its.start, its.start + its.size)) for its in robot.sensors
        ]
        self.counters: dict[str, int] = {}
        self._size = len(robot.joints)
        numbers = sum(sensor.size for sensor in robot.sensors) + bool(options.obstacles)
        self._codec = StateCodec(self._size, numbers)
        self._zeros: Vector = (0.0,) * self._size
        self._child: Child | None = None
        self._link: Link | None = None
        self._mode: Mode | None = None  # not None: active
        self._configured = False
        self._stopped, self._stop_sent = False, True
        self._seen: State | None = None
        self._last: Measurement | None = None
        self._touches = 0.0

    # Life.

    def connect(self) -> dict[str, str]:
        """Starts a device, or finds the one that runs, and compares it with what was declared."""
        if self._link is not None:
            raise DriverError("the driver is connected already; close it first")
        self._stopped, self._stop_sent, self._seen = False, True, None
        options = self._options
        if not options.address:
            self._child = Child(options, find_model(options.model))
        address = options.address or (self._child.address if self._child else "")
        late_ns = round((_LATE_S + options.sensor_latency_s) * 1e9)
        inlet = Inlet(self._codec, late_ns, self.counters)
        self._link = link = Link(address, inlet, self._size)
        for name, expected in self._identity.items():
            if (its := link.identity.get(name)) != expected:
                raise DriverError(
                    f"the MuJoCo device at {address} has {name} {its!r}, the driver was told "
                    f"{expected!r}; give both the same options"
                )
        first = link.await_state()
        if options.obstacles:
            self._touches = first.sensors[-1]
        return {name: self._identity[name] for name in ("model", "serial", "firmware")}

    def configure(self, calibration: dict[str, Any]) -> dict[str, Any]:
        """Clears the counters; the device has taken its options when it started."""
        self._resting().drain()
        self.counters.clear()
        self._configured = True
        return dict(self._identity)

    def check_watchdog(self) -> str:
        """Lets the device wait for commands that do not come, without torque."""
        link, watchdog_s = self._resting(True), self._options.watchdog_s
        link.drain()
        before, cause = Status(link.newest.head.code), link.newest.head.detail
        if cause:
            return f"not provoked: {_FAULTS[cause][0]}"
        if before is Status.HOLDING:
            return ""  # damping would drop what it holds
        start_ns = monotonic_ns()
        if before in _NAMES:  # else a commander has gone without a word, and it has to act anyway
            link.ask(Kind.REHEARSE)
        self._wait_until(
            lambda state: state.head.detail == Cause.SILENCE,
            watchdog_s + _TOO_LATE_S,
            f"its watchdog did not act within {watchdog_s + _TOO_LATE_S:g} s of silence",
        )
        taken_s = (monotonic_ns() - start_ns) * 1e-9
        if before in _NAMES:
            link.ask(Kind.RESET, rest=_NAMES[before])
            if link.newest.head.code != before or link.newest.head.detail:
                raise DriverError("the MuJoCo device did not come back from damping")
        return f"damped by itself after {taken_s:.3f} s of silence; it is set to {watchdog_s:g} s"

    def activate(self, mode: Mode) -> Measurement:
        """Gains rise from 0 while it is told to stay where it is."""
        link = self._connected()
        link.drain()
        self._check_status(link.newest)
        self._resting(True)
        if mode not in self.description.modes:
            known = ", ".join(self.description.modes)
            raise DriverError(f"{self.description.name} has no mode {mode!r}; it has {known}")
        if self._stopped:
            raise DriverError("the driver was e-stopped; reset it first")
        link.ask(Kind.ARM, mode=mode)
        here, zeros = link.newest.position, self._zeros
        stay = Setpoint(mode, here, zeros, zeros, zeros, zeros)

        def is_up(state: State) -> bool:
            if state.head.code == Status.RISING:
                link.command(stay, monotonic_ns())
            return state.head.code == Status.ACTIVE

        try:
            self._wait_until(is_up, self._ramp_s, "its gains did not rise")
        except DriverError:
            link.release(self._options.rest)
            raise
        link.command(stay, monotonic_ns())
        self._mode = Mode(mode)
        return self._measurement(link.newest)

    def deactivate(self) -> None:
        """Gains fall over the ramp, to damping or holding; the device says when it is there."""
        link, rest = self._connected(), self._options.rest
        self._mode = None
        link.ask(Kind.RELEASE, rest=rest)
        self._wait_until(
            lambda state: state.head.code == _RESTS[rest] and not state.head.detail,
            self._ramp_s,
            f"it did not come down to {rest}",
        )

    def estop(self, reason: str) -> None:
        """Damping at once; the frame was made when the connection was."""
        self._stopped, self._stop_sent = True, False
        self._mode = None
        link = self._link
        if link is not None:
            self._stop_sent = link.stop()

    def reset(self) -> None:
        """Ends the device's latched damping; it goes on damping, but may be activated."""
        link = self._connected()
        if not self._stop_sent:
            self._stop_sent = link.stop()
        link.ask(Kind.RESET, rest="damping")
        self._check_status(link.newest)
        self._stopped, self._stop_sent, self._mode = False, True, None

    def close(self) -> None:
        """Ends the connection, and the device if it was started for it."""
        if self._link is not None:
            if self._mode is not None or self._link.commands:
                self._link.release(self._options.rest)
            self._link.close()
        if self._child is not None:
            self._child.end()
        self._link = self._child = self._mode = None
        self._configured = False

    def place(self, position: Vector) -> None:
        """At rest at that position; what is read from now on was measured there."""
        link = self._connected()
        if len(position) != self._size:
            raise DriverError(f"placed at {position}; there are {self._size} joints")
        placed = link.ask(Kind.PLACE, position=list(position))
        self._touches = float(placed["touches"])
        self._seen = None

    # At work.

    def read(self, deadline_ns: int) -> Measurement:
        """The newest state; waits for one, until the deadline, only if there is no new one."""
        link = self._link or self._connected()
        link.drain()
        while link.newest is self._seen and link.wait(deadline_ns):
            link.drain()
        if not self._stop_sent:
            self._stop_sent = link.stop()
        return self._measurement(link.newest)

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        """Sends one frame, or raises."""
        link = self._link or self._connected()
        if self._stopped:
            raise DriverError("the driver was e-stopped; reset it first")
        self._check_status(link.newest)
        try:
            numbers = vet("mujoco", setpoint, self._mode, self._size, deadline_ns)
        except (TypeError, OverflowError) as error:
            raise DriverError(f"mujoco: {setpoint} is not all numbers: {error}") from None
        mode = setpoint.mode
        if mode is not Mode.PD:  # what a mode does not name counts for nothing
            setpoint = Setpoint(mode, **{mode: numbers})
        link.command(setpoint, monotonic_ns())

    @property
    def delay_ns(self) -> int:
        """From the write of the command in effect until the device's physics had it."""
        return self._connected().newest.delay_ns

    # Parts.

    @property
    def _ramp_s(self) -> float:
        """How long a ramp takes at most, host time."""
        options = self._options
        return options.ramp_s / options.time_factor + options.sensor_latency_s + ANSWER_S

    def _connected(self) -> Link:
        if self._link is None:
            raise DriverError("the driver is not connected")
        return self._link

    def _resting(self, configured: bool = False) -> Link:
        """The link, if the driver is not active, and configured where that is asked for."""
        link = self._connected()
        if self._mode is not None:
            raise DriverError("the driver is active; deactivate it first")
        if configured and not self._configured:
            raise DriverError("the driver is not configured")
        return link

    def _check_status(self, state: State) -> None:
        """Raises DriverError if the device has taken over by itself."""
        if state.head.detail:
            raise DriverError(f"{_FAULTS[state.head.detail][0]}; reset it first")

    def _wait_until(self, holds: Callable[[State], bool], patience_s: float, else_: str) -> None:
        """Looks at states until one is as wanted.

        Raises:
            DriverError: none was, or the device has taken over by itself.
        """
        link = self._connected()
        until_ns = monotonic_ns() + round(patience_s * 1e9)
        while True:
            state = link.newest
            if holds(state):
                return
            self._check_status(state)
            while link.newest is state:
                if not link.wait(until_ns):
                    raise DriverError(f"the MuJoCo device failed: {else_}")
                link.drain()

    def _measurement(self, state: State) -> Measurement:
        if state is self._seen and self._last is not None:
            return self._last._replace(fresh=False)
        numbers = state.sensors
        sensors = {name: numbers[its] for name, its in self._sensors}
        if self._options.obstacles:
            sensors[CONTACT] = (1.0,) if numbers[-1] > self._touches else (0.0,)
            self._touches = numbers[-1]
        self._seen = state
        self._last = last = Measurement(
            state.head.seq,
            self._connected().inlet.received_ns,
            state.tick * self._step_ns,
            state.position,
            state.velocity,
            state.effort,
            sensors,
            True,
            _FAULTS[state.head.detail],
        )
        return last
