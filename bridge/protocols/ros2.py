"""Messages of ROS 2 as DDS carries them: types, names of topics, and their bytes.

A topic `/joint_states` is `rt/joint_states` for DDS, a message `sensor_msgs/msg/JointState` is
`sensor_msgs::msg::dds_::JointState_` there; fields keep their names, types are final and have no
keys. Every ROS 2 encodes them as plain CDR, version 1.
"""

from __future__ import annotations

import re
import struct
from math import isfinite
from typing import NamedTuple

from safetypilot.bridge.contract import DriverError, Vector
from safetypilot.bridge.protocols.cdr import CdrError, CdrReader, CdrWriter
from safetypilot.bridge.protocols.dds import Kind, Sequence, Struct


def _message(package: str, name: str, /, **fields: Kind) -> Struct:
    return Struct(f"{package}.msg.dds_.{name}_", tuple(fields.items()))


_DOUBLES = Sequence("float64")
TIME = _message("builtin_interfaces", "Time", sec="int32", nanosec="uint32")
DURATION = _message("builtin_interfaces", "Duration", sec="int32", nanosec="uint32")
HEADER = _message("std_msgs", "Header", stamp=TIME, frame_id="string")
JOINT_STATE = _message(
    "sensor_msgs",
    "JointState",
    header=HEADER,
    name=Sequence("string"),
    position=_DOUBLES,
    velocity=_DOUBLES,
    effort=_DOUBLES,
)
DIMENSION = _message(
    "std_msgs", "MultiArrayDimension", label="string", size="uint32", stride="uint32"
)
LAYOUT = _message("std_msgs", "MultiArrayLayout", dim=Sequence(DIMENSION), data_offset="uint32")
FLOAT64_MULTI_ARRAY = _message("std_msgs", "Float64MultiArray", layout=LAYOUT, data=_DOUBLES)
POINT = _message(
    "trajectory_msgs",
    "JointTrajectoryPoint",
    positions=_DOUBLES,
    velocities=_DOUBLES,
    accelerations=_DOUBLES,
    effort=_DOUBLES,
    time_from_start=DURATION,
)
JOINT_TRAJECTORY = _message(
    "trajectory_msgs",
    "JointTrajectory",
    header=HEADER,
    joint_names=Sequence("string"),
    points=Sequence(POINT),
)
BOOL = _message("std_msgs", "Bool", data="bool")

_TOPIC = re.compile(r"/[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")


def topic(name: str) -> str:
    """What DDS calls a topic of ROS 2.

    Raises:
        DriverError: it is no full name.
    """
    if not _TOPIC.fullmatch(name):
        raise DriverError(f"ros2: {name!r} is no topic; it is a full name, such as /joint_states")
    return f"rt{name}"


class JointState(NamedTuple):
    """A message of the joint_state_broadcaster, in the order of whoever asks.

    Attributes:
        stamp_ns: of its header; 0: none.
        velocity, effort: empty where it has none for each of the joints.
    """

    stamp_ns: int
    position: Vector
    velocity: Vector
    effort: Vector


class JointStates:
    """Reads `sensor_msgs/msg/JointState`, joints by name.

    Names come with every message, and hardly ever change: while frame and names are byte by byte
    those of the message before, they are not looked at again.
    """

    def __init__(self, joints: tuple[str, ...]) -> None:
        self._joints = joints
        self._known = b""  # frame and names of the message before
        self._order: tuple[int, ...] = ()
        self._size = 0

    def read(self, sample: bytes) -> JointState:
        """One message.

        Raises:
            CdrError: it is none, a joint is missing, or its numbers are not finite.
        """
        reader = CdrReader(sample)
        sec, nanosec = reader.time()
        end = reader.offset + len(self._known)
        if self._known and sample[reader.offset : end] == self._known:
            reader.offset = end
        else:
            self._learn(reader, sample)
        position = self._picked(reader.doubles())
        velocity, effort = self._picked(reader.doubles()), self._picked(reader.doubles())
        reader.end()
        if len(position) != len(self._joints) or not all(map(isfinite, position)):
            raise CdrError("position")
        # The broadcaster says NaN where a joint has no such interface.
        return JointState(
            sec * 1_000_000_000 + nanosec,
            position,
            velocity if all(map(isfinite, velocity)) else (),
            effort if all(map(isfinite, effort)) else (),
        )

    def _learn(self, reader: CdrReader, sample: bytes) -> None:
        start = reader.offset
        reader.text()
        names = reader.texts()
        missing = [joint for joint in self._joints if joint not in names]
        if missing:
            raise CdrError(f"no {missing[0]}")
        if len(set(names)) < len(names):
            raise CdrError("a joint twice")
        self._known = sample[start : reader.offset]
        self._order = tuple(names.index(joint) for joint in self._joints)
        self._size = len(names)

    def _picked(self, numbers: Vector) -> Vector:
        if not numbers:
            return numbers
        if len(numbers) != self._size:
            raise CdrError("lengths")
        return tuple([numbers[index] for index in self._order])


