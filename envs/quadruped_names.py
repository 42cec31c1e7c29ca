"""The quadruped's task in numbers, for whoever describes it without loading a simulator.

Joints as Unitree's Go2 names them; order, geometry and limits are those of assets/quadruped.xml,
repeated here for code that loads no MuJoCo; tests/envs/test_quadruped.py keeps the two equal. The
gains are used by the simulated task and by the robot's body alike.
"""

LEGS = ("FR", "FL", "RR", "RL")
SIDES = (-1.0, 1.0, -1.0, 1.0)  # of each leg: y > 0 is left
ENDS = (1.0, 1.0, -1.0, -1.0)  # x > 0 is in front
PARTS = ("hip", "thigh", "calf")
JOINTS = tuple(f"{leg}_{part}_joint" for leg in LEGS for part in PARTS)

HIP = (0.19, 0.047)  # m, of a hip's axis from the trunk's middle
ABDUCTION = 0.095  # m, from the hip's axis to the plane of the leg
LINK = 0.213  # m, of thigh and of calf
FOOT_RADIUS = 0.022  # m
RANGES = (
    ((-1.0472, 1.0472), (-1.5708, 3.4907), (-2.7227, -0.83776)),
    ((-1.0472, 1.0472), (-1.5708, 3.4907), (-2.7227, -0.83776)),
    ((-1.0472, 1.0472), (-0.5236, 4.5379), (-2.7227, -0.83776)),
    ((-1.0472, 1.0472), (-0.5236, 4.5379), (-2.7227, -0.83776)),
)  # rad, per leg
MARGIN = 0.05  # rad that targets keep from the ends of the joints

# The motors' law, in every step of physics: kp (target - position) - kd velocity.
KP = 80.0  # N m / rad
KD = 3.0  # N m s / rad

RATE_HZ = 50.0
EPISODE_STEPS = 400  # 8 s

STANCE = 0.14  # m, that the feet stand beside the hips' axes, from lying to upright
LYING_HEIGHT = 0.057  # m, of the trunk's middle with the trunk on the ground
HEIGHTS = (0.24, 0.32)  # m, that are commanded
YAWS = (-0.25, 0.25)  # rad, of the trunk over the feet

MIDDLE = (0.35, 1.05, -2.0)  # rad, hip of the left side, thigh and calf: half up
REACH = (0.6, 0.75, 0.8)  # rad, that targets may be away from there
CROUCH = (0.0, 0.14, -0.38)  # rad away from there: 0.12 m high, just off the ground

FALLEN = 0.8  # rad of tilt
HEIGHT_TOLERANCE = 0.02  # m
YAW_TOLERANCE = 0.05  # rad
HOLD_STEPS = 50  # that height and yaw are held at the end of a success

OBSERVATION_NAMES = [
    *(f"gravity_{axis}" for axis in "xyz"),
    *(f"gyroscope_{axis}" for axis in "xyz"),
    *JOINTS,
    *(f"rate_{joint}" for joint in JOINTS),
    "height_command",
    "yaw_command",
]
OBSERVATION_UNITS = [*["1"] * 3, *["rad/s"] * 3, *["rad"] * 12, *["rad/s"] * 12, "m", "rad"]
ACTION_NAMES = [f"target_{joint}" for joint in JOINTS]
ACTION_UNITS = ["rad"] * 12
ACTION_LOW, ACTION_HIGH = [-reach for reach in REACH] * 4, [*REACH] * 4
FAILSAFE = [*CROUCH] * 4  # from upright no hard landing, from the ground no jump
