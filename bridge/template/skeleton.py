"""The driver of a skeleton: an arm of two joints that speaks over UDP.

First what goes over the wire, then the driver; the device at the other end is skeleton_device.py.
All of it is to be replaced by your robot's own, piece by piece. It passes as it is:

    safetypilot bridge check skeleton.py:SkeletonDriver
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from math import isfinite
from time import monotonic_ns, sleep
from typing import Any, NamedTuple

from safetypilot.bridge import contract
from safetypilot.bridge.contract import DriverError, Joint, Measurement, Mode, Setpoint

# The wire: every frame ends with a checksum, every number is little-endian. ----------------------

JOINTS = ("shoulder", "elbow")
SIZE = len(JOINTS)
SILENCE_S = 0.2  # after which the device damps by itself
REQUEST = struct.Struct(f"<BI{SIZE}d")  # what, number, goals in rad
STATE = struct.Struct(f"<cIIIQBB{3 * SIZE}d")


class Ask(IntEnum):
    """What the device can be asked for."""

    HELLO = 1
    CLEAR = 2  # watch no more
    TEST = 3  # watch for silence without torque
    START = 4  # torque on, held where it is
    FOLLOW = 5
    DAMP = 6  # stiffness fades into damping
    RELEASE = 7  # torque off
    STOP = 8  # damping at once, until RESET
    RESET = 9


class Phase(IntEnum):
    """What the device is doing."""

    LIMP = 0
    DAMPED = 1
    ACTIVE = 2
    STOPPED = 3


class State(NamedTuple):
    """What the driver remembers of the device's last frame."""

    number: int = 0
    done: int = 0  # the last request that it obeyed
    refused: int = 0
    phase: Phase = Phase.LIMP
    silences: int = 0  # that its watchdog has seen


def seal(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "little")


def unseal(frame: bytes) -> bytes | None:
    """What was sealed; None if a bit of it is wrong."""
    body = frame[:-4]
    return body if frame[-4:] == zlib.crc32(body).to_bytes(4, "little") else None


def request(what: Ask, number: int, goals: tuple[float, ...] = (0.0,) * SIZE) -> bytes:
    return seal(REQUEST.pack(what, number, *goals))


STOP = request(Ask.STOP, 0)  # made beforehand: an e-stop only sends

# What may be asked of each joint: rad, rad/s, N m, rad/s^2, rad/s^3.
LIMITS: dict[str, Any] = {"low": -1.5, "high": 1.5, "margin": 0.02, "velocity": 3.0,
                          "effort": 20.0, "acceleration": 30.0, "jerk": 3000.0}  # fmt: skip

# The driver. ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SkeletonOptions:
    """Where the device is, and how patient to be.

    Attributes:
        host, port: of the device.
        timeout_s: so long one request may take, connecting included.
        torque_off: whether the arm is let go once it has been deactivated.
    """

    host: str = "127.0.0.1"
    port: int = 47100
    timeout_s: float = 0.5
    torque_off: bool = False


