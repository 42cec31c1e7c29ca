"""Names, units and limits of the four locomotion tasks, for whoever describes them without MuJoCo.

Observation: joint positions without the horizontal ones, then joint velocities, in the order of
Gymnasium's models (version 5). Action: motor commands, whose unit is the motor's gear.
"""

from dataclasses import dataclass

_POSITION_UNITS = {"z": "m", "qw": "1", "qx": "1", "qy": "1", "qz": "1"}
_LINEAR = ("velocity_x", "velocity_y", "velocity_z")
_FREE_POSITION = ["z", "qw", "qx", "qy", "qz"]
_FREE_VELOCITY = [*_LINEAR, "rate_x", "rate_y", "rate_z"]


@dataclass(frozen=True)
class Body:
    """What one walker is described by.

    Attributes:
        positions: Names of the joint positions that are observed, the root's first.
        velocities: Names of the velocities of all joints.
        motors: Joint -> gear in N m, in the order of the action.
        limit: Of the motor command.
    """

    positions: list[str]
    velocities: list[str]
    motors: dict[str, int]
    limit: float

    @property
    def observation_names(self) -> list[str]:
        return self.positions + self.velocities

    @property
    def observation_units(self) -> list[str]:
        positions = [_POSITION_UNITS.get(name, "rad") for name in self.positions]
        return positions + ["m/s" if name in _LINEAR else "rad/s" for name in self.velocities]


def _planar(joints: list[str], gears: list[int]) -> Body:
    """A walker in the x-z plane."""
    return Body(
        positions=["z", "pitch", *joints],
        velocities=["velocity_x", "velocity_z", "rate_pitch", *(f"rate_{j}" for j in joints)],
        motors=dict(zip(joints, gears, strict=True)),
        limit=1.0,
    )


def _free(joints: list[str], motors: dict[str, int], limit: float) -> Body:
    """A walker whose root moves freely."""
    return Body(
        positions=[*_FREE_POSITION, *joints],
        velocities=[*_FREE_VELOCITY, *(f"rate_{joint}" for joint in joints)],
        motors=motors,
        limit=limit,
    )


_LEGS = ["hip_x", "hip_z", "hip_y", "knee"]
_ARMS = ["shoulder1", "shoulder2", "elbow"]
_LIMBS = [
    f"{side}_{joint}" for joints in (_LEGS, _ARMS) for side in ("right", "left") for joint in joints
]
_LIMB_GEARS = [100, 100, 300, 200] * 2 + [25] * 6

ANT = _free(
    [f"{joint}_{leg}" for leg in (1, 2, 3, 4) for joint in ("hip", "ankle")],
    {f"{joint}_{leg}": 150 for leg in (4, 1, 2, 3) for joint in ("hip", "ankle")},
    1.0,
)
CHEETAH = _planar(
    ["back_thigh", "back_shin", "back_foot", "front_thigh", "front_shin", "front_foot"],
    [120, 90, 60, 120, 60, 30],
)
HOPPER = _planar(["thigh", "leg", "foot"], [200, 200, 200])
HUMANOID = _free(
    ["abdomen_z", "abdomen_y", "abdomen_x", *_LIMBS],
    {"abdomen_y": 100, "abdomen_z": 100, "abdomen_x": 100}
    | dict(zip(_LIMBS, _LIMB_GEARS, strict=True)),
    0.4,
)
EPISODE_STEPS = 1000
