"""Unitree's robots: their joints in the order of their motors, from the vendor's models.

Gains are limited to what is used in the field; a robot takes more.
"""

from __future__ import annotations

from dataclasses import dataclass

from safetypilot.bridge.contract import Joint, Vector
from safetypilot.bridge.protocols.unitree import GO, HG, Family

_FOLDED = -2.0  # rad, of the knees of a quadruped that lies


@dataclass(frozen=True, slots=True)
class Robot:
    """A kind of robot.

    Attributes:
        joints: those of motor slot 0, 1, 2, ...
        damping: kd of a damping stop, N m s/rad.
        stop: buttons of the remote controller that, pressed together, mean e-stop.
    """

    name: str
    family: Family
    joints: tuple[Joint, ...]
    damping: float = 8.0
    stop: tuple[str, ...] = ("L2", "B")


def stands(robot: Robot, position: Vector) -> bool:
    """Whether its knees are not folded, so that it would fall; a humanoid hangs from its gantry."""
    joints = zip(robot.joints, position, strict=True)
    return any(q > _FOLDED for joint, q in joints if joint.name.endswith("_calf_joint"))


def _quadruped() -> tuple[Joint, ...]:
    ranges = {"hip": (-1.0472, 1.0472), "calf": (-2.7227, -0.83776)}
    thighs = {"F": (-1.5708, 3.4907), "R": (-0.5236, 4.5379)}
    return tuple(
        Joint(
            f"{leg}_{part}_joint",
            *(thighs[leg[0]] if part == "thigh" else ranges[part]),
            velocity=15.7 if part == "calf" else 30.1,
            effort=45.43 if part == "calf" else 23.7,
            kp=150.0,
            kd=10.0,
        )
        for leg in ("FR", "FL", "RR", "RL")
        for part in ("hip", "thigh", "calf")
    )


# Name without its side, range on the left (a right joint that rolls or yaws mirrors it), velocity,
# effort.
_LEG = (
    ("hip_pitch", -2.5307, 2.8798, 32.0, 88.0),
    ("hip_roll", -0.5236, 2.9671, 20.0, 139.0),
    ("hip_yaw", -2.7576, 2.7576, 32.0, 88.0),
    ("knee", -0.087267, 2.8798, 20.0, 139.0),
    ("ankle_pitch", -0.87267, 0.5236, 37.0, 50.0),
    ("ankle_roll", -0.2618, 0.2618, 37.0, 50.0),
)
_WAIST = (
    ("waist_yaw", -2.618, 2.618, 32.0, 88.0),
    ("waist_roll", -0.52, 0.52, 37.0, 50.0),
    ("waist_pitch", -0.52, 0.52, 37.0, 50.0),
)
_ARM = (
    ("shoulder_pitch", -3.0892, 2.6704, 37.0, 25.0),
    ("shoulder_roll", -1.5882, 2.2515, 37.0, 25.0),
    ("shoulder_yaw", -2.618, 2.618, 37.0, 25.0),
    ("elbow", -1.0472, 2.0944, 37.0, 25.0),
    ("wrist_roll", -1.97222, 1.97222, 37.0, 25.0),
    ("wrist_pitch", -1.61443, 1.61443, 22.0, 5.0),
    ("wrist_yaw", -1.61443, 1.61443, 22.0, 5.0),
)
_Row = tuple[str, float, float, float, float]


def _humanoid() -> tuple[Joint, ...]:
    rows: list[_Row] = []
    for part in (_LEG, _WAIST, _ARM):
        if part is _WAIST:
            rows += part
            continue
        rows += [(f"left_{name}", *limits) for name, limits in ((row[0], row[1:]) for row in part)]
        rows += [_mirrored(row) for row in part]
    return tuple(
        Joint(f"{name}_joint", low, high, velocity=velocity, effort=effort, kp=300.0, kd=10.0)
        for name, low, high, velocity, effort in rows
    )


def _mirrored(row: _Row) -> _Row:
    name, low, high, velocity, effort = row
    if name.endswith(("roll", "yaw")):
        low, high = -high, -low
    return f"right_{name}", low, high, velocity, effort


GO2 = Robot("go2", GO, _quadruped())
G1 = Robot("g1", HG, _humanoid())
ROBOTS = {robot.name: robot for robot in (GO2, G1)}
