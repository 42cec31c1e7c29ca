"""Pictures of a world for a film: from above, as pixels, rendered, or as signals over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safetypilot.launch.picture import COLOURS
from safetypilot.launch.video import WIDTH, font

Floats = NDArray[Any]

_FLOOR, _WALL, _GOAL, _INK, _PALE = "#f4f4f0", "#3d3d3d", "#9fd9c4", "#222222", "#dddddd"
_FINE = 2  # drawn so many times larger, then reduced: smooth edges
_MOST_ACTIONS = 8  # lines in the plot of signals


class Watched:
    """An environment that remembers what its last call returned; else as it was."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self.observation: Floats = np.zeros(0)
        self.ended = self.truncated = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, **keywords: Any) -> Any:
        self.ended = self.truncated = False
        answer = self._env.reset(**keywords)
        self.observation = answer[0]
        return answer

    def step(self, action: Any) -> Any:
        answer = self._env.step(action)
        self.observation, self.truncated = answer[0], bool(answer[3])
        self.ended = bool(answer[2]) or self.truncated
        return answer


class PlanScene:
    """A world in the plane, with the way so far in the colours of whoever was in control."""

    def __init__(self, world: Any) -> None:
        """`world`: a plan view, see envs/geometry.py."""
        from PIL import Image, ImageDraw

        x0, x1, y0, y1 = world.bounds
        self._origin, self._scale = (x0, y1), WIDTH * _FINE / (x1 - x0)
        # Flat worlds get floor above and below, so that a frame is never a strip.
        height = max(WIDTH * (y1 - y0) / (x1 - x0), WIDTH * 0.3)
        self._shift = (height * _FINE - (y1 - y0) * self._scale) / 2
        self._size = (WIDTH, round(height))
        self._radius = max(world.agent_radius * self._scale, 5 * _FINE)
        self._still = Image.new("RGB", (WIDTH * _FINE, self._size[1] * _FINE), _FLOOR)
        pen = ImageDraw.Draw(self._still)
        pen.ellipse(self._disc(world.goal, world.goal_radius * self._scale), fill=_GOAL)
        for left, right, low, high in world.walls:
            pen.rectangle((*self._pixel(left, high), *self._pixel(right, low)), fill=_WALL)
        self._way: list[tuple[float, float]] = []
        self._sources: list[int] = []

    def start(self) -> None:
        self._way, self._sources = [], []

    def draw(self, record: Any, following: Floats | None) -> Any:
        from PIL import Image, ImageDraw

        source = min(int(record.source), len(COLOURS) - 1)
        position = record.observation if following is None else np.ravel(following)
        self._way.append(self._pixel(float(position[0]), float(position[1])))
        self._sources.append(source)
        canvas = self._still.copy()
        pen = ImageDraw.Draw(canvas)
        for i, end in enumerate(self._way[1:]):
            pen.line((*self._way[i], *end), fill=COLOURS[self._sources[i]], width=3 * _FINE)
        x, y = self._way[-1]
        radius = self._radius
        disc = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(disc, fill=COLOURS[source], outline="white", width=2 * _FINE)
        return canvas.resize(self._size, Image.Resampling.BOX)

    def _pixel(self, x: float, y: float) -> tuple[float, float]:
        left, top = self._origin
        return (x - left) * self._scale, (top - y) * self._scale + self._shift

    def _disc(self, centre: tuple[float, float], radius: float) -> tuple[float, ...]:
        across, down = self._pixel(*centre)
        return across - radius, down - radius, across + radius, down + radius


@dataclass
class PixelScene:
    """What the policy itself sees, enlarged: an image environment with observations (H, W, C)."""

    shape: tuple[int, int, int]

    def start(self) -> None:
        pass

    def draw(self, record: Any, following: Floats | None) -> Any:
        pixels = record.observation if following is None else following
        return _enlarged(np.asarray(pixels).reshape(self.shape))