def joint_state(
    stamp_ns: int, names: tuple[str, ...], position: Vector, velocity: Vector, effort: Vector
) -> bytes:
    """A `sensor_msgs/msg/JointState`."""
    writer = CdrWriter().time(*divmod(stamp_ns, 1_000_000_000)).text("").texts(names)
    return writer.doubles(position).doubles(velocity).doubles(effort).sample


class Commands:
    """Writes `std_msgs/msg/Float64MultiArray` for so many joints, without a layout."""

    def __init__(self, size: int) -> None:
        self._layout = struct.Struct(f"<4xIII4x{size}d")
        self._size = size

    def write(self, numbers: Vector) -> bytes:
        """One message; the numbers are in the controller's order."""
        sample = bytearray(self._layout.pack(0, 0, self._size, *numbers))
        sample[1] = 1  # plain CDR, version 1
        return bytes(sample)


def read_commands(sample: bytes) -> Vector:
    """The numbers of a `std_msgs/msg/Float64MultiArray`, whatever its layout says.

    Raises:
        CdrError: it is none.
    """
    reader = CdrReader(sample)
    for _ in range(reader.count()):
        reader.text()
        reader.count()
        reader.count()
    reader.count()
    numbers = reader.doubles()
    reader.end()
    return numbers


def flag(value: bool) -> bytes:
    """A `std_msgs/msg/Bool`."""
    return CdrWriter().sample + bytes([value])


def read_flag(sample: bytes) -> bool:
    """Raises CdrError: it is no `std_msgs/msg/Bool`."""
    reader = CdrReader(sample)
    value = sample[reader.offset : reader.offset + 1]
    if value not in (b"\x00", b"\x01"):
        raise CdrError("no flag")
    return value == b"\x01"


class Trajectories:
    """Writes `trajectory_msgs/msg/JointTrajectory` of one point, to be begun at once."""

    def __init__(self, joints: tuple[str, ...], horizon_s: float) -> None:
        """horizon_s: in which the point is to be reached; there the controller stays."""
        size = len(joints)
        head = CdrWriter().time(0, 0).text("").texts(joints).count(1).count(size).align(8).sample
        whole, nanosec = divmod(round(horizon_s * 1e9), 1_000_000_000)
        self._head, self._layout = head, struct.Struct(f"<{size}dIIIiI")
        self._horizon = (whole, nanosec)

    def write(self, numbers: Vector) -> bytes:
        """One message."""
        return self._head + self._layout.pack(*numbers, 0, 0, 0, *self._horizon)


class Point(NamedTuple):
    """A point of a trajectory; what it does not say is empty."""

    positions: Vector
    velocities: Vector
    accelerations: Vector
    effort: Vector
    at_ns: int  # from the trajectory's start


class Trajectory(NamedTuple):
    """A `trajectory_msgs/msg/JointTrajectory`; stamp_ns 0: at once."""

    stamp_ns: int
    joints: tuple[str, ...]
    points: tuple[Point, ...]


def read_trajectory(sample: bytes, most: int = 10_000) -> Trajectory:
    """One message.

    Raises:
        CdrError: it is none.
    """
    reader = CdrReader(sample)
    sec, nanosec = reader.time()
    reader.text()
    joints = reader.texts()
    count = reader.count()
    if count > most:
        raise CdrError("too many")
    points = []
    for _ in range(count):
        position, velocity = reader.doubles(), reader.doubles()
        acceleration, effort = reader.doubles(), reader.doubles()
        after, nano = reader.time()
        at_ns = after * 1_000_000_000 + nano
        points.append(Point(position, velocity, acceleration, effort, at_ns))
    reader.end()
    return Trajectory(sec * 1_000_000_000 + nanosec, joints, tuple(points))
