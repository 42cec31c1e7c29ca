"""Where the robot went and who was in control: one panel per phase of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from safetypilot.launch.tally import SOURCES, Phase

COLOURS = ("#0072B2", "#E69F00", "#CC79A7", "#D55E00")  # of SOURCES; told apart by everybody
_MOST_PANELS = 6
_WALL, _GOAL = "#3d3d3d", "#009E73"


def draw(path: Path, phases: list[Phase], env: str, title: str) -> bool:
    """Draws the trajectories over the world's walls, coloured by who was in control.

    Returns:
        False if there is nothing to draw: no episode, or a single observed number.
    """
    panels = [phase for phase in phases if phase.paths]
    if not panels:
        return False
    left_out = len(panels) - _MOST_PANELS
    if left_out > 0:
        half = _MOST_PANELS // 2
        panels = panels[:half] + panels[-half:]
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    world = _world(env)
    width, height = _panel_size(world)
    figure, axes = pyplot.subplots(
        lines,
        columns,
        figsize=(width * columns, (height + 0.6) * lines + 0.5),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, phase in zip(axes.flat, panels, strict=False):
        _panel(axis, phase, world)
    note = f" ({left_out} phases in between are left out)" if left_out > 0 else ""
    figure.suptitle(title + note, fontsize=13 if columns > 1 else 11, fontweight="bold")
    _legend(figure, [sum(p.sources[i] for p in panels) for i in range(len(SOURCES))])
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return True


def _world(env: str) -> Any:
    """The plan view of one of our environments, or None."""
    from safetypilot.envs import geometry, registry

    short = next((name for name, full in registry.IDS.items() if env in (name, full)), env)
    return getattr(geometry, short.upper(), None)


def _panel_size(world: Any) -> tuple[float, float]:
    if world is None:
        return 5.2, 4.6
    x0, x1, y0, y1 = world.bounds
    return 5.2, max(5.2 * min((y1 - y0) / (x1 - x0), 1.2), 1.8)


def _panel(axis: Any, phase: Phase, world: Any) -> None:
    from matplotlib.collections import LineCollection

    if world is not None:
        _walls(axis, world)
    segments: list[list[Any]] = [[] for _ in SOURCES]
    for path in phase.paths:
        for i, source in enumerate(path.sources[:-1]):
            segments[min(int(source), len(SOURCES) - 1)].append(path.points[i : i + 2])
    opacity = float(np.clip(6 / np.sqrt(len(phase.paths)), 0.3, 0.9))
    for source, lines in enumerate(segments):
        # What is rare and matters is drawn on top.
        axis.add_collection(
            LineCollection(
                lines,
                colors=COLOURS[source],
                linewidths=1.1 + 0.3 * (source > 0),
                alpha=opacity if source == 0 else min(opacity + 0.2, 1.0),
                zorder=3 + source,
                capstyle="round",
            )
        )
    _ends(axis, phase)
    if world is None:
        axis.autoscale_view()
        axis.set_xlabel("observation 0")
        axis.set_ylabel("observation 1")
    share = 100 * phase.interventions / phase.steps if phase.steps else 0.0
    axis.set_title(
        f"{phase.model.split('@')[0] or 'no model'}\n"
        f"{_count(phase.episodes, 'episode')}, {_count(phase.successes, 'success', 'successes')}, "
        f"{_count(phase.violations, 'violation')}, {share:.0f} % of steps shielded",
        fontsize=9.5,
    )


def _ends(axis: Any, phase: Phase) -> None:
    starts = np.array([path.points[0] for path in phase.paths])
    axis.scatter(*starts.T, s=7, c="#777777", linewidths=0, alpha=0.7, zorder=8)
    bad = np.array([path.points[-1] for path in phase.paths if path.violation]).reshape(-1, 2)
    axis.scatter(*bad.T, s=60, c="white", marker="x", linewidths=4, zorder=9)
    axis.scatter(*bad.T, s=46, c="#CC0000", marker="x", linewidths=2, zorder=10)


def _walls(axis: Any, world: Any) -> None:
    from matplotlib.patches import Circle, Rectangle

    x0, x1, y0, y1 = world.bounds
    for left, right, low, high in world.walls:
        left, right, low, high = max(left, x0), min(right, x1), max(low, y0), min(high, y1)
        axis.add_patch(
            Rectangle((left, low), right - left, high - low, color=_WALL, zorder=2, lw=0)
        )
    for x, y, radius in world.discs:
        axis.add_patch(Circle((x, y), radius, color=_WALL, alpha=0.8, lw=0, zorder=2))
    style: dict[str, Any] = {"color": _GOAL, "alpha": 0.35, "lw": 0, "zorder": 1}
    if not world.goals:
        axis.add_patch(Circle(world.goal, world.goal_radius, **style))
    for left, right, low, high in world.goals:
        axis.add_patch(Rectangle((left, low), right - left, high - low, **style))
    axis.set_xlim(x0, x1)
    axis.set_ylim(y0, y1)
    axis.set_aspect("equal")
    for side in axis.spines.values():
        side.set_linewidth(2.5)
        side.set_color(_WALL)
    axis.tick_params(labelsize=8)


def _legend(figure: Any, steps: list[int]) -> None:
    from matplotlib.lines import Line2D

    total = max(sum(steps), 1)
    handles: list[Any] = [
        Line2D(
            [], [], color=COLOURS[i], linewidth=2.5, label=f"{name} {100 * steps[i] / total:.1f} %"
        )
        for i, name in enumerate(SOURCES)
    ]
    handles += [
        _mark("#777777", "o", 4, "start"),
        _mark(_GOAL, "o", 9, "goal", alpha=0.5),
        _mark("#CC0000", "x", 6, "violation", markeredgewidth=2),
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles) if figure.get_figwidth() > 8 else 4,
        frameon=False,
        fontsize=9,
    )


def _mark(colour: str, marker: str, size: int, label: str, **style: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], c=colour, ls="", marker=marker, markersize=size, label=label, **style)


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
