"""Pictures of a graph: Mermaid text, PNG and SVG."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

from safetypilot.launch.layout import BOX_WIDTH, Box, Line, Net, arrange
from safetypilot.launch.plan import NodePlan, Plan

_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B"),
    *("#56B4E9", "#444444", "#8C564B", "#7B5EA7"),
)
_FIRST = ("observation", "command", "recovery", "proposal", "risk")  # keep their colours
_INK = "#222222"


def nets(plan: Plan) -> list[Net]:
    """Every topic of the plan with its writer and its readers, in graph order."""
    return [
        Net(name, str(topic["writer"]), tuple(topic["readers"]), topic["port"] == "stream")
        for name, topic in plan.describe()["topics"].items()
        if topic["writer"]
    ]


def mermaid(plan: Plan) -> str:
    """The graph as Mermaid: solid arrows are latest values, dotted ones streams."""
    lines = [f"%% {plan.name}: {plan.env} at {plan.rate_hz:g} Hz", "flowchart LR"]
    for host in dict.fromkeys(node.host for node in plan.nodes):
        boxes = [_mermaid_node(node, plan.plant) for node in plan.nodes if node.host == host]
        lines += [f"    subgraph {host}", *boxes, "    end"] if host else boxes
    for net in nets(plan):
        arrow = "-.->" if net.stream else "-->"
        lines += [f"    {net.writer} {arrow}|{net.topic}| {reader}" for reader in net.readers]
    return "\n".join(lines) + "\n"


def _mermaid_node(node: NodePlan, plant: str | None) -> str:
    kind = node.node.rpartition(":")[2]
    opening, closing = ("([", "])") if node.name == plant else ("[", "]")
    return f'    {node.name}{opening}"{node.name}<br/><small>{kind}</small>"{closing}'


def draw(plan: Plan, path: Path) -> None:
    """Draws the graph into a .png or .svg file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing = arrange([node.name for node in plan.nodes], nets(plan), plan.plant)
    left, right, bottom, top = drawing.extent
    width, height = right - left + 0.8, top - bottom + 1.5
    with matplotlib.rc_context({"svg.hashsalt": "safetypilot", "svg.fonttype": "none"}):
        figure = pyplot.figure(figsize=(width * 0.9, height * 0.9))
        axis = figure.add_axes((0, 0, 1, 1))
        axis.set(xlim=(left - 0.4, right + 0.4), ylim=(bottom - 0.6, top + 0.9))
        axis.axis("off")
        order = dict.fromkeys((*_FIRST, *(line.net.topic for line in drawing.lines)))
        colours = dict(zip(order, cycle(_COLOURS), strict=False))
        for line in drawing.lines:
            _line(axis, line, colours[line.net.topic])
        for node in plan.nodes:
            kind = node.node.rpartition(":")[2]
            _box(axis, drawing.boxes[node.name], node.name, kind, node.name == plan.plant)
        axis.text(left, top + 0.45, plan.name, fontsize=14, fontweight="bold", color=_INK)
        facts = f"{plan.env}, {plan.rate_hz:g} Hz"
        axis.text(right, top + 0.45, facts, fontsize=10, color=_INK, ha="right")
        note = "solid: newest value    dashed: stream    open end: read by the supervisor and taps"
        axis.text(left, bottom - 0.4, note, fontsize=8, color="#666666")
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, dpi=150, metadata=metadata)
        pyplot.close(figure)


def _box(axis: Any, box: Box, name: str, kind: str, plant: bool) -> None:
    from matplotlib.patches import FancyBboxPatch

    corner = (box.x - BOX_WIDTH / 2, box.y - box.height / 2)
    axis.add_patch(
        FancyBboxPatch(
            corner, BOX_WIDTH, box.height,
            boxstyle=f"round,pad=0,rounding_size={0.25 if plant else 0.08}",
            facecolor="#e6f3ea" if plant else "#f2f5fa", edgecolor=_INK, linewidth=1.3, zorder=4,
        )
    )  # fmt: skip
    centred = {"ha": "center", "va": "center", "zorder": 5, "color": _INK}
    axis.text(box.x, box.y + 0.12, name, fontsize=10.5, fontweight="bold", **centred)
    axis.text(box.x, box.y - 0.16, kind, fontsize=8, **{**centred, "color": "#666666"})


def _line(axis: Any, line: Line, colour: str) -> None:
    style = (0, (4, 2)) if line.net.stream else "-"
    for (x0, y0), (x1, y1) in line.pieces:
        axis.plot((x0, x1), (y0, y1), color="white", linewidth=5, zorder=2, solid_capstyle="butt")
    for (x0, y0), (x1, y1) in line.pieces:
        axis.plot((x0, x1), (y0, y1), color=colour, linewidth=1.6, linestyle=style, zorder=3)
    for x, y in line.heads:
        triangle = ((x, y), (x - 0.2, y + 0.085), (x - 0.2, y - 0.085))
        axis.fill(*zip(*triangle, strict=True), color=colour, zorder=3, linewidth=0)
    for x, y in line.joints:
        axis.plot(x, y, marker="o", markersize=4.5, color=colour, zorder=3)
    for x, y in line.loose:
        axis.plot(x, y, marker="o", markersize=5, markerfacecolor="white", color=colour, zorder=3)
    x, y = line.label
    axis.text(x, y + 0.05, line.net.topic, fontsize=8.5, color=colour, va="bottom", zorder=5)