class SkeletonDriver:
    """Two joints, held and moved by position."""

    Options = SkeletonOptions
    ADDRESS = ("host", "port")  # of the options, what tells one device from another
    # How `safetypilot bridge check` starts the device that this driver is tested with, and which
    # options lead to it: what is in braces comes from the line with which the device is ready.
    SIMULATED = ("{python} {folder}/skeleton_device.py", {"port": "{port}"})

    def __init__(self, options: SkeletonOptions | None = None) -> None:
        """Opens nothing: what the driver declares can be read anywhere."""
        self.options = options or SkeletonOptions()
        self.description = contract.Description(
            name="skeleton",
            joints=tuple(Joint(name, **LIMITS) for name in JOINTS),
            modes=(Mode.POSITION,),
            rate_hz=500.0,
            max_rate_hz=500.0,
            command_timeout_s=0.1,
            watchdog_s=SILENCE_S,
            failsafes=(contract.Failsafe.DAMPING,),
        )  # fmt: skip
        self.counters = {"corrupt": 0, "old": 0}
        self._link: socket.socket | None = None
        self._mode: Mode | None = None  # not None: active
        self._configured = self._stopped = False
        self._number = 0  # of the last request
        self._identity: dict[str, str] = {}
        self._state, self._last, self._is_new = (
            State(),
            self._parsed(0, 0, (0.0,) * 3 * SIZE),
            False,
        )

    # Once. Each of these takes about `timeout_s` at most.

    def connect(self) -> dict[str, str]:
        """Opens the socket and waits until the device has said who it is."""
        if self._link is not None:
            raise DriverError("already connected: close first")
        self._link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._number, self._identity, self._state, self._is_new = 0, {}, State(), False
        try:
            self._link.setblocking(False)
            self._link.connect((self.options.host, self.options.port))  # hears nobody else now
            self._ask(Ask.HELLO)
            if not self._identity:
                raise DriverError(f"{self._where} does not say who it is: connect again")
        except (DriverError, OSError) as error:
            self.close()
            raise DriverError(str(error)) from None
        self._stopped |= self._state.phase is Phase.STOPPED  # by whoever was here before
        return dict(self._identity)

    def configure(self, calibration: dict[str, Any]) -> dict[str, Any]:
        """Begins to count anew. A real device gets its registers here."""
        if self._mode is not None:
            raise DriverError("active: deactivate before configuring")
        self._ask(Ask.CLEAR)
        self.counters.update(dict.fromkeys(self.counters, 0))
        self._configured = True
        return {"watchdog_s": SILENCE_S, "torque_off": self.options.torque_off, **calibration}

    def check_watchdog(self) -> str:
        """Says nothing until the device must have noticed."""
        self._need_configured()
        before = self._ask(Ask.TEST).silences
        sleep(1.5 * SILENCE_S)
        if self._ask(Ask.CLEAR).silences == before:
            raise DriverError(f"{SILENCE_S} s of silence, and the device did not notice: stop here")
        return f"the device noticed {SILENCE_S} s of silence"

    def activate(self, mode: Mode) -> Measurement:
        """Torque on; the device holds where it is, and so does the first setpoint."""
        self._need_configured()
        if mode not in self.description.modes:
            raise DriverError(f"no mode {mode!r}; there is {', '.join(self.description.modes)}")
        self._ask(Ask.START)
        self._mode = mode
        start = self.read(0)
        self.write(Setpoint(mode, start.position), monotonic_ns() + 10**9)
        return start

    def deactivate(self) -> None:
        """Lets the device's stiffness fade, and looks whether it did."""
        if self._mode is None:
            raise DriverError("not active")
        self._mode = None
        self._ask(Ask.DAMP)
        end_ns = monotonic_ns() + round(self.options.timeout_s * 1e9)
        while self._state.phase is Phase.ACTIVE:
            if monotonic_ns() > end_ns:
                raise DriverError("the device does not go over to damping: press its e-stop")
            self.read(monotonic_ns() + 10**7)
        if self.options.torque_off:
            self._ask(Ask.RELEASE)

    # In every cycle.

    def read(self, deadline_ns: int) -> Measurement:
        """The newest state; waits for one only if nothing has come since the last read."""
        link = self._linked()
        self._receive(link)
        while not self._is_new and (left_ns := deadline_ns - monotonic_ns()) > 0:
            select.select([link], [], [], left_ns / 1e9)
            self._receive(link)
        is_new, self._is_new = self._is_new, False
        return self._last if is_new else self._last._replace(fresh=False)

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        """Sends what has passed the limiter; refuses what cannot have."""
        if self._stopped:
            raise DriverError("e-stopped: reset first")
        if self._mode is None:
            raise DriverError("not active: activate first")
        if setpoint.mode != self._mode:
            raise DriverError(f"a setpoint in {setpoint.mode!r}; active is {self._mode!r}")
        goals = setpoint.position
        if len(goals) != SIZE or not all(map(isfinite, goals)):
            raise DriverError(f"a position is {SIZE} finite numbers, not {goals!r}")
        for joint, goal in zip(self.description.joints, goals, strict=True):
            if not joint.low <= goal <= joint.high:
                raise DriverError(f"{joint.name} at {goal}: from {joint.low} to {joint.high}")
        if deadline_ns <= monotonic_ns():
            raise DriverError("the setpoint came after its deadline")
        self._number += 1
        self._send(request(Ask.FOLLOW, self._number, goals))

    # At any time.

    def estop(self, reason: str) -> None:
        """One flag, one frame: no lock, no answer waited for. The device latches it, too."""
        self._stopped = True
        link = self._link
        if link is not None:
            with contextlib.suppress(OSError):
                link.send(STOP)

    def reset(self) -> None:
        """Leaves the e-stop, if the device answers that it has; a person has asked for it."""
        self._mode, self._configured = None, False
        self._stopped = False  # not after asking: an e-stop that comes meanwhile has to stay
        try:
            self._ask(Ask.RESET)
        except DriverError:
            self._stopped = True
            raise

    def close(self) -> None:
        """Tells an active device to damp, as it soon would by itself, and closes the socket."""
        link, self._link = self._link, None
        if link is not None:
            if self._mode is not None:
                with contextlib.suppress(OSError):
                    link.send(request(Ask.DAMP, self._number + 1))
            link.close()
        self._mode, self._configured = None, False

    # How.

    @property
    def _where(self) -> str:
        return f"{self.options.host}:{self.options.port}"

    def _linked(self) -> socket.socket:
        if self._link is None:
            raise DriverError("not connected: connect first")
        return self._link

    def _need_configured(self) -> None:
        if self._stopped:
            raise DriverError("e-stopped: reset first")
        if not self._configured or self._mode is not None:
            raise DriverError("active already, or not configured: configure first")

    def _send(self, frame: bytes) -> None:
        try:
            self._linked().send(frame)
        except OSError as error:
            raise DriverError(f"{self._where}: {error.strerror}; is the device on?") from None

    def _ask(self, what: Ask) -> State:
        """Asks, and asks again, until the device has done it."""
        link = self._linked()
        self._number += 1
        end_ns = monotonic_ns() + round(self.options.timeout_s * 1e9)
        while monotonic_ns() < end_ns:
            self._send(request(what, self._number))
            select.select([link], [], [], 0.02)
            self._receive(link)
            if self._state.done == self._number:
                return self._state
            if self._state.refused == self._number:
                phase = self._state.phase.name.lower()
                raise DriverError(f"the device is {phase} and refuses to {what.name.lower()}")
        raise DriverError(
            f"{self._where} did not {what.name.lower()} within {self.options.timeout_s} s: "
            "is the device on, and is it this one?"
        )

    def _receive(self, link: socket.socket) -> None:
        """All that has come; whatever is wrong is counted and dropped."""
        while True:
            try:
                frame = link.recv(512)
            except BlockingIOError:
                return
            except OSError as error:
                raise DriverError(f"{self._where}: {error.strerror}; is the device on?") from None
            body = unseal(frame)
            if body is not None and body[:1] == b"I":
                self._identity = json.loads(body[1:])
            elif body is None or len(body) != STATE.size:
                self.counters["corrupt"] += 1
            else:
                _, number, done, refused, device_ns, phase, silences, *numbers = STATE.unpack(body)
                if number <= self._state.number:
                    self.counters["old"] += 1
                    continue
                self._state = State(number, done, refused, Phase(phase), silences)
                self._last, self._is_new = self._parsed(number, device_ns, tuple(numbers)), True

    def _parsed(self, number: int, device_ns: int, numbers: tuple[float, ...]) -> Measurement:
        by_itself = self._mode is not None and self._state.phase is not Phase.ACTIVE
        faults = ("the device is not active any more",) if by_itself else ()
        position, velocity, effort = numbers[:SIZE], numbers[SIZE : 2 * SIZE], numbers[2 * SIZE :]
        now_ns = monotonic_ns()
        return Measurement(
            number, now_ns, device_ns, position, velocity, effort, sensors={}, faults=faults
        )
