"""What a task needs of a body that is not its own simulation: a robot behind the bridge.

Plain numbers, one per joint, in the body's own order; whoever has a driver maps them by name. SI
units: rad, m, N m, N and seconds of the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Numbers = tuple[float, ...]
Array = npt.NDArray[np.float32]


class Drive(NamedTuple):
    """What an action asks of the joints; what the body's mode does not use stays empty."""

    position: Numbers = ()
    velocity: Numbers = ()
    effort: Numbers = ()
    kp: Numbers = ()
    kd: Numbers = ()


class Verdict(NamedTuple):
    """What a control step came to, by what was measured after it.

    Attributes:
        over: the episode ends here; a violation and a success end it in any case.
    """

    reward: float
    cost: float
    success: bool = False
    over: bool = False


class Body(Protocol):
    """A task on a robot.

    Attributes:
        joints: by the names that a driver has for them.
        mode: "position", "velocity", "effort" or "pd", as drivers call them.
        sensors: what it needs besides the joints: name -> how many numbers.
        rate_hz: control steps per second of the device.
    """

    joints: tuple[str, ...]
    mode: str
    sensors: Mapping[str, int]
    rate_hz: float

    def start(self, generator: np.random.Generator) -> Numbers | None:
        """Where an episode begins; None: wherever the robot is."""

    def observe(
        self,
        position: Numbers,
        velocity: Numbers,
        effort: Numbers,
        sensors: Mapping[str, Numbers],
    ) -> Array:
        """The observation of the task, (O,)."""

    def drive(self, action: npt.NDArray[Any], position: Numbers) -> Drive:
        """What an action, (A,), asks of the joints that were there when its step began."""

    def judge(self, before: Array, action: npt.NDArray[Any], after: Array) -> Verdict:
        """Reward, cost and end of a step, by the observations before and after it."""
