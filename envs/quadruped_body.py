"""Standing up and holding a commanded height and yaw, on any quadruped with the Go2's joints.

What a robot knows of itself is enough: its IMU, its joints and, through its legs, how high its
trunk is over its feet and how far it is turned against them. The simulated task (envs/quadruped.py)
uses the same code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import acos
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from safetypilot.envs import quadruped_legs as legs
from safetypilot.envs import quadruped_names as names
from safetypilot.envs.body import Array, Drive, Numbers, Verdict

CENTRE = tuple(
    side * angle if part == 0 else angle
    for side in names.SIDES
    for part, angle in enumerate(names.MIDDLE)
)
_LIMITS = tuple(
    (low + names.MARGIN, high - names.MARGIN) for leg in names.RANGES for low, high in leg
)
_KP, _KD, _NONE = (names.KP,) * 12, (names.KD,) * 12, (0.0,) * 12
_CHANGES = ((130, 170), (250, 290))  # steps, between which the second and third command come
_START_NOISE = 0.02  # rad


class Command(NamedTuple):
    """What is asked for from a step on: height in m, yaw in rad."""

    step: int
    height: float
    yaw: float


class QuadrupedBody:
    """See envs/body.py.

    Observation (32,): where gravity points in the trunk's frame (unit vector), gyroscope, joint
    angles and speeds, commanded height and yaw. Action (12,): target angles, from a middle pose,
    that the motors pull to. A fall is a tilt that nothing comes back from; to lie level is none.
    The commands change with the steps that were judged; success is to hold the last of them at the
    end.
    """

    joints = names.JOINTS
    mode = "pd"
    sensors: Mapping[str, int] = {"orientation": 4, "gyroscope": 3}
    rate_hz = names.RATE_HZ

    def __init__(self) -> None:
        self._begin((Command(0, sum(names.HEIGHTS) / 2, 0.0),))

    def start(self, generator: np.random.Generator) -> Numbers | None:
        """Lying on the ground; draws what is commanded."""
        self._begin(draw_commands(generator))
        noise = generator.uniform(-_START_NOISE, _START_NOISE, 12).tolist()
        return tuple([q + n for q, n in zip(LYING, noise, strict=True)])

    def command(self, commands: Sequence[Command]) -> None:
        """Sets what is commanded in this episode; the first from step 0 on."""
        self._begin(tuple(commands))

    def _begin(self, commands: tuple[Command, ...]) -> None:
        if not commands or commands[0].step != 0:
            raise ValueError(f"the commands {commands} do not begin with one for step 0")
        self._commands = commands
        self._step = self._held = 0

    def observe(
        self,
        position: Numbers,
        velocity: Numbers,
        effort: Numbers,
        sensors: Mapping[str, Numbers],
    ) -> Array:
        """What the policy sees, (32,)."""
        _, height, yaw = next(each for each in reversed(self._commands) if each.step <= self._step)
        seen = (*gravity(sensors["orientation"]), *sensors["gyroscope"], *position, *velocity)
        return np.array((*seen, height, yaw), np.float32)

    def drive(self, action: npt.NDArray[Any], position: Numbers) -> Drive:
        """The motors' targets and gains."""
        rows = zip(CENTRE, action.tolist(), _LIMITS, strict=True)
        target = tuple([min(max(c + a, low), high) for c, a, (low, high) in rows])
        return Drive(target, _NONE, _NONE, _KP, _KD)

    def judge(self, before: Array, action: npt.NDArray[Any], after: Array) -> Verdict:
        """Counts the step: what it was worth, what it cost, whether the task is done."""
        height_command, yaw_command = after[-2:].tolist()
        pose = pose_of(after)
        tilt = tilt_of(after)
        fallen = not tilt <= names.FALLEN
        off = abs(pose.height - height_command), abs(pose.yaw - yaw_command)
        holds = off[0] <= names.HEIGHT_TOLERANCE and off[1] <= names.YAW_TOLERANCE
        self._held = self._held + 1 if holds and not fallen else 0
        self._step += 1
        done = self._step >= names.EPISODE_STEPS and self._held >= names.HOLD_STEPS
        return Verdict(-(10.0 * off[0] + 2.0 * off[1] + tilt), float(fallen), done)


LYING: Numbers = tuple(legs.angles(legs.Pose(names.LYING_HEIGHT)))


def draw_commands(generator: np.random.Generator) -> tuple[Command, ...]:
    """Stand up without turning, then twice another height and yaw."""
    low = names.HEIGHTS[0] + 0.02
    drawn = [Command(0, float(generator.uniform(low, names.HEIGHTS[1])), 0.0)]
    for first, last in _CHANGES:
        step = int(generator.integers(first, last))
        height, yaw = generator.uniform(*names.HEIGHTS), generator.uniform(*names.YAWS)
        drawn.append(Command(step, float(height), float(yaw)))
    return tuple(drawn)


def gravity(quaternion: Numbers) -> tuple[float, float, float]:
    """Where gravity points in the trunk's frame, by its orientation, a quaternion (w, x, y, z)."""
    w, x, y, z = quaternion
    return 2 * (w * y - x * z), -2 * (y * z + w * x), 2 * (x * x + y * y) - 1.0


def pose_of(observation: Array) -> legs.Pose:
    """The trunk's pose over its feet, from an observation (32,)."""
    return legs.pose_of(observation[6:18].tolist(), observation[:3].tolist())


def tilt_of(observation: Array) -> float:
    """Of the trunk against the horizontal, rad, from an observation (32,)."""
    return acos(min(max(-float(observation[2]), -1.0), 1.0))
