"""Figures of training runs: curves over the episodes with their standard error, one panel per
environment, and the final successes over the final violations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safetypilot.launch.cli_common import InputError
from safetypilot.launch.curve_groups import CURVES, Group
from safetypilot.launch.curves import WINDOW

KINDS = (*CURVES, "pr")
AXES = {
    "ratio": "(successes + 1) / (violations + 1)",
    "success": "successes so far",
    "violation": "violations so far",
    "reward": f"return, mean of the violation-free\namong the last {WINDOW} episodes",
}

_INK, _PALE = "#222222", "#777777"
# Okabe and Ito's, told apart by everybody, without the yellow that nobody reads on white
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.4, 1.4)), (0, (6, 1.5, 1.2, 1.5)))
_MARKERS = ("o", "s", "^", "D")
# The same algorithm looks the same in every figure: (colour, dash)
_KNOWN = {
    "recovery-rl": (0, 0),
    "recovery-rl-model-free": (0, 1),
    "recovery-rl-q-sampling": (0, 2),
    "recovery-rl-visual": (0, 3),
    "sac": (6, 0),
    "unconstrained": (6, 0),
    "sqrl": (1, 0),
    "lr": (2, 0),
    "rspo": (3, 0),
    "rcpo": (4, 0),
    "rp": (5, 0),
    "safety-editor": (1, 1),
    "csc": (2, 1),
}
_LOG_FROM = 8.0  # largest over smallest value from which a ratio is drawn on a log axis
_LABEL_SIZE = 8.5  # points
_COLUMNS = 2  # more would be too small to read on a page
_PANEL = (3.2, 2.4)  # inches, without what stands around it
_LEFT, _ABOVE, _BELOW = 0.78, 0.34, 0.5  # inches
_REACH = 1.09  # where names begin, in widths of a panel
_FORMATS = (".png", ".svg")


def outputs(out: Path) -> list[Path]:
    """The files of a figure, PNG and SVG, from a name with either ending or none.

    Raises:
        InputError: another ending.
    """
    if out.suffix.lower() in (".pdf", ".jpg", ".jpeg", ".eps", ".gif", ".webp"):
        raise InputError(f"{out}: figures are written as .png and .svg; give a name without ending")
    stem = out.with_suffix("") if out.suffix.lower() in _FORMATS else out
    return [stem.parent / (stem.name + ending) for ending in _FORMATS]


def draw(kind: str, groups: Sequence[Group], out: Path, title: str = "") -> list[Path]:
    """Draw one panel per environment into a PNG and an SVG file.

    Args:
        kind: one of `KINDS`.
        groups: what to show.
        out: the name of the files; its folder is made.
        title: above all; empty for none.

    Returns:
        The files.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    files = outputs(out)
    files[0].parent.mkdir(parents=True, exist_ok=True)
    envs = list(dict.fromkeys(group.env for group in groups))
    looks = styles(groups)
    with matplotlib.rc_context(_RC):
        margin = max(_text_width(_label(group, 888.8)) for group in groups)
        figure, axes = _panels(pyplot, len(envs), margin, title)
        for axis, env in zip(axes, envs, strict=True):
            members = [group for group in groups if group.env == env]
            (_panel_pr if kind == "pr" else _panel)(axis, kind, members, looks)
        for path in files:
            metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
            figure.savefig(path, dpi=160, metadata=metadata)
        pyplot.close(figure)
    return files


