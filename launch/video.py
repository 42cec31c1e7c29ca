"""Films an evaluation: what the robot does, who is in control, and how risky the proposal was.

A frame is a picture of the world inside a border in the colour of whoever acts, under a line of
text and over a bar of risk.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from safetypilot.launch.cli_common import InputError
from safetypilot.launch.picture import COLOURS
from safetypilot.launch.tally import SOURCES

Image = NDArray[np.uint8]  # (height, width, 3)

WIDTH = 480  # pixels of the picture, without the border
_BORDER, _HEAD, _FOOT = 8, 40, 52
_HOLD_S = 0.8  # the end of an episode stays on the screen
_INK, _PAPER, _PALE = "#222222", "#ffffff", "#dddddd"
_OUTCOMES = {"violation": "#cc0000", "goal": "#00795a", "time is up": "#555555", "end": "#555555"}
_LABELS = tuple(name.upper() for name in SOURCES)
_ON_PALE = ("RECOVERY", "TAIL")  # whose colours are too pale for white letters


class Scene(Protocol):
    """Draws the world: one of `launch/scenes.py`."""

    def start(self) -> None:
        """A new episode begins."""

    def draw(self, record: Any, following: NDArray[Any] | None) -> Any:
        """A Pillow image of the world before this step, or after it if `following` is given."""


class Writer(Protocol):
    """Takes frames one by one."""

    def add(self, frame: Any) -> None:
        """One more frame, a Pillow image."""

    def close(self) -> None:
        """Finish the file."""

    def discard(self) -> None:
        """Leave no file: the flight has failed."""


def check_name(path: Path) -> None:
    """Refuse a name that no video can have here, before anything flies.

    Raises:
        InputError: neither .mp4 nor .gif, no folder, or what writes it is not installed.
    """
    if path.suffix.lower() not in (".mp4", ".gif"):
        raise InputError(f"--video {path}: a video is written as .mp4 or .gif")
    if not path.parent.is_dir():
        raise InputError(f"--video {path}: there is no folder {path.parent}; make it first")
    if path.suffix.lower() == ".mp4" and None in map(find_spec, ("imageio", "imageio_ffmpeg")):
        raise InputError(
            f"--video {path}: .mp4 needs imageio and imageio-ffmpeg (pip install -e '.[video]' in "
            "the checkout); .gif needs nothing more"
        )


def writer(path: Path, fps: float) -> Writer:
    """What writes such a file."""
    return Gif(path, fps) if path.suffix.lower() == ".gif" else Mp4(path, fps)


class Mp4:
    """H.264 by imageio and ffmpeg; the file appears when it is whole."""

    def __init__(self, path: Path, fps: float) -> None:
        import imageio.v2 as imageio

        self._path, self._part = path, path.with_name(f".{path.name}.part.mp4")
        settings: dict[str, Any] = {"codec": "libx264", "quality": 8, "macro_block_size": 2}
        self._writer: Any = imageio.get_writer(self._part, fps=fps, **settings)

    def add(self, frame: Any) -> None:
        self._writer.append_data(np.asarray(frame))

    def close(self) -> None:
        self._writer.close()
        self._part.replace(self._path)

    def discard(self) -> None:
        self._writer.close()
        self._part.unlink(missing_ok=True)


class Gif:
    """An animated GIF by Pillow, with one palette for all frames."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._frames: list[Any] = []
        self._palette: Any = None

    def add(self, frame: Any) -> None:
        from PIL.Image import Dither

        if self._palette is None:
            self._palette = _palette(frame)
        self._frames.append(frame.quantize(palette=self._palette, dither=Dither.NONE))

    def close(self) -> None:
        if not self._frames:
            return
        part = self._path.with_name(f".{self._path.name}.part.gif")
        first, *rest = self._frames
        pause_ms = max(round(100 / self._fps), 2) * 10  # GIF counts in hundredths of a second
        first.save(part, save_all=True, append_images=rest, duration=pause_ms, loop=0, disposal=1)
        part.replace(self._path)

    def discard(self) -> None:
        self._frames.clear()


def _palette(frame: Any) -> Any:
    """A palette of the frame's colours and of all those that may come later."""
    from PIL import Image, ImageColor

    known = [*COLOURS, *_OUTCOMES.values(), _INK, _PAPER, _PALE]
    swatch = Image.new("RGB", (frame.width, frame.height + 8 * len(known)), "white")
    swatch.paste(frame)
    for i, colour in enumerate(known):
        box = (0, frame.height + 8 * i, frame.width, frame.height + 8 * (i + 1))
        swatch.paste(ImageColor.getrgb(colour), box)
    return swatch.quantize(colors=255)


