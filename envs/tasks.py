"""The table of our environments: how each is built, what its numbers mean, where its data is from.

Plain data: importing this file loads neither NumPy nor a simulator.
"""

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from safetypilot.envs import extraction_names, locomotion_names, quadruped_names

IDS = {
    "maze": "safetypilot/Maze-v0",
    "navigation1": "safetypilot/Navigation1-v0",
    "navigation2": "safetypilot/Navigation2-v0",
    "image-maze": "safetypilot/ImageMaze-v0",
    "extraction": "safetypilot/Extraction-v0",
    "extraction-dynamic": "safetypilot/ExtractionDynamic-v0",
    "reach": "safetypilot/Reach-v0",
    "image-reach": "safetypilot/ImageReach-v0",
    "arm": "safetypilot/Arm-v0",
    "quadruped": "safetypilot/Quadruped-v0",
    "ant-no-bonus": "safetypilot/AntNoBonus-v0",
    "cheetah-no-flip": "safetypilot/CheetahNoFlip-v0",
    "hopper-no-bonus": "safetypilot/HopperNoBonus-v0",
    "humanoid-no-bonus": "safetypilot/HumanoidNoBonus-v0",
}


@dataclass(frozen=True)
class Description:
    """Names, units and limits of an environment's observation and action, in order.

    One observation name may stand for a whole array: `image[64,64,3]` is 12288 values.
    """

    observation_names: list[str]
    observation_units: list[str]
    action_names: list[str]
    action_units: list[str]
    action_low: list[float]
    action_high: list[float]
    failsafe: list[float]

    @property
    def observation_size(self) -> int:
        return sum(_size(name) for name in self.observation_names)

    @property
    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "observation_size": self.observation_size}


def _size(name: str) -> int:
    """Values that an observation name stands for: 1, or the product of the shape at its end."""
    shape = re.search(r"\[([\d,]+)\]$", name)
    return math.prod(int(side) for side in shape[1].split(",")) if shape else 1


@dataclass(frozen=True)
class Task:
    """How Gymnasium builds one of our environments, and what belongs to it.

    Attributes:
        entry_point: `module:class`.
        episode_steps: Steps after which an episode is truncated.
        kwargs: Passed to the class.
        description: What it looks like from outside.
        offline: `module:function` that makes its offline data; see envs/offline.py.
        sequences: The same for sequences of frames, where the observation is an image.
        demonstrations: The same for demonstrations of the task.
        expert: `module:function` from an observation to an action, or `module:class` of such.
        body: `module:class` of what it needs of a robot (envs/body.py); empty: it has no robot.
    """

    entry_point: str
    episode_steps: int
    kwargs: dict[str, Any]
    description: Description
    offline: str = ""
    sequences: str = ""
    demonstrations: str = ""
    expert: str = ""
    body: str = ""


def _plane(names: list[str], units: list[str], limit: float, image: str = "") -> Description:
    """Two coordinates, or an image of them, and two actions."""
    return Description(
        observation_names=[image] if image else ["x", "y"],
        observation_units=["1"] if image else [units[0]] * 2,
        action_names=names,
        action_units=[units[1]] * 2,
        action_low=[-limit] * 2,
        action_high=[limit] * 2,
        failsafe=[0.0] * 2,
    )


def _navigation(variant: int) -> Task:
    return Task(
        entry_point="safetypilot.envs.navigation:Navigation",
        episode_steps=100,
        kwargs={"variant": variant},
        description=_plane(["step_x", "step_y"], ["1", "1"], 1.0),
        offline=f"safetypilot.envs.navigation_data:navigation{variant}_data",
        expert=f"safetypilot.envs.navigation_data:navigation{variant}_expert",
    )


_FORCES = ["force_x", "force_y"]
_FORCE_UNITS = ["m", "0.05 N"]  # the motors' gear: 0.1 pushes with 5 mN

_PLANAR = {
    IDS["maze"]: Task(
        entry_point="safetypilot.envs.maze:Maze",
        episode_steps=100,
        kwargs={},
        description=_plane(_FORCES, _FORCE_UNITS, 0.1),
        offline="safetypilot.envs.maze_data:maze_data",
        expert="safetypilot.envs.maze_data:maze_expert",
        body="safetypilot.envs.maze_body:MazeBody",
    ),
    IDS["navigation1"]: _navigation(1),
    IDS["navigation2"]: _navigation(2),
    IDS["image-maze"]: Task(
        entry_point="safetypilot.envs.image_maze:ImageMaze",
        episode_steps=50,
        kwargs={},
        description=_plane(_FORCES, _FORCE_UNITS, 0.3, image="image[64,64,3]"),
        offline="safetypilot.envs.image_maze_data:image_maze_data",
        sequences="safetypilot.envs.image_maze_data:image_maze_sequences",
        expert="safetypilot.envs.image_maze_data:image_maze_expert",
    ),
}

_REACH = Description(
    observation_names=["x", "y", "z"],
    observation_units=["cm"] * 3,
    action_names=["step_x", "step_y", "step_z"],
    action_units=["cm"] * 3,
    action_low=[-0.5] * 3,
    action_high=[0.5] * 3,
    failsafe=[0.0] * 3,
)

