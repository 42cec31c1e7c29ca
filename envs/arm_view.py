"""The arm from above as pixels, drawn with NumPy: zone, target, links and tool."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from safetypilot.envs.arm_body import points
from safetypilot.envs.body import Numbers
from safetypilot.envs.geometry import ARM
from safetypilot.envs.raster import AGENT, FLOOR, GOAL, Colour, Image, View

_WIDTH = 480  # pixels
_LINK: Colour = (120, 130, 150)
_ZONE: Colour = (240, 200, 190)
_LINK_RADIUS = 0.011  # m
_JOINT_RADIUS = 0.016


class ArmView:
    """A canvas for the whole reach of the arm; row 0 is at the largest y."""

    def __init__(self) -> None:
        x0, x1, y0, y1 = ARM.bounds
        pixel = (x1 - x0) / _WIDTH
        view = View(x0, y1, pixel, 2 * round((y1 - y0) / pixel / 2), _WIDTH)
        self._pixel = pixel
        self._x, self._y = view.columns, view.rows[:, None]
        self._still = np.empty((view.height, view.width, 3))
        self._still[:] = FLOOR
        for x, y, radius in ARM.discs:
            self._dab(self._still, (x, y), (x, y), radius, _ZONE)

    def draw(self, position: Numbers, target: tuple[float, float]) -> Image:
        """The arm with its joints at these angles, (height, 480, 3)."""
        canvas, base = self._still.copy(), (0.0, 0.0)
        elbow, end = points(position)
        self._dab(canvas, target, target, ARM.goal_radius, GOAL)
        for start, stop in ((base, elbow), (elbow, end)):
            self._dab(canvas, start, stop, _LINK_RADIUS, _LINK)
            self._dab(canvas, start, start, _JOINT_RADIUS, _LINK)
        self._dab(canvas, end, end, ARM.agent_radius, AGENT)
        return np.rint(canvas).astype(np.uint8)

    def _dab(
        self,
        canvas: npt.NDArray[np.float64],
        start: tuple[float, float],
        stop: tuple[float, float],
        radius: float,
        colour: Colour,
    ) -> None:
        """Paints all that is within a radius of the line between two points."""
        (ax, ay), way_x, way_y = start, stop[0] - start[0], stop[1] - start[1]
        x, y = self._x - ax, self._y - ay
        length = way_x * way_x + way_y * way_y
        part = ((x * way_x + y * way_y) / length).clip(0.0, 1.0) if length else 0.0
        distance = np.hypot(x - part * way_x, y - part * way_y)
        share = ((radius - distance) / self._pixel + 0.5).clip(0.0, 1.0)[..., None]
        canvas += share * (np.array(colour) - canvas)
