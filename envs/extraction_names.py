"""Names, units and limits of Object Extraction, for whoever describes it without loading MuJoCo.

Observation order is the simulator's: arm, (second arm,) three boxes, positions only.
"""

XYZ_LIMIT = 0.02  # m per step
DYNAMIC_XYZ_LIMIT = 0.03
FINGER_LIMIT = 0.1  # m; the fingers close fully at 0.0615

BOXES = ("left", "middle", "right")

_ARM = ("x", "y", "z", "yaw", "finger_1", "finger_2")
_ARM_UNITS = ("m", "m", "m", "rad", "m", "m")
_POSE = ("x", "y", "z", "qw", "qx", "qy", "qz")
_POSE_UNITS = ("m", "m", "m", "1", "1", "1", "1")

_BOX_NAMES = [f"{box}_{part}" for box in BOXES for part in _POSE]
_BOX_UNITS = [*_POSE_UNITS] * len(BOXES)

OBSERVATION_NAMES = [f"gripper_{part}" for part in _ARM] + _BOX_NAMES  # 27
OBSERVATION_UNITS = [*_ARM_UNITS, *_BOX_UNITS]
DYNAMIC_OBSERVATION_NAMES = [  # 33
    *(f"gripper_{part}" for part in _ARM),
    *(f"distractor_{part}" for part in _ARM),
    *_BOX_NAMES,
]
DYNAMIC_OBSERVATION_UNITS = [*_ARM_UNITS, *_ARM_UNITS, *_BOX_UNITS]

ACTION_NAMES = ["step_x", "step_y", "step_z", "finger"]
ACTION_UNITS = ["m", "m", "m", "m"]
ACTION_LOW = [-XYZ_LIMIT, -XYZ_LIMIT, -XYZ_LIMIT, -FINGER_LIMIT]
ACTION_HIGH = [XYZ_LIMIT, XYZ_LIMIT, XYZ_LIMIT, FINGER_LIMIT]
DYNAMIC_ACTION_LOW = [-DYNAMIC_XYZ_LIMIT] * 3 + [-FINGER_LIMIT]
DYNAMIC_ACTION_HIGH = [DYNAMIC_XYZ_LIMIT] * 3 + [FINGER_LIMIT]

# Hold the hand where it is, each finger 4 cm from its middle: they let go of a box (3 cm to fall at
# most) and touch no neighbour. An open hand (0) pushes the neighbours apart, a closed one drags a
# box that is off its middle. Held for three steps from 402 states of careless demonstrations, this
# one toppled 1 box, open 7, closed (0.1) 8.
FAILSAFE = [0.0, 0.0, 0.0, 0.03]

EPISODE_STEPS = 25
