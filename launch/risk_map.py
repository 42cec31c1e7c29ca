"""Heat maps of Q_risk over the plane: where does the critic call an action dangerous?

Letters: N actions, W columns and H rows of the map, O observation, A action size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safetypilot.launch import trained
from safetypilot.launch.cli_common import InputError, choose
from safetypilot.launch.curve_plots import outputs
from safetypilot.models import contract as contracts
from safetypilot.models import runtime

Floats = NDArray[np.float32]

# Direction of the first two entries of an action, in parts of its limits, and how to show it
WORDS = {
    "east": (1.0, 0.0),
    "west": (-1.0, 0.0),
    "north": (0.0, 1.0),
    "south": (0.0, -1.0),
    "rest": (0.0, 0.0),
}
CARDINAL = "east west north south"

_LONG_SIDE = 200  # points of the map along the longer side
_INK, _WALL, _GOAL, _EPS = "#222222", "#333333", "#007a58", "#0050a0"


@dataclass(frozen=True)
class Subject:
    """A critic and the world that it judges.

    Attributes:
        eps: risk above which recovery takes over, if known.
        rest: the observation's entries after x and y, (O - 2,): those of a start.
    """

    model: runtime.Model
    env: str
    world: Any
    eps: float | None
    rest: Floats


def world_of(env: str) -> Any:
    """The plan view of one of our environments (envs/geometry.py), or None."""
    from safetypilot.envs import geometry
    from safetypilot.launch.curves import short_name

    return getattr(geometry, short_name(env).upper().replace("-", "_"), None)


def is_planar(names: Sequence[str], env: str) -> bool:
    """Whether observations begin with x and y in a world that we can draw from above."""
    return tuple(names[:2]) == ("x", "y") and world_of(env) is not None


def find(source: Path, env: str | None = None) -> Subject:
    """The critic of a run, or one file, with its world.

    Raises:
        InputError: it is no critic, its task is unknown, or not one in the plane.
    """
    if source.suffix == ".onnx":
        about, path = trained.describe(source.parent.parent, source.parent), source
    else:
        about = trained.find(source)
        path = about.models / trained.FILES["safety_critic"]
        if not path.exists():
            raise InputError(f"there is no {path.name} in {about.models}; {_algorithm(about)}")
    try:
        model = runtime.load(path)
    except runtime.ModelError as error:
        raise InputError(str(error)) from None
    if model.contract.kind != "safety_critic":
        raise InputError(f"{path} is a {model.contract.kind} model; a safety_critic is needed")
    name = env or about.env or str(model.contract.run.get("env", ""))
    if not name:
        raise InputError(f"{path} does not say for which task it is; say so with --env")
    return _subject(model, name, about.eps)


def _algorithm(about: trained.Trained) -> str:
    return f"{about.algorithm or 'its algorithm'} trains no critic of risk; choose another run"


def _subject(model: runtime.Model, env: str, eps: float | None) -> Subject:
    from safetypilot.envs import registry

    described = registry.describe(env)
    names = described["observation_names"]
    if not is_planar(names, env):
        raise InputError(
            f"{env} observes {_few(names)}; a map needs a task in the plane, whose observation "
            "begins with x and y: maze, navigation1, navigation2 or reach"
        )
    try:
        contracts.check(model.contract, "safety_critic", SimpleNamespace(**described))
    except runtime.ModelError as error:
        raise InputError(f"{model.path} does not judge {env}: {error}") from None
    rest = np.zeros(0, np.float32)
    if len(names) > 2:
        world = registry.make(env)
        rest = np.asarray(world.reset(seed=0)[0], np.float32)[2:]
        world.close()
    return Subject(model, env, world_of(env), eps, rest)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f", ... ({len(names)} in all)" if len(names) > 4 else "")


def actions(text: str, model: runtime.Model) -> Floats:
    """Actions (N, A) from words (`east rest`) and numbers (`0.1,0 -0.05,0.1`).

    Raises:
        InputError: an unknown word, a wrong count, or outside the limits.
    """
    low, high = (np.array(getattr(model.contract, f"action_{side}")) for side in ("low", "high"))
    found = []
    for word in text.replace(";", " ").split():
        if "," not in word:
            x, y = WORDS[choose("action", word, WORDS)]
            row = np.zeros(len(low))
            row[:2] = [(high if part > 0 else -low)[i] * part for i, part in enumerate((x, y))]
        else:
            row = _numbers(word, len(low))
        if not ((low <= row) & (row <= high)).all():
            limits = ", ".join(f"{a:g} to {b:g}" for a, b in zip(low, high, strict=True))
            raise InputError(f"the action {word} is outside the limits {limits}")
        found.append(row)
    if not found:
        raise InputError(f"--actions is empty; give words or numbers, such as {CARDINAL!r}")
    return np.array(found, np.float32)


def _numbers(word: str, count: int) -> NDArray[np.float64]:
    try:
        row = np.array([float(part) for part in word.split(",")])
    except ValueError:
        raise InputError(f"the action {word} is not numbers; wanted such as 0.1,0") from None
    if len(row) != count:
        raise InputError(f"the action {word} has {len(row)} numbers, the task has {count}")
    return row


def risks(subject: Subject, chosen: Floats) -> tuple[Floats, Floats, Floats]:
    """Columns x (W,), rows y (H,) and risks (N, H, W) of actions (N, A)."""
    x0, x1, y0, y1 = subject.world.bounds
    pixel = max(x1 - x0, y1 - y0) / _LONG_SIDE
    x = np.arange(x0 + pixel / 2, x1, pixel, dtype=np.float32)
    y = np.arange(y0 + pixel / 2, y1, pixel, dtype=np.float32)
    plane = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)  # (H * W, 2)
    rows = np.hstack((plane, np.tile(subject.rest, (len(plane), 1)))).astype(np.float32)
    maps = [
        subject.model.run(observation=rows, action=np.tile(action, (len(rows), 1)))["risk"]
        for action in chosen
    ]
    return x, y, np.stack(maps).reshape(len(chosen), len(y), len(x))


def draw(subject: Subject, chosen: Floats, out: Path, title: str = "") -> list[Path]:
    """Draw a panel per action into a PNG and an SVG file; returns them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    files = outputs(out)
    files[0].parent.mkdir(parents=True, exist_ok=True)
    x0, x1, y0, y1 = subject.world.bounds
    aspect = (y1 - y0) / (x1 - x0)
    columns = min(len(chosen), 4 if aspect > 0.6 else 2)
    lines = -(-len(chosen) // columns)
    width = 9.6 / columns
    settings = {"svg.hashsalt": "safetypilot", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(settings):
        figure, axes = pyplot.subplots(
            *(lines, columns),
            figsize=(9.6 + 0.9, (width * aspect + 0.35) * lines + 1.1),
            squeeze=False,
            sharex=True,
            sharey=True,
            layout="constrained",
        )
        _panels(figure, axes, subject, chosen)
        figure.suptitle(title or f"Q_risk of {subject.model.contract.version}", fontsize=11.5,
                        fontweight="bold", color=_INK)  # fmt: skip
        _legend(figure, subject)
        for path in files:
            metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
            figure.savefig(path, dpi=150, metadata=metadata)
        pyplot.close(figure)
    return files


def _panels(figure: Any, axes: Any, subject: Subject, chosen: Floats) -> None:
    """A map per action, the rest of the axes empty, and the scale of the colours."""
    x, y, maps = risks(subject, chosen)
    for axis in axes.flat[len(chosen) :]:
        axis.set_axis_off()
    shown = None
    for axis, action, risk in zip(axes.flat, chosen, maps, strict=False):
        shown = _panel(axis, subject, (x, y, risk), action)
    figure.get_layout_engine().set(hspace=0.02, wspace=0.02)
    axes[-1][0].set_xlabel(_with_unit("x", subject), fontsize=8.5)
    axes[-1][0].set_ylabel(_with_unit("y", subject), fontsize=8.5)
    bar = figure.colorbar(shown, ax=axes, pad=0.015, aspect=12 * len(axes))
    bar.set_label("Q_risk")
    if subject.eps is not None:
        bar.ax.axhline(subject.eps, color=_EPS, linewidth=2)


def _panel(axis: Any, subject: Subject, field: tuple[Any, Any, Any], action: Floats) -> Any:
    from matplotlib.patches import Circle, Rectangle

    x, y, risk = field
    x0, x1, y0, y1 = subject.world.bounds
    shown = axis.imshow(
        risk, origin="lower", extent=(x0, x1, y0, y1), vmin=0, vmax=1, cmap="OrRd",
        interpolation="nearest", zorder=1,
    )  # fmt: skip
    if subject.eps is not None and risk.min() < subject.eps < risk.max():
        axis.contour(x, y, risk, levels=[subject.eps], colors=_EPS, linewidths=1.7, zorder=4)
    for left, right, low, high in subject.world.walls:
        box = ((left, low), right - left, high - low)
        axis.add_patch(Rectangle(*box, fill=False, ec="white", lw=2.2, zorder=3))  # on dark red
        axis.add_patch(Rectangle(*box, fill=False, ec=_WALL, lw=0.9, hatch="////", zorder=3))
    goal = {"facecolor": "none", "edgecolor": _GOAL, "linewidth": 1.8, "zorder": 5}
    axis.add_patch(Circle(subject.world.goal, subject.world.goal_radius, **goal))
    axis.set(xlim=(x0, x1), ylim=(y0, y1), aspect="equal")
    axis.tick_params(labelsize=7.5, colors="#555555")
    axis.set_title(_name(action, subject.model), fontsize=9.5, color=_INK)
    return shown


def _with_unit(name: str, subject: Subject) -> str:
    unit = subject.model.contract.observation_units["xy".index(name)]
    return name if unit in ("", "1") else f"{name} ({unit})"


def _name(action: Floats, model: runtime.Model) -> str:
    """`→ (0.1, 0)` for a push to the east."""
    arrows = {(1, 0): "→", (-1, 0): "←", (0, 1): "↑", (0, -1): "↓", (0, 0): "•",
              (1, 1): "↗", (-1, 1): "↖", (1, -1): "↘", (-1, -1): "↙"}  # fmt: skip
    reach = np.array(model.contract.action_high[:2])
    steep = np.rint(action[:2] / max(np.abs(action[:2] / reach).max(), 1e-9) / reach).astype(int)
    numbers = ", ".join(f"{value:g}" for value in action)
    return f"{arrows[tuple(steep.tolist())]}  action ({numbers})"


def _legend(figure: Any, subject: Subject) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    if subject.eps is not None:
        label = f"Q_risk = eps = {subject.eps:g}; recovery takes over beyond"
        handles.append(Line2D([], [], color=_EPS, linewidth=1.7, label=label))
    handles.append(Patch(facecolor="none", edgecolor=_WALL, hatch="////", label="obstacle"))
    handles.append(
        Line2D([], [], ls="", marker="o", mfc="none", mec=_GOAL, ms=8, mew=1.8, label="goal")
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
