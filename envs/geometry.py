"""Plan views of our worlds: plain numbers for drawings, planners and tests. Imports no simulator.

Sources: sections 4.1, 4.2, 4.3 and 4.6 of the fact sheet on Recovery RL (arXiv 2010.15920). Mazes
are in metres, Reach is in centimetres; Navigation has no physical unit, its lengths are "units".
"""

from dataclasses import dataclass
from typing import TypeAlias

Rectangle: TypeAlias = tuple[float, float, float, float]  # x0, x1, y0, y1
Disc: TypeAlias = tuple[float, float, float]  # x, y, radius


@dataclass(frozen=True)
class Geometry:
    """What a world looks like from above.

    Attributes:
        bounds: What a drawing should show; in the maze also the outer walls.
        walls: Obstacles; entering (Navigation) or touching (maze) one is a violation.
        start: Where episodes begin by default; Navigation's start is Gaussian, this is 3 sigma.
        goal: Centre of the goal disc.
        goal_radius: Distance of the agent's centre from `goal` below which it has succeeded.
        agent_radius: 0 for a point.
        discs: Obstacles that are round.
        goals: Where goals are drawn, if there is not one of them; `goal` is an example.
    """

    bounds: Rectangle
    walls: tuple[Rectangle, ...]
    start: Rectangle
    goal: tuple[float, float]
    goal_radius: float
    agent_radius: float
    discs: tuple[Disc, ...] = ()
    goals: tuple[Rectangle, ...] = ()


MAZE = Geometry(
    bounds=(-0.3, 0.3, -0.3, 0.3),
    walls=(
        (-0.105, -0.095, 0.22, 0.3),
        (-0.105, -0.095, -0.3, -0.13),
        (0.095, 0.105, 0.28, 0.3),
        (0.095, 0.105, -0.3, 0.03),
    ),
    start=(-0.22, -0.13, -0.22, 0.22),
    goal=(0.25, 0.0),
    goal_radius=0.03 * 2**0.5,  # published as an RMS distance per coordinate of 0.03
    agent_radius=0.025,
)

# Two rooms with a closed wall around them; the door between them is y in (0.03, 0.23).
IMAGE_MAZE = Geometry(
    bounds=(-0.3, 0.3, -0.3, 0.3),
    walls=(
        (-0.105, -0.095, -0.3, 0.3),
        (0.095, 0.105, 0.23, 0.3),
        (0.095, 0.105, -0.3, 0.03),
        (-0.1, 0.1, -0.105, -0.095),
        (0.1, 0.3, -0.105, -0.095),
    ),
    start=(-0.04, 0.04, 0.0, 0.22),
    goal=(0.25, 0.25),
    goal_radius=0.03 * 2**0.5,  # as in the maze
    agent_radius=0.035,
)

NAVIGATION1 = Geometry(
    bounds=(-110.0, 20.0, -15.0, 15.0),
    walls=(
        (-100.0, 150.0, 5.0, 10.0),
        (-100.0, 150.0, -10.0, -5.0),
        (-100.0, -80.0, -10.0, 10.0),
    ),
    start=(-53.0, -47.0, -3.0, 3.0),
    goal=(0.0, 0.0),
    goal_radius=4.0,
    agent_radius=0.0,
)

NAVIGATION2 = Geometry(
    bounds=(-60.0, 15.0, -25.0, 25.0),
    walls=((-30.0, -20.0, -7.5, 7.5),),
    start=(-53.0, -47.0, -3.0, 3.0),
    goal=(0.0, 0.0),
    goal_radius=4.0,
    agent_radius=0.0,
)

# The workspace from above, in cm. The tool is a point; the obstacle is as high as the workspace.
REACH = Geometry(
    bounds=(3.0, 13.0, 3.0, 13.0),
    walls=((7.7, 8.2, 6.9, 7.1),),
    start=(6.0, 6.0, 7.0, 7.0),
    goal=(9.0, 7.0),
    goal_radius=1.0,
    agent_radius=0.0,
)

# The part of it that the camera of the image task sees, with that task's two start positions.
IMAGE_REACH = Geometry(
    bounds=(4.0, 11.0, 4.5, 9.5),
    walls=REACH.walls,
    start=(6.0, 6.0, 6.7, 7.3),
    goal=REACH.goal,
    goal_radius=REACH.goal_radius,
    agent_radius=0.0,
)

# An arm's tool beside a round keep-out zone, in m. Targets lie on either side of the x axis.
ARM_TARGETS: Rectangle = (0.15, 0.21, 0.09, 0.15)
ARM = Geometry(
    bounds=(-0.12, 0.3, -0.24, 0.24),
    walls=(),
    start=ARM_TARGETS,
    goal=(0.18, 0.12),
    goal_radius=0.015,
    agent_radius=0.004,
    discs=((0.19, 0.0, 0.035),),
    goals=(ARM_TARGETS, (*ARM_TARGETS[:2], -ARM_TARGETS[3], -ARM_TARGETS[2])),
)