class Film:
    """Makes a frame of every step and writes it; give `on_step` to the evaluation."""

    def __init__(
        self, target: Writer, scene: Scene, watched: Any, fps: float, eps: float, episodes: int
    ) -> None:
        """Begin.

        Args:
            target: takes the frames.
            scene: draws the world.
            watched: the `scenes.Watched` environment.
            fps: frames per second.
            eps: threshold of the risk; NaN without a shield.
            episodes: how many are filmed; later ones are not.
        """
        self._target, self._scene, self._watched = target, scene, watched
        self._hold = max(round(_HOLD_S * fps), 1)
        self._eps, self._episodes = eps, episodes
        self._total = 0.0
        self.frames = 0

    def on_step(self, record: Any) -> None:
        """One step of an evaluation (policies/learn/evaluation.py: Step)."""
        if record.episode >= self._episodes:
            return
        if record.step == 0:
            self._scene.start()
            self._total = 0.0
        self._add(self._frame(record, self._scene.draw(record, None), ""))
        self._total += record.reward
        if self._watched.ended:
            last = self._scene.draw(record, self._watched.observation)
            frame = self._frame(record, last, self._outcome(record))
            for _ in range(self._hold):
                self._add(frame)

    def close(self) -> None:
        """Finish the file."""
        self._target.close()

    def discard(self) -> None:
        """Leave no file."""
        self._target.discard()

    def _add(self, frame: Any) -> None:
        self._target.add(frame)
        self.frames += 1

    def _outcome(self, record: Any) -> str:
        if record.cost > 0:
            return "violation"
        if record.info.get("success"):
            return "goal"
        return "time is up" if self._watched.truncated else "end"

    def _frame(self, record: Any, picture: Any, outcome: str) -> Any:
        from PIL import Image, ImageDraw

        source = min(int(record.source), len(COLOURS) - 1)
        colour = _OUTCOMES[outcome] if outcome else COLOURS[source]
        width, height = picture.width + 2 * _BORDER, picture.height + 2 * _BORDER + _HEAD + _FOOT
        frame = Image.new("RGB", (width + width % 2, height + height % 2), _PAPER)
        pen = ImageDraw.Draw(frame)
        below = _HEAD + 2 * _BORDER + picture.height
        pen.rectangle((0, 0, width, below - 1), fill=colour)
        frame.paste(picture, (_BORDER, _HEAD + _BORDER))
        text = outcome.upper() if outcome else _LABELS[source]
        ink = _INK if not outcome and _LABELS[source] in _ON_PALE else "white"
        pen.text((_BORDER + 4, _HEAD // 2 + 3), text, ink, font(20, bold=True), anchor="lm")
        total = f"{self._total:.0f}" if abs(self._total) >= 100 else f"{self._total:.3g}"
        where = f"episode {record.episode + 1}   step {record.step + 1}   return {total}"
        pen.text((width - _BORDER - 4, _HEAD // 2 + 3), where, ink, font(14), anchor="rm")
        self._bar(pen, record.risk, width, below)
        return frame

    def _bar(self, pen: Any, risk: float, width: int, top: int) -> None:
        """The risk of the proposal from 0 to 1, and the threshold."""
        left, right = _BORDER + 92, width - _BORDER - 56
        y0, y1 = top + 14, top + 30
        pen.text((_BORDER + 4, (y0 + y1) // 2), "Q_risk", _INK, font(14), anchor="lm")
        pen.rectangle((left, y0, right, y1), fill=_PALE)
        if np.isfinite(risk):
            over = np.isfinite(self._eps) and risk > self._eps
            x = left + (right - left) * float(np.clip(risk, 0, 1))
            pen.rectangle((left, y0, x, y1), fill=COLOURS[1] if over else COLOURS[0])
        number = f"{risk:.2f}" if np.isfinite(risk) else "none"
        pen.text((width - _BORDER - 4, (y0 + y1) // 2), number, _INK, font(14), anchor="rm")
        if np.isfinite(self._eps):
            x = left + (right - left) * self._eps
            pen.line((x, y0 - 4, x, y1 + 4), fill=_INK, width=2)
            pen.text((x, y1 + 5), f"eps {self._eps:g}", _INK, font(11), anchor="mt")


_FONTS: dict[tuple[int, bool], Any] = {}


def font(size: int, bold: bool = False) -> Any:
    """DejaVu Sans, which comes with matplotlib."""
    if (size, bold) not in _FONTS:
        from matplotlib import get_data_path
        from PIL import ImageFont

        name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
        path = Path(get_data_path()) / "fonts" / "ttf" / name
        _FONTS[size, bold] = ImageFont.truetype(str(path), size)
    return _FONTS[size, bold]
