"""Controllers of ros2_control, as strict as the newest of them: what they take, and what they want.

`forward_command_controller` passes on what it was told last, for ever.
`joint_trajectory_controller` goes along straight lines from where the robot is to each point in its
time, and stays at the last.
"""

from __future__ import annotations

from math import isfinite
from typing import Protocol

from safetypilot.bridge.contract import Mode, Setpoint, Vector
from safetypilot.bridge.protocols import ros2
from safetypilot.bridge.protocols.cdr import CdrError
from safetypilot.bridge.protocols.dds import Struct


class Controller(Protocol):
    """One controller, which has claimed all joints.

    Attributes:
        message: the type of what it is told.
        topic: by which name it listens, unless it is told otherwise.
    """

    message: Struct
    topic: str

    def take(self, sample: bytes, position: Vector, now_ns: int) -> None:
        """What somebody tells it.

        Raises:
            CdrError: it does not take that, and why.
        """

    def wants(self, now_ns: int) -> Setpoint | None:
        """What the joints are to do now; None: nothing was told yet."""

    def forget(self) -> None:
        """Nothing was told yet."""


class Forward:
    """forward_command_controller: position, velocity or effort, as they come."""

    message = ros2.FLOAT64_MULTI_ARRAY

    def __init__(self, mode: Mode, joints: tuple[str, ...]) -> None:
        self.topic = f"/forward_{mode}_controller/commands"
        self._mode, self._size = mode, len(joints)
        self._wanted: Setpoint | None = None

    def take(self, sample: bytes, position: Vector, now_ns: int) -> None:
        numbers = ros2.read_commands(sample)
        if len(numbers) != self._size:
            raise CdrError("length")
        if not isfinite(sum(numbers)):
            raise CdrError("not finite")
        if self._mode is Mode.POSITION:
            self._wanted = Setpoint(self._mode, numbers)
        elif self._mode is Mode.VELOCITY:
            self._wanted = Setpoint(self._mode, velocity=numbers)
        else:
            self._wanted = Setpoint(self._mode, effort=numbers)

    def wants(self, now_ns: int) -> Setpoint | None:
        return self._wanted

    def forget(self) -> None:
        self._wanted = None


class Follow:
    """joint_trajectory_controller, of positions."""

    message = ros2.JOINT_TRAJECTORY
    topic = "/joint_trajectory_controller/joint_trajectory"

    def __init__(self, joints: tuple[str, ...]) -> None:
        self._joints = joints
        self._times: list[int] = []  # CLOCK_MONOTONIC, ns
        self._points: list[Vector] = []

    def take(self, sample: bytes, position: Vector, now_ns: int) -> None:
        trajectory = ros2.read_trajectory(sample)
        if sorted(trajectory.joints) != sorted(self._joints):
            raise CdrError("joints")
        if trajectory.stamp_ns:
            raise CdrError("a start in the future or in the past")
        if not trajectory.points:
            raise CdrError("empty")
        order = [trajectory.joints.index(joint) for joint in self._joints]
        times, points = [now_ns], [position]
        for point in trajectory.points:
            self._check(point, now_ns + point.at_ns - times[-1])
            times.append(now_ns + point.at_ns)
            points.append(tuple(point.positions[index] for index in order))
        if any(trajectory.points[-1].velocities):
            raise CdrError("moving at its end")
        self._times, self._points = times, points

    def _check(self, point: ros2.Point, later_ns: int) -> None:
        size = len(self._joints)
        if len(point.positions) != size or len(point.velocities) not in (0, size):
            raise CdrError("length")
        if not isfinite(sum(point.positions) + sum(point.velocities)):
            raise CdrError("not finite")
        if later_ns <= 0:
            raise CdrError("time")

    def wants(self, now_ns: int) -> Setpoint | None:
        if not self._times:
            return None
        rows = zip(self._times, self._points, strict=True)
        before_ns, before = next(rows)
        for after_ns, after in rows:
            if now_ns < after_ns:
                share = (now_ns - before_ns) / (after_ns - before_ns)
                between = [a + share * (b - a) for a, b in zip(before, after, strict=True)]
                return Setpoint(Mode.POSITION, tuple(between))
            before_ns, before = after_ns, after
        return Setpoint(Mode.POSITION, before)

    def forget(self) -> None:
        self._times, self._points = [], []