def _panels(pyplot: Any, count: int, margin: float, title: str) -> tuple[Any, list[Any]]:
    """A figure with axes of a fixed size and, to their right, room for names: `margin` inches."""
    columns = min(count, _COLUMNS)
    lines = -(-count // columns)
    cell_x = _LEFT + _PANEL[0] * _REACH + margin + 0.1
    cell_y = _ABOVE + _PANEL[1] + _BELOW
    width, height = cell_x * columns, cell_y * lines + (0.25 if title else 0.0)
    figure = pyplot.figure(figsize=(width, height))
    axes = []
    for i in range(count):
        x, y = i % columns * cell_x + _LEFT, (lines - 1 - i // columns) * cell_y + _BELOW
        box = (x / width, y / height, _PANEL[0] / width, _PANEL[1] / height)
        axes.append(figure.add_axes(box))
    if title:
        look = {"fontsize": 12, "fontweight": "bold", "color": _INK}
        figure.text(_LEFT / width, 1 - 0.1 / height, title, va="top", **look)
    return figure, axes


def _text_width(text: str) -> float:
    """Inches that a label takes."""
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), text, size=_LABEL_SIZE).get_extents().width) / 72


_RC: dict[str, Any] = {
    "svg.hashsalt": "safetypilot",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _PALE,
    "axes.labelcolor": _INK,
    "xtick.color": _PALE,
    "ytick.color": _PALE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
}


def styles(groups: Iterable[Group]) -> dict[str, tuple[str, Any, str]]:
    """Label -> colour, dash and marker; no two alike while there are enough."""
    free = [(colour, dash) for dash in range(len(_DASHES)) for colour in range(len(_COLOURS))]
    chosen: dict[str, tuple[int, int]] = {}
    algorithms = {group.label: group.algorithm for group in groups}

    def rank(label: str) -> tuple[bool, bool, str]:
        return label not in _KNOWN, not is_variant(label), label

    def is_variant(label: str) -> bool:
        return algorithms[label] in _KNOWN and label.startswith(algorithms[label])

    for label in sorted(algorithms, key=rank):
        order = list(free)
        if label in _KNOWN or is_variant(label):  # its algorithm's colour, and the next dash
            colour, dash = _KNOWN.get(label) or _KNOWN[algorithms[label]]
            order = [(colour, (dash + i) % len(_DASHES)) for i in range(len(_DASHES))] + free
        chosen[label] = next((look for look in order if look not in chosen.values()), order[0])
    return {
        label: (_COLOURS[colour], _DASHES[dash], _MARKERS[dash])
        for label, (colour, dash) in chosen.items()
    }


def _panel(axis: Any, kind: str, groups: Sequence[Group], looks: dict[str, Any]) -> None:
    ends, lowest, highest = [], np.inf, -np.inf
    for group in groups:
        colour, dash, _ = looks[group.label]
        mean, error = group.curve(kind)
        episodes = np.arange(1, len(mean) + 1)
        axis.plot(episodes, mean, color=colour, linestyle=dash, linewidth=1.8, zorder=4)
        if group.seeds > 1:
            band = {"color": colour, "alpha": 0.16, "linewidth": 0, "zorder": 3}
            axis.fill_between(episodes, mean - error, mean + error, **band)
        known = np.flatnonzero(np.isfinite(mean))
        if len(known):
            last = known[-1]
            ends.append((float(episodes[last]), float(mean[last]), group))
            lowest, highest = min(lowest, mean[known].min()), max(highest, mean[known].max())
    axis.set_xlim(0, max(group.episodes for group in groups))
    if kind == "ratio" and highest > _LOG_FROM * lowest:
        _log_axis(axis)
    elif kind in ("success", "violation"):
        axis.set_ylim(bottom=0)
    axis.set_xlabel("episode")
    axis.set_ylabel(AXES[kind])
    axis.grid(axis="y", color="#e4e4e4", linewidth=0.7)
    axis.set_axisbelow(True)
    several = any(group.seeds > 1 for group in groups)
    note = "mean ± standard error over n seeds" if several else "one seed"
    _titles(axis, groups[0].env, note)
    _label_ends(axis, ends, looks)


def _log_axis(axis: Any) -> None:
    from matplotlib import ticker

    axis.set_yscale("log")
    low, high = axis.get_ylim()
    steps = (1, 2, 5) if high / low < 3e3 else (1,)
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=steps, numticks=20))
    axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(ticker.NullLocator())
    axis.set_ylim(low, high)


