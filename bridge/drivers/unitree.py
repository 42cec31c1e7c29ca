"""Unitree's robots over DDS: the go family (Go2) and the hg family (G1), at their motors.

    driver=unitree                                        a simulated quadruped, on loopback
    options: {robot: go2, domain: 0, interface: enp3s0}   a robot, on the interface it is wired to

A robot keeps doing what it was told last: it has no watchdog, and Description.watchdog_s says so.
Our simulated one (bridge/devices/quadruped.py) damps after 50 ms of silence, and shows it: the mode
of its motors is 0 then. Commands count again after one with mode 1 and without stiffness or effort.
"""

from __future__ import annotations

from contextlib import suppress
from math import inf
from time import monotonic_ns
from typing import Any, ClassVar

from safetypilot.bridge.contract import DriverError, Measurement, Mode, Setpoint, Vector
from safetypilot.bridge.drivers.child import Child
from safetypilot.bridge.drivers.unitree_options import (
    REST_S,
    UnitreeOptions,
    describe,
    device_arguments,
)
from safetypilot.bridge.drivers.unitree_place import Placer
from safetypilot.bridge.drivers.unitree_ramp import as_pd, damped, ticks
from safetypilot.bridge.drivers.unitree_reading import Reading
from safetypilot.bridge.drivers.vetting import vet
from safetypilot.bridge.protocols.unitree import SERVO
from safetypilot.bridge.protocols.unitree_link import Link
from safetypilot.bridge.protocols.unitree_robots import ROBOTS, stands

_MS = 1_000_000
_FRESH_NS, _SILENCE_NS = 1000 * _MS, 2000 * _MS  # until it is worth a complaint; until it is gone
_TAKEN_NS, _LISTEN_NS = 3000 * _MS, 50 * _MS  # for taking over; during which others may speak
_SETTLE_NS = 200 * _MS
_TOLERANCE_NS = 2000 * _MS  # of what is seen of a watchdog, on a busy host
_RELEASE_NS = 10_000 * _MS
_REST_NS = int(REST_S * 1e9)
_AT_REST = 0.3  # rad/s


