"""Plan views as pixels, drawn with NumPy: the same bytes on every machine, without OpenGL.

Edges are anti-aliased (a pixel's colour is the mean over its area), so motion by a fraction of a
pixel shows. Row 0 is north, column 0 is west, colours are 0 to 255.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from safetypilot.envs.geometry import Geometry, Rectangle

Image: TypeAlias = npt.NDArray[np.uint8]  # (height, width, 3)
Colour: TypeAlias = tuple[int, int, int]

FLOOR: Colour = (237, 237, 232)
WALL: Colour = (64, 66, 76)
GOAL: Colour = (60, 170, 85)
AGENT: Colour = (215, 60, 45)


@dataclass(frozen=True)
class View:
    """A window onto the plane with square pixels.

    Attributes:
        left: x of the western edge, in the world's unit.
        top: y of the northern edge.
        pixel: Side of a pixel, in the world's unit.
        height: Rows.
        width: Columns.
    """

    left: float
    top: float
    pixel: float
    height: int
    width: int

    @property
    def columns(self) -> npt.NDArray[np.float64]:
        """x of the pixels' centres, (width,)."""
        return np.asarray(self.left + self.pixel * (np.arange(self.width) + 0.5), np.float64)

    @property
    def rows(self) -> npt.NDArray[np.float64]:
        """y of the pixels' centres, (height,), from north to south."""
        return np.asarray(self.top - self.pixel * (np.arange(self.height) + 0.5), np.float64)


class Scene:
    """A background that is drawn once, and a disc that moves over it.

    Args:
        view: What is seen.
        walls: Rectangles, drawn last.
        outside: Everything beyond this rectangle is drawn as wall; None draws floor.
        goal: Centre and radius of the goal disc.
        agent_radius: Of the moving disc, in the world's unit.
    """

    def __init__(
        self,
        view: View,
        walls: tuple[Rectangle, ...],
        outside: Rectangle | None,
        goal: tuple[float, float, float],
        agent_radius: float,
    ) -> None:
        self._view = view
        self._radius = agent_radius
        self._columns, self._rows = view.columns, view.rows
        canvas = np.empty((view.height, view.width, 3))
        canvas[:] = WALL if outside else FLOOR
        if outside:
            _blend(canvas, self._rectangle(outside), FLOOR)
        _blend(canvas, self._disc(*goal), GOAL)
        for wall in walls:
            _blend(canvas, self._rectangle(wall), WALL)
        self._background = canvas
        self._still: Image = np.rint(canvas).astype(np.uint8)

    def draw(self, x: float, y: float) -> Image:
        """The scene with the agent at (x, y), (height, width, 3) uint8; what is outside is cut."""
        view, reach = self._view, self._radius + self._view.pixel
        c0 = max(0, int((x - reach - view.left) / view.pixel))
        c1 = max(0, int((x + reach - view.left) / view.pixel) + 1)
        r0 = max(0, int((view.top - y - reach) / view.pixel))
        r1 = max(0, int((view.top - y + reach) / view.pixel) + 1)
        image = self._still.copy()
        across = self._columns[c0:c1] - x
        along = self._rows[r0:r1] - y
        share = _inside(along, across, self._radius, view.pixel)[..., None]  # (rows, columns, 1)
        under = self._background[r0:r1, c0:c1]
        image[r0:r1, c0:c1] = np.rint(under + share * (AGENT - under)).astype(np.uint8)
        return image

    def locate(self, image: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Where the agent is in an image that `draw` made, (x, y); of use to scripted experts.

        Args:
            image: uint8 or float32, (height, width, 3) or flat.

        Raises:
            ValueError: The image has another size, or no agent in it.
        """
        pixels = np.asarray(image, dtype=np.float64)
        if pixels.size != self._background.size:
            wanted = self._background.shape
            raise ValueError(f"the image is {pixels.shape}; {wanted} or flat is needed")
        towards = AGENT - self._background
        change = pixels.reshape(self._background.shape) - self._still
        share = (change * towards).sum(-1) / (towards * towards).sum(-1)  # (height, width)
        total = share.sum()
        if total < 0.5:
            raise ValueError("there is no agent in the image")
        x = (share.sum(0) @ self._columns) / total
        y = (share.sum(1) @ self._rows) / total
        return np.array([x, y])

    def _rectangle(self, rectangle: Rectangle) -> npt.NDArray[np.float64]:
        """Share of each pixel that lies in a rectangle, (height, width); exact."""
        x0, x1, y0, y1 = rectangle
        half = self._view.pixel / 2
        across = np.minimum(self._columns + half, x1) - np.maximum(self._columns - half, x0)
        along = np.minimum(self._rows + half, y1) - np.maximum(self._rows - half, y0)
        share: npt.NDArray[np.float64] = np.outer(along.clip(0), across.clip(0))
        return share / self._view.pixel**2

    def _disc(self, x: float, y: float, radius: float) -> npt.NDArray[np.float64]:
        return _inside(self._rows - y, self._columns - x, radius, self._view.pixel)


def plan_scene(geometry: Geometry, width: int = 480) -> Scene:
    """A whole world from above, for videos; a point agent gets a visible radius."""
    x0, x1, y0, y1 = geometry.bounds
    pixel = (x1 - x0) / width
    height = 2 * round((y1 - y0) / pixel / 2)  # video encoders want even sides
    return Scene(
        View(left=x0, top=y1, pixel=pixel, height=height, width=width),
        geometry.walls,
        None,
        (*geometry.goal, geometry.goal_radius),
        geometry.agent_radius or 5 * pixel,
    )


def _inside(
    along: npt.NDArray[np.float64], across: npt.NDArray[np.float64], radius: float, pixel: float
) -> npt.NDArray[np.float64]:
    """Share of each pixel inside a disc around 0, (rows, columns), by distance to its edge."""
    distance = np.sqrt(along[:, None] ** 2 + across**2)
    share: npt.NDArray[np.float64] = ((radius - distance) / pixel + 0.5).clip(0.0, 1.0)
    return share


def _blend(canvas: npt.NDArray[np.float64], share: npt.NDArray[np.float64], colour: Colour) -> None:
    canvas += share[..., None] * (np.array(colour) - canvas)
