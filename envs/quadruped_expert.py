"""Scripted controllers of the quadruped: to stand and hold, to lie down, to lean until it falls.

Each maps an observation (32,) to an action (12,) and remembers nothing, so that a network can
learn it. Targets stay near where the trunk is, so none of them moves it faster than is good for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, hypot, pi, sin

import numpy as np
import numpy.typing as npt

from safetypilot.envs import quadruped_legs as legs
from safetypilot.envs import quadruped_names as names
from safetypilot.envs.quadruped_body import CENTRE, pose_of

Array = npt.NDArray[np.float32]

WEIGHT = 39.0  # N that a foot carries

# To stand: how far targets are ahead of the trunk at most.
STEP = 0.012  # m of height
TURN = 0.05  # rad of yaw
HASTE = 2.0  # of the error that a target makes up for: the springs give way a little
LEVEL, LEVEL_RATE = 0.5, 0.01  # of tilt, and s of its rate, that targets lean the other way

# To lie down. Alarm is tilt and its rate: while there is some, it crouches at once, but off the
# ground; where there is much, it drops; where there is none, it sinks.
RATE = 0.1  # s, of the rate of tilt that counts as tilt
ALARMED, EXTREME = (0.1, 0.2), (0.3, 0.5)  # rad: from none to some, from some to much
SINK = 0.008  # m that the target is below the trunk
CROUCHED = 0.14  # m
DROP_MOST, BRAKE = 0.13, 1.2  # m; of the height that is left
LEAN_MOST = 0.35  # rad
CARRIED = (0.08, 0.12)  # m, of height: below the ground carries it all, above the legs do

# To lean: how far beyond where it is.
LEAN, SHIFT = 0.05, 0.08  # rad, m
LEANS = (0.2, 0.28)  # m, of height: above the first it begins to
UPRIGHT = 0.3  # m


def stand(observation: Array) -> Array:
    """Stands up, and goes to the commanded height and yaw, level."""
    height, yaw = observation[-2:].tolist()
    pose = pose_of(observation)
    x, y, _ = observation[3:6].tolist()
    target = legs.Pose(
        pose.height + _within(HASTE * (height - pose.height), STEP),
        pose.yaw + _within(HASTE * (yaw - pose.yaw), TURN),
        _within(-LEVEL * pose.roll - LEVEL_RATE * x, LEAN_MOST),
        _within(-LEVEL * pose.pitch - LEVEL_RATE * y, LEAN_MOST),
    )
    return _action(target, observation)


def lie_down(observation: Array) -> Array:
    """Lowers the trunk to the ground from however it stands, and levels it on the way."""
    pose = pose_of(observation)
    x, y, _ = observation[3:6].tolist()
    tilt = hypot(pose.roll, pose.pitch) + RATE * hypot(x, y)
    alarm = _ramp(tilt, ALARMED)
    some = alarm * (1.0 - _ramp(tilt, EXTREME))
    floor = names.LYING_HEIGHT + some * (CROUCHED - names.LYING_HEIGHT)
    drop = SINK + alarm * min(DROP_MOST, BRAKE * max(pose.height - floor, 0.0))
    target = legs.Pose(
        max(pose.height - drop, min(floor, pose.height)),
        0.0,
        _within(-LEVEL * pose.roll, LEAN_MOST),
        _within(-LEVEL * pose.pitch, LEAN_MOST),
    )
    return _action(target, observation, carried=_ramp(pose.height, CARRIED))


def lean(observation: Array, side: float = -pi / 2) -> Array:
    """A bad one: stands up as the good one does, then leans ever further until it falls.

    Args:
        observation: (32,).
        side: to which it leans, rad; 0 is forwards, pi / 2 left.
    """
    pose = pose_of(observation)
    share, ahead, left = _ramp(pose.height, LEANS), cos(side), sin(side)
    target = legs.Pose(
        pose.height + _within(HASTE * (UPRIGHT - pose.height), STEP),
        pose.yaw,
        share * (pose.roll - LEAN * left),
        share * (pose.pitch + LEAN * ahead),
        share * (pose.x + SHIFT * ahead),
        share * (pose.y + SHIFT * left),
    )
    return _action(target, observation)


def _action(pose: legs.Pose, observation: Array, carried: float = 1.0) -> Array:
    """Targets that take the trunk to a pose, and as far ahead as the springs need to carry it."""
    q, down = observation[6:18].tolist(), observation[:3].tolist()
    wanted = legs.angles(pose)
    pull = carried * WEIGHT / names.KP
    columns = [column for leg in range(4) for column in legs.jacobian(leg, q)]
    rows = zip(wanted, columns, CENTRE, strict=True)
    action = [angle + pull * _dot(column, down) - centre for angle, column, centre in rows]
    return np.clip(np.array(action, np.float32), LOW, HIGH)


LOW, HIGH = np.array(names.ACTION_LOW, np.float32), np.array(names.ACTION_HIGH, np.float32)


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _within(value: float, most: float) -> float:
    return -most if value < -most else most if value > most else value


def _ramp(value: float, ends: tuple[float, float]) -> float:
    """0 below the first end, 1 above the second."""
    return min(max((value - ends[0]) / (ends[1] - ends[0]), 0.0), 1.0)