_ARMS = {
    IDS["reach"]: Task(
        entry_point="safetypilot.envs.reach:Reach",
        episode_steps=20,
        kwargs={},
        description=_REACH,
        offline="safetypilot.envs.reach_data:reach_data",
        expert="safetypilot.envs.reach_data:reach_expert",
    ),
    IDS["image-reach"]: Task(
        entry_point="safetypilot.envs.reach:ImageReach",
        episode_steps=20,
        kwargs={},
        description=_plane(["step_x", "step_y"], ["cm", "cm"], 0.5, image="image[48,64,3]"),
        offline="safetypilot.envs.reach_data:image_reach_data",
        sequences="safetypilot.envs.reach_data:image_reach_sequences",
        expert="safetypilot.envs.reach_data:image_reach_expert",
    ),
    IDS["arm"]: Task(
        entry_point="safetypilot.envs.arm:Arm",
        episode_steps=100,
        kwargs={},
        description=Description(
            observation_names=[
                *("tip_x", "tip_y", "shoulder", "elbow", "shoulder_speed", "elbow_speed"),
                *("way_x", "way_y"),
            ],
            observation_units=["m", "m", "rad", "rad", "rad/s", "rad/s", "m", "m"],
            action_names=["step_shoulder", "step_elbow"],
            action_units=["rad"] * 2,
            action_low=[-0.08] * 2,
            action_high=[0.08] * 2,
            failsafe=[0.0] * 2,
        ),
        offline="safetypilot.envs.arm_data:arm_data",
        demonstrations="safetypilot.envs.arm_data:arm_demonstrations",
        expert="safetypilot.envs.arm_data:ArmExpert",
        body="safetypilot.envs.arm_body:ArmBody",
    ),
}


def _extraction(dynamic: bool) -> Task:
    names = extraction_names
    return Task(
        entry_point="safetypilot.envs.extraction:Extraction",
        episode_steps=names.EPISODE_STEPS,
        kwargs={"dynamic": dynamic},
        description=Description(
            names.DYNAMIC_OBSERVATION_NAMES if dynamic else names.OBSERVATION_NAMES,
            names.DYNAMIC_OBSERVATION_UNITS if dynamic else names.OBSERVATION_UNITS,
            names.ACTION_NAMES,
            names.ACTION_UNITS,
            names.DYNAMIC_ACTION_LOW if dynamic else names.ACTION_LOW,
            names.DYNAMIC_ACTION_HIGH if dynamic else names.ACTION_HIGH,
            names.FAILSAFE,
        ),
        offline="safetypilot.envs.extraction_recipes:offline",
        demonstrations="safetypilot.envs.extraction_recipes:demonstrations",
        expert=f"safetypilot.envs.extraction_recipes:{'Dynamic' if dynamic else 'Static'}Expert",
    )


def _walker(entry: str, body: locomotion_names.Body) -> Task:
    motors = len(body.motors)
    return Task(
        entry_point=f"safetypilot.envs.locomotion:{entry}",
        episode_steps=locomotion_names.EPISODE_STEPS,
        kwargs={},
        description=Description(
            observation_names=body.observation_names,
            observation_units=body.observation_units,
            action_names=list(body.motors),
            action_units=[f"{gear} N m" for gear in body.motors.values()],
            action_low=[-body.limit] * motors,
            action_high=[body.limit] * motors,
            failsafe=[0.0] * motors,
        ),
        offline="safetypilot.envs.locomotion_data:locomotion_data",
    )


_QUADRUPED = Task(
    entry_point="safetypilot.envs.quadruped:Quadruped",
    episode_steps=quadruped_names.EPISODE_STEPS,
    kwargs={},
    description=Description(
        quadruped_names.OBSERVATION_NAMES,
        quadruped_names.OBSERVATION_UNITS,
        quadruped_names.ACTION_NAMES,
        quadruped_names.ACTION_UNITS,
        quadruped_names.ACTION_LOW,
        quadruped_names.ACTION_HIGH,
        quadruped_names.FAILSAFE,
    ),
    offline="safetypilot.envs.quadruped_data:quadruped_data",
    expert="safetypilot.envs.quadruped_expert:stand",
    body="safetypilot.envs.quadruped_body:QuadrupedBody",
)


TASKS: dict[str, Task] = {
    **_PLANAR,
    **_ARMS,
    IDS["extraction"]: _extraction(dynamic=False),
    IDS["extraction-dynamic"]: _extraction(dynamic=True),
    IDS["quadruped"]: _QUADRUPED,
    IDS["ant-no-bonus"]: _walker("AntNoBonus", locomotion_names.ANT),
    IDS["cheetah-no-flip"]: _walker("CheetahNoFlip", locomotion_names.CHEETAH),
    IDS["hopper-no-bonus"]: _walker("HopperNoBonus", locomotion_names.HOPPER),
    IDS["humanoid-no-bonus"]: _walker("HumanoidNoBonus", locomotion_names.HUMANOID),
}