class UnitreeDriver:
    """See bridge/contract.py: Driver."""

    Options: ClassVar[type] = UnitreeOptions
    ADDRESS = ("robot", "domain", "interface")
    SIMULATED: ClassVar[tuple[str, dict[str, Any]]] = (
        "{python} -P -m safetypilot.bridge.devices.quadruped --timeout 0.05 --domain free",
        {"domain": "{domain}"},
    )

    def __init__(self, options: UnitreeOptions) -> None:
        self._options = options
        self._robot = robot = ROBOTS[options.robot]
        self.description = describe(options)
        self._link = Link(robot, options.rate_hz, options.time_factor)
        self.counters = self._link.counters
        self._count = len(robot.joints)
        self._zeros: Vector = (0.0,) * self._count
        self._damped = Setpoint(Mode.PD, *(self._zeros,) * 4, (robot.damping,) * self._count)
        self._damping = self._pack(self._damped)
        self._all_servo = self._modes = (SERVO,) * self._count
        self._period_ns = round(1e9 / self.description.rate_hz)
        self._configured = False
        self._mode: Mode | None = None  # active
        self._sent = self._damped
        self._stopped = ""  # why
        self._commands = options.simulated  # or it is still its own motion service's
        self._measured: Measurement | None = None
        self._reading = Reading(robot)
        self._child: Child | None = None
        self._placer = Placer(self._link, self._count)
        if options.simulated:
            self.place = self._place

    # Before it moves.

    def connect(self) -> dict[str, str]:
        """Joins the robot's domain and waits for its first state."""
        if self._measured is not None:
            raise DriverError("the driver is connected already; close it first")
        options = self._options
        wait_ns, self._commands = int(options.connect_s * 1e9), options.simulated
        if options.device is not None:
            self._child = Child("quadruped", device_arguments(options))
        try:
            identity = self._link.open(options.domain, options.interface, wait_ns)
            self._damping = self._pack(self._damped)  # hg: now it names the machine
            self._measured = self._measure()
        except DriverError:
            self.close()
            raise
        return identity

    def configure(self, calibration: dict[str, Any]) -> dict[str, Any]:
        """There is nothing to write to a Unitree robot."""
        if calibration:
            raise DriverError(f"unitree: a robot calibrates itself; given: {sorted(calibration)}")
        if self._mode is not None:
            raise DriverError("the driver is active; deactivate it first")
        self._link.begin()
        self._configured, options = True, self._options
        return {
            "domain": options.domain,
            "interface": options.interface,
            "joints": [joint.name for joint in self._robot.joints],
            "watchdog_s": self.description.watchdog_s or 0.0,
        }

    def check_watchdog(self) -> str:
        """Commands damping, then nothing, and sees the robot damp by itself."""
        self._check_configured()
        declared_s = self.description.watchdog_s
        if declared_s is None:
            return ""
        self._take_over()
        told_ns = monotonic_ns()
        limit_ns = told_ns + int(declared_s * 1e9) + _TOLERANCE_NS
        while SERVO in self._link.newest.modes:
            if not self._link.receive(limit_ns):
                raise DriverError(
                    f"{(limit_ns - told_ns) / 1e9:g} s after the last command the robot still "
                    f"obeyed it; its watchdog was declared to act after {declared_s:g} s"
                )
        took_ms = (self._link.received_ns - told_ns) / 1e6
        return f"{took_ms:.0f} ms after the last command the robot damped by itself"

    def activate(self, mode: Mode) -> Measurement:
        """Takes the motors over, damped; stiffness comes with what is written."""
        if mode not in self.description.modes:
            raise DriverError(f"unitree: mode is {mode}; it is pd or effort")
        self._check_stopped()
        self._check_configured()
        self._look()
        if not self._options.simulated:
            service = self._link.motion_service()
            service.release(monotonic_ns() + _RELEASE_NS, self._check_lying)
        self._link.commanded_by_others()  # so far they may have
        self._take_over()
        measured = self._look()
        if measured.faults:
            raise DriverError(f"the robot is not healthy: {'; '.join(measured.faults)}")
        self._check_stopped()
        self._mode, self._modes, self._sent = mode, self._link.newest.modes, self._damped
        return measured

    def _take_over(self) -> None:
        """Commands damping until the robot says that it obeys.

        Raises:
            DriverError: it does not.
        """
        begun_ns, modes, self._commands = monotonic_ns(), self._modes, True
        for now_ns in ticks(self._period_ns, _TAKEN_NS):
            self._link.send(self._damping)
            self._link.receive(0)
            modes = self._link.newest.modes
            obeys = modes == self._all_servo or self.description.watchdog_s is None
            if obeys and now_ns - begun_ns > _LISTEN_NS:
                return
        raise DriverError(f"the robot does not obey: its motors are in modes {modes}, not {SERVO}")

    def _place(self, position: Vector) -> None:
        self._check_stopped()
        self._placer.place(position, self._damping if self._mode else b"")
        self._sent = self._damped

    def _check_lying(self) -> None:
        if stands(self._robot, self._link.newest.position):
            raise DriverError(
                "the robot stands, and would fall when its motion service lets go; have it lie "
                "down with the remote controller first"
            )

    # While it moves.

    def read(self, deadline_ns: int) -> Measurement:
        """The newest state; waits for one at most until the deadline."""
        if self._stopped:
            self._damp()  # the first one may have been lost
        if self._link.receive(deadline_ns):
            self._measured = self._measure()
            return self._measured
        if self._measured is None or self._link.silent_ns > _SILENCE_NS:
            raise DriverError(
                f"the robot has been silent for {self._link.silent_ns / 1e9:.1f} s; is it off, "
                "or its cable out?"
            )
        return self._measured._replace(fresh=False)

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        """Sends one command."""
        self._check_stopped()
        try:
            vet("unitree", setpoint, self._mode, self._count, deadline_ns)
            sample = self._pack(setpoint)
        except (TypeError, OverflowError) as error:
            raise DriverError(
                f"unitree: a setpoint is not all numbers of 32 bits: {error}"
            ) from None
        if setpoint.mode is Mode.PD and min(*setpoint.kp, *setpoint.kd) < 0.0:
            raise DriverError(f"gains are 0 or more; given: {setpoint.kp} and {setpoint.kd}")
        self._link.send(sample)
        if self._stopped:  # in the meantime, by another thread
            self._damp()
            self._check_stopped()
        self._sent = setpoint

    def _pack(self, setpoint: Setpoint) -> bytes:
        if setpoint.mode is Mode.EFFORT:
            return self._link.commands.pack_effort(setpoint.effort)
        return self._link.commands.pack(*setpoint[1:])

    # How it ends.

    def deactivate(self) -> None:
        """From what was commanded to damping, over time; then as the options say."""
        if self._mode is None:
            raise DriverError("the driver is not active")
        first, self._mode = as_pd(self._sent, self._zeros), None
        ramp_ns = int(self._options.ramp_s * 1e9)
        begun_ns = moved_ns = monotonic_ns()
        speed = inf
        for now_ns in ticks(self._period_ns, ramp_ns + _REST_NS):
            share = (now_ns - begun_ns) / ramp_ns if now_ns - begun_ns < ramp_ns else 1.0
            self._send(damped(first, share, self._robot.damping))
            if self._link.receive(0):
                speed = max(map(abs, self._link.newest.velocity))
            if share < 1.0 or speed > _AT_REST or self._link.silent_ns > _SETTLE_NS:
                moved_ns = now_ns
            elif now_ns - moved_ns > _SETTLE_NS:
                break
        else:
            raise DriverError(
                f"the robot did not come to rest, but still moves with {speed:.1f} rad/s; last "
                f"heard of {self._link.silent_ns / 1e9:.2f} s ago"
            )
        if self._options.rest == "off":
            off = self._damped._replace(kd=self._zeros)
            for _ in ticks(self._period_ns, _SETTLE_NS):
                self._send(off)

    def estop(self, reason: str) -> None:
        """Damping, at once; `read` repeats it until `reset`.

        A robot that was never taken over is left to its own motion service, which knows how to lie
        down; nothing can be written to it until `reset` all the same.
        """
        self._stopped = self._stopped or reason or "no reason given"
        with suppress(DriverError):
            self._damp()

    def reset(self) -> None:
        """Clears the latch, if the robot is there and complains of nothing."""
        self._mode, self._configured = None, False
        self._link.begin(anew=True)
        measured = self._look()
        if measured.faults:
            raise DriverError(f"the robot is not healthy: {'; '.join(measured.faults)}")
        self._stopped = ""

    def close(self) -> None:
        """Leaves the domain; a robot that is still commanded is damped first."""
        if self._mode is not None:
            self._mode = None
            with suppress(DriverError):
                self._damp()
        self._measured, self._configured = None, False
        self._placer.forget()
        self._link.close()
        if self._child is not None:
            self._child.end()
            self._child = None

    # Common to all.

    def _check_configured(self) -> None:
        self._check_stopped()
        if not self._configured or self._mode is not None:
            state = "active already" if self._mode else "not configured"
            raise DriverError(f"the driver is {state}; configure, then activate")

    def _check_stopped(self) -> None:
        if self._stopped:
            raise DriverError(f"the robot is e-stopped ({self._stopped}); reset it first")

    def _damp(self) -> None:
        if self._commands:
            self._link.send(self._damping)

    def _send(self, setpoint: Setpoint) -> None:
        self._check_stopped()
        self._link.send(self._pack(setpoint))

    def _look(self) -> Measurement:
        """A new state.

        Raises:
            DriverError: none comes.
        """
        if not self._link.receive(monotonic_ns() + _FRESH_NS):
            raise DriverError(f"the robot sends no states ({_FRESH_NS / 1e9:g} s)")
        self._measured = self._measure()
        return self._measured

    def _measure(self) -> Measurement:
        return self._reading.measure(self._link, self._modes if self._mode else None)
