"""The wire of the MuJoCo device: frames of a fixed size with a checksum, on a packet socket.

    head     magic "SPMJ", version, kind, two codes, session, sequence number, stamp   (32 bytes)
    command  head, then position, velocity, effort, kp, kd of each joint, float64
    state    head, then tick, acknowledged, delay; position, velocity, effort; sensors, float64
    request  head, then JSON; an answer has the sequence number of its request
    tail     CRC-32 of everything before it                                            (4 bytes)

Little-endian. In a command the first code is the mode; in a state it is the status, and the second
is its cause. Stamps are CLOCK_MONOTONIC of who sends; a state's tick counts steps of physics.
"""

from __future__ import annotations

import json
import struct
from enum import IntEnum
from math import isfinite
from typing import Any, NamedTuple
from zlib import crc32

from safetypilot.bridge.contract import Mode, Setpoint, Vector

MAGIC, VERSION = b"SPMJ", 1
LONGEST = 65536  # bytes of any frame
_HEAD = struct.Struct("<4sBBBBQQq")
_EXTRA = struct.Struct("<QQq")
_TAIL = struct.Struct("<I")
_LEAST = _HEAD.size + _TAIL.size
MODES = (Mode.POSITION, Mode.VELOCITY, Mode.EFFORT, Mode.PD)
_CODES = {mode: code for code, mode in enumerate(MODES)}
_NUMBERS = 5  # of each joint in a command


class Kind(IntEnum):
    COMMAND = 1
    STATE = 2
    ESTOP = 3
    ANSWER = 4
    HELLO = 16  # requests from here on
    ARM = 17
    RELEASE = 18
    RESET = 19
    PLACE = 20
    REHEARSE = 21  # the watchdog


class Status(IntEnum):
    """Who moves the joints."""

    OFF = 0  # nobody
    DAMPING = 1  # the device
    HOLDING = 2  # the device
    RISING = 3  # the commander, with growing gains
    ACTIVE = 4  # the commander
    RELEASING = 5  # the last command fades


class Cause(IntEnum):
    """Why the device damps; from all but the first only a reset leads out."""

    NONE = 0
    SILENCE = 1
    ESTOP = 2
    DIVERGED = 3  # the simulation itself


class Refused(Exception):
    """A frame that is not taken, and why."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Head(NamedTuple):
    kind: int
    code: int
    detail: int
    session: int
    seq: int
    stamp_ns: int


class State(NamedTuple):
    """What a state frame says.

    Attributes:
        tick: steps of physics until then.
        acknowledged: sequence number of the command in effect.
        delay_ns: from that command's stamp to its first step of physics.
    """

    head: Head
    tick: int
    acknowledged: int
    delay_ns: int
    position: Vector
    velocity: Vector
    effort: Vector
    sensors: Vector


def read_head(frame: bytes | memoryview) -> Head:
    """The head of a whole and correct frame.

    Raises:
        Refused: it is not one.
    """
    size = len(frame)
    if not _LEAST <= size <= LONGEST:
        raise Refused("length")
    magic, version, *rest = _HEAD.unpack_from(frame)
    if magic != MAGIC:
        raise Refused("magic")
    if version != VERSION:
        raise Refused("version")
    if crc32(memoryview(frame)[: size - 4]) != _TAIL.unpack_from(frame, size - 4)[0]:
        raise Refused("crc")
    return Head(*rest)


def message(head: Head, body: dict[str, Any] | None = None) -> bytes:
    """A request or an answer; an e-stop has no body."""
    text = b"" if body is None else json.dumps(body).encode()
    frame = _HEAD.pack(MAGIC, VERSION, *head) + text
    return frame + _TAIL.pack(crc32(frame))


def body_of(frame: bytes | memoryview) -> dict[str, Any]:
    """What `message` packed.

    Raises:
        Refused: it is no JSON object.
    """
    try:
        body = json.loads(bytes(frame[_HEAD.size : -4]))
    except (ValueError, RecursionError) as error:
        raise Refused("body") from error
    if not isinstance(body, dict):
        raise Refused("body")
    return body


class CommandCodec:
    """Commands for so many joints."""

    def __init__(self, joints: int) -> None:
        self._joints = joints
        self._numbers = struct.Struct(f"<{_NUMBERS * joints}d")
        self.size = _LEAST + self._numbers.size
        self._frame = bytearray(self.size)
        self._checked = memoryview(self._frame)[:-4]
        self._zeros: Vector = (0.0,) * joints

    def pack(self, session: int, seq: int, stamp_ns: int, setpoint: Setpoint) -> bytearray:
        """The frame, which the next call overwrites; raises struct.error or TypeError."""
        mode, position, velocity, effort, kp, kd = setpoint
        zeros, frame = self._zeros, self._frame
        _HEAD.pack_into(
            frame, 0, MAGIC, VERSION, Kind.COMMAND, _CODES[mode], 0, session, seq, stamp_ns
        )
        self._numbers.pack_into(
            frame,
            _HEAD.size,
            *(position or zeros),
            *(velocity or zeros),
            *(effort or zeros),
            *(kp or zeros),
            *(kd or zeros),
        )
        _TAIL.pack_into(frame, self.size - 4, crc32(self._checked))
        return frame

    def unpack(self, head: Head, frame: bytes | memoryview) -> Setpoint:
        """What a frame, whose head was read, asks for.

        Raises:
            Refused: it is not as long as a command, of no mode, or not finite.
        """
        if len(frame) != self.size:
            raise Refused("length")
        if head.code >= len(MODES):
            raise Refused("mode")
        numbers = self._numbers.unpack_from(frame, _HEAD.size)
        if not isfinite(sum(numbers)):
            raise Refused("not finite")
        n = self._joints
        return Setpoint(
            MODES[head.code],
            numbers[:n],
            numbers[n : 2 * n],
            numbers[2 * n : 3 * n],
            numbers[3 * n : 4 * n],
            numbers[4 * n :],
        )


class StateCodec:
    """States of so many joints and numbers of sensors."""

    def __init__(self, joints: int, sensors: int) -> None:
        self._joints = joints
        self._numbers = struct.Struct(f"<{3 * joints + sensors}d")
        self._start = _HEAD.size + _EXTRA.size
        self.size = self._start + self._numbers.size + 4

    def pack(self, state: State) -> bytes:
        frame = b"".join(
            (
                _HEAD.pack(MAGIC, VERSION, *state.head),
                _EXTRA.pack(state.tick, state.acknowledged, state.delay_ns),
                self._numbers.pack(*state.position, *state.velocity, *state.effort, *state.sensors),
            )
        )
        return frame + _TAIL.pack(crc32(frame))

    def unpack(self, head: Head, frame: bytes | memoryview) -> State:
        """What a frame, whose head was read, says.

        Raises:
            Refused: it is not as long as a state, of no status, or not finite.
        """
        if len(frame) != self.size:
            raise Refused("length")
        if head.code >= len(Status) or head.detail >= len(Cause):
            raise Refused("status")
        tick, acknowledged, delay_ns = _EXTRA.unpack_from(frame, _HEAD.size)
        numbers = self._numbers.unpack_from(frame, self._start)
        if not isfinite(sum(numbers)):
            raise Refused("not finite")
        n = self._joints
        return State(
            head,
            tick,
            acknowledged,
            delay_ns,
            numbers[:n],
            numbers[n : 2 * n],
            numbers[2 * n : 3 * n],
            numbers[3 * n :],
        )
