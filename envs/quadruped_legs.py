"""The quadruped's kinematics: where its feet are, which angles put them there, how high it stands.

Plain numbers. Trunk frame: x forward, y left, z up, from the trunk's middle. Letters: p a foot's
middle in the trunk frame, q the twelve angles in the order of `quadruped_names.JOINTS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import acos, atan2, cos, hypot, pi, sin, sqrt
from typing import NamedTuple

from safetypilot.envs import quadruped_names as names

Point = tuple[float, float, float]

_HIPS = tuple(
    (end * names.HIP[0], side * names.HIP[1])
    for end, side in zip(names.ENDS, names.SIDES, strict=True)
)
FEET = tuple(
    (end * names.HIP[0], side * (names.HIP[1] + names.STANCE))
    for end, side in zip(names.ENDS, names.SIDES, strict=True)
)  # where they stand, x and y around the middle of the stance
_LONGEST, _SHORTEST = 1.98 * names.LINK, 0.42 * names.LINK  # m, from thigh axis to foot


class Pose(NamedTuple):
    """Of the trunk over its planted feet.

    Attributes:
        height: of its middle above the ground, m.
        yaw: against the feet, rad, to the left.
        roll, pitch: against the horizontal, rad; to the right and forwards down.
        x, y: of its middle over the middle of the feet, m.
    """

    height: float
    yaw: float = 0.0
    roll: float = 0.0
    pitch: float = 0.0
    x: float = 0.0
    y: float = 0.0


def feet(q: Sequence[float]) -> list[Point]:
    """Where the feet are."""
    found = []
    link, d = names.LINK, names.ABDUCTION
    for leg, ((hx, hy), side) in enumerate(zip(_HIPS, names.SIDES, strict=True)):
        hip, thigh, calf = q[3 * leg : 3 * leg + 3]
        x = -link * (sin(thigh) + sin(thigh + calf))
        down = -link * (cos(thigh) + cos(thigh + calf))
        c, s, out = cos(hip), sin(hip), side * d
        found.append((hx + x, hy + out * c - down * s, out * s + down * c))
    return found


def angles(pose: Pose, lifted: Sequence[float] = (0.0,) * 4) -> list[float]:
    """The angles that put the trunk in a pose over its planted feet; the nearest that there are.

    Args:
        pose: of the trunk.
        lifted: how far each foot is to be above the ground, m.
    """
    cr, sr, cp, sp = cos(pose.roll), sin(pose.roll), cos(pose.pitch), sin(pose.pitch)
    cy, sy = cos(pose.yaw), sin(pose.yaw)
    q: list[float] = []
    for leg, (fx, fy) in enumerate(FEET):
        # ground -> trunk: the transposed of Rz(yaw) Ry(pitch) Rx(roll)
        x, y = fx - pose.x, fy - pose.y
        z = lifted[leg] + names.FOOT_RADIUS - pose.height
        x, y = cy * x + sy * y, cy * y - sy * x
        x, z = cp * x - sp * z, cp * z + sp * x
        y, z = cr * y + sr * z, cr * z - sr * y
        q += leg_angles(leg, (x, y, z))
    return q


def leg_angles(leg: int, p: Point) -> tuple[float, float, float]:
    """Hip, thigh and calf that put a foot there, or as near as the leg reaches."""
    (hx, hy), side = _HIPS[leg], names.SIDES[leg]
    x, y, z = p[0] - hx, p[1] - hy, p[2]
    d, link = names.ABDUCTION, names.LINK
    down = -sqrt(max(y * y + z * z - d * d, 1e-6))
    hip = atan2(z, y) - atan2(down, side * d)
    hip += 2 * pi if hip < -pi else -2 * pi if hip > pi else 0.0
    length = min(max(hypot(x, down), _SHORTEST), _LONGEST)
    cosine = length * length / (2 * link * link) - 1.0
    calf = -acos(min(max(cosine, -1.0), 1.0))
    thigh = atan2(-x, -down) - atan2(link * sin(calf), link * (1.0 + cos(calf)))
    return hip, thigh, calf


def roll_and_pitch(gravity: Sequence[float]) -> tuple[float, float]:
    """Roll and pitch of a trunk that sees gravity there, a unit vector."""
    x, y, z = gravity
    return atan2(-y, -z), atan2(x, hypot(y, z))


def pose_of(q: Sequence[float], gravity: Sequence[float]) -> Pose:
    """The pose over the feet as they are, by legs and gravity alone.

    The height is the feet's mean distance below, the yaw the turn that brings the planted feet
    nearest to where they are.
    """
    roll, pitch = roll_and_pitch(gravity)
    cr, sr, cp, sp = cos(roll), sin(roll), cos(pitch), sin(pitch)
    level = []
    for x, y, z in feet(q):
        y, z = cr * y - sr * z, sr * y + cr * z
        x, z = cp * x + sp * z, cp * z - sp * x
        level.append((x, y, z))
    mx, my, mz = (sum(column) / 4 for column in zip(*level, strict=True))
    turn = along = 0.0
    for (x, y, _), (fx, fy) in zip(level, FEET, strict=True):
        turn += (x - mx) * fy - (y - my) * fx
        along += (x - mx) * fx + (y - my) * fy
    yaw = atan2(turn, along)
    cy, sy = cos(yaw), sin(yaw)
    return Pose(names.FOOT_RADIUS - mz, yaw, roll, pitch, -cy * mx + sy * my, -sy * mx - cy * my)


def jacobian(leg: int, q: Sequence[float]) -> list[Point]:
    """How a foot moves with hip, thigh and calf: m/rad, a column for each."""
    hip, thigh, calf = q[3 * leg : 3 * leg + 3]
    link, out = names.LINK, names.SIDES[leg] * names.ABDUCTION
    c, s = cos(hip), sin(hip)
    down = -link * (cos(thigh) + cos(thigh + calf))
    swing = link * (sin(thigh) + sin(thigh + calf))
    ahead, lower = link * sin(thigh + calf), -link * cos(thigh + calf)
    return [
        (0.0, -out * s - down * c, out * c - down * s),
        (down, -swing * s, swing * c),
        (lower, -ahead * s, ahead * c),
    ]