class RenderedScene:
    """What the environment renders: the world after each step, which has been taken already."""

    def __init__(self, env: Any) -> None:
        """`env` has been reset, in render mode `rgb_array`; rendering once shows that it can."""
        self._env = env
        self._last = _enlarged(np.asarray(env.render()))

    def start(self) -> None:
        pass

    def draw(self, record: Any, following: Floats | None) -> Any:
        if following is None:
            self._last = _enlarged(np.asarray(self._env.render()))
        return self._last


def _enlarged(pixels: Floats) -> Any:
    """(H, W, C) as an image of the film's width, with hard edges if it was much smaller."""
    from PIL import Image

    bytes_ = np.clip(pixels[..., :3], 0, 255).astype(np.uint8)
    if bytes_.shape[2] < 3:
        bytes_ = np.repeat(bytes_[..., :1], 3, axis=2)
    image = Image.fromarray(bytes_)
    size = (WIDTH, round(WIDTH * image.height / image.width))
    small = image.width <= WIDTH // 2
    return image.resize(size, Image.Resampling.NEAREST if small else Image.Resampling.BILINEAR)


class SignalScene:
    """Risk, reward and actions over the episode so far, where the world cannot be drawn."""

    def __init__(self, low: Sequence[float], high: Sequence[float], eps: float) -> None:
        self._middle = (np.array(high) + np.array(low)) / 2
        self._half = (np.array(high) - np.array(low)) / 2
        self._eps = eps
        self._rows: list[tuple[float, float, int, Floats]] = []

    def start(self) -> None:
        self._rows = []

    def draw(self, record: Any, following: Floats | None) -> Any:
        from PIL import Image, ImageDraw

        if following is None:
            scaled = (np.asarray(record.executed) - self._middle) / self._half
            row = (record.risk, record.reward, int(record.source), scaled[:_MOST_ACTIONS])
            self._rows.append(row)
        canvas = Image.new("RGB", (WIDTH, 360), "white")
        pen = ImageDraw.Draw(canvas)
        risks = np.array([row[0] for row in self._rows])
        rewards = np.array([row[1] for row in self._rows])
        actions = np.stack([row[3] for row in self._rows])
        self._strip(pen, 0, "Q_risk", [risks], (0.0, 1.0))
        spread = np.ptp(rewards) or 1.0
        limits = (float(rewards.min() - 0.05 * spread), float(rewards.max() + 0.05 * spread))
        self._strip(pen, 1, "reward", [rewards], limits)
        name = "actions" if len(self._middle) <= _MOST_ACTIONS else f"actions 1 to {_MOST_ACTIONS}"
        self._strip(pen, 2, f"{name}, in parts of their limits", list(actions.T), (-1.05, 1.05))
        return canvas

    def _strip(
        self, pen: Any, place: int, name: str, curves: list[Floats], limits: tuple[float, float]
    ) -> None:
        top, bottom, left, right = 120 * place + 22, 120 * place + 112, 46, WIDTH - 8
        low, high = limits
        pen.text((left, top - 4), name, _INK, font(12), anchor="ls")
        pen.rectangle((left, top, right, bottom), outline=_PALE)
        for value, y in ((high, top), (low, bottom)):
            pen.text((left - 5, y), f"{value:.3g}", "#666666", font(10), anchor="rm")

        def pixel(i: int, value: float) -> tuple[float, float]:
            across = i / max(len(self._rows) - 1, 50)
            up = (min(max(value, low), high) - low) / (high - low)
            return left + (right - left) * across, bottom - (bottom - top) * up

        for i, row in enumerate(self._rows[1:] if place == 0 else []):
            if row[2]:
                x0, x1 = pixel(i, 0)[0], pixel(i + 1, 0)[0]
                pen.rectangle((x0, top + 1, x1, bottom - 1), fill="#fbe3b5")
        if place == 0 and np.isfinite(self._eps):
            pen.line((*pixel(0, self._eps), right, pixel(0, self._eps)[1]), fill="#999999")
        colours = (COLOURS[0], "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", _INK, "#999")
        for curve, colour in zip(curves, colours, strict=False):
            points = [pixel(i, float(v)) for i, v in enumerate(curve) if np.isfinite(v)]
            if len(points) > 1:
                pen.line([number for point in points for number in point], fill=colour, width=2)