def _titles(axis: Any, left: str, right: str) -> None:
    axis.set_title(left, loc="left", fontsize=10.5, fontweight="bold", color=_INK)
    axis.set_title(right, loc="right", fontsize=8.5, color=_PALE)


def _label_ends(axis: Any, ends: list[Any], looks: dict[str, Any]) -> None:
    """Name every curve beside its end, in the margin, moved apart where they would overlap."""
    if not ends:
        axis.text(0.5, 0.5, "nothing to show", transform=axis.transAxes, ha="center", color=_PALE)
        return
    to_axes = axis.transData + axis.transAxes.inverted()
    heights = [float(to_axes.transform((x, y))[1]) for x, y, _ in ends]
    places = apart(heights, 1.35 * _LABEL_SIZE / 72 / _PANEL[1])
    right = axis.get_xlim()[1]
    for (x, y, group), place in zip(ends, places, strict=True):
        colour, _, _ = looks[group.label]
        axis.annotate(
            _label(group, y),
            xy=(x, y),
            xytext=(_REACH, place),
            textcoords="axes fraction",
            annotation_clip=False,
            fontsize=_LABEL_SIZE,
            color=_INK,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.8,
                "linestyle": ":" if x < right else "-",
                "patchA": None,
                "shrinkA": 2,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def apart(wanted: Sequence[float], gap: float) -> list[float]:
    """Positions near those wanted and in their order, at least `gap` apart, in [0, 1] if it holds
    them."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[list[int]] = []

    def centre(block: list[int]) -> float:
        return sum(wanted[i] for i in block) / len(block)

    for i in order:
        blocks.append([i])
        while len(blocks) > 1:
            low, high = blocks[-2], blocks[-1]
            room = gap * (len(low) + len(high)) / 2
            if centre(high) - centre(low) >= room:
                break
            blocks[-2:] = [low + high]
    places = [0.0] * len(wanted)
    for block in blocks:
        start = centre(block) - gap * (len(block) - 1) / 2
        for step, i in enumerate(block):
            places[i] = start + gap * step
    for step, i in enumerate(reversed(order)):
        places[i] = min(places[i], 1 - gap * step)
    for step, i in enumerate(order):
        places[i] = max(places[i], gap * step)
    return places


def _panel_pr(axis: Any, kind: str, groups: Sequence[Group], looks: dict[str, Any]) -> None:
    """Final successes over final violations, with standard errors; the best is top left."""
    from matplotlib.lines import Line2D

    handles = []
    for group in sorted(groups, key=lambda group: -group.final("ratio")["mean"]):
        colour, _, marker = looks[group.label]
        x, y = group.final("violation"), group.final("success")
        errors = {"xerr": x["standard_error"], "yerr": y["standard_error"]}
        look = {"color": colour, "marker": marker, "markersize": 6.5, "elinewidth": 1.3}
        axis.errorbar(x["mean"], y["mean"], **errors, **look, capsize=2.5, linestyle="", zorder=4)
        name = f"{group.label} (n={group.seeds})"
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle="", label=name))
    axis.set_xlim(left=min(0.0, axis.get_xlim()[0]))
    axis.set_xlabel("violations")
    axis.set_ylabel("successes")
    axis.grid(color="#e4e4e4", linewidth=0.7)
    axis.set_axisbelow(True)
    lengths = sorted({group.episodes for group in groups})
    span = " to ".join(str(n) for n in dict.fromkeys((lengths[0], lengths[-1])))
    _titles(axis, groups[0].env, f"after {span} episodes")
    axis.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False,
                fontsize=_LABEL_SIZE, handletextpad=0.2)  # fmt: skip


def _label(group: Group, value: float) -> str:
    return f"{group.label}  {_short(value)} (n={group.seeds})"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
