"""Pictures of a graph: Mermaid text, PNG and SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetypilot.launch.plan import Plan

_BOX = (1.9, 0.62)  # width and height of a node
_STEP = (3.6, 1.25)  # between layers and between nodes of a layer
_COLOURS = {"latest": "#0072B2", "stream": "#8a8a8a"}


def edges(plan: Plan) -> list[tuple[str, str, str, str]]:
    """(writer, reader, topic, port) for every connection."""
    described = plan.describe()["topics"]
    return [
        (topic["writer"], reader, name, topic["port"])
        for name, topic in described.items()
        if topic["writer"]
        for reader in topic["readers"]
    ]


def mermaid(plan: Plan) -> str:
    """The graph as Mermaid: solid arrows are latest values, dotted ones streams."""
    lines = [f"%% {plan.name}: {plan.env} at {plan.rate_hz:g} Hz", "flowchart LR"]
    for node in plan.nodes:
        kind = node.node.rpartition(":")[2]
        shape = ("([", "])") if node.name == plan.plant else ("[", "]")
        lines.append(f'    {node.name}{shape[0]}"{node.name}<br/><small>{kind}</small>"{shape[1]}')
    for writer, reader, topic, port in edges(plan):
        arrow = "-->" if port == "latest" else "-.->"
        lines.append(f"    {writer} {arrow}|{topic}| {reader}")
    return "\n".join(lines) + "\n"


def draw(plan: Plan, path: Path) -> None:
    """Draws the graph into a .png or .svg file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    places = _layout(plan)
    columns = max(x for x, _ in places.values()) / _STEP[0] + 1
    rows = (max(y for _, y in places.values()) - min(y for _, y in places.values())) / _STEP[1] + 1
    figure, axis = pyplot.subplots(figsize=(2.7 * columns + 1, 1.0 * rows + 2.2))
    merged: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for writer, reader, topic, port in edges(plan):
        merged.setdefault((writer, reader), []).append((topic, port))
    for (writer, reader), topics in merged.items():
        _arrow(axis, places[writer], places[reader], topics)
    for node in plan.nodes:
        _box(axis, places[node.name], node.name, node.name == plan.plant)
    axis.set_title(f"{plan.name}: {plan.env} at {plan.rate_hz:g} Hz", fontsize=12)
    axis.set_aspect("equal")
    axis.axis("off")
    axis.margins(0.08)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    pyplot.close(figure)


def _layout(plan: Plan) -> dict[str, tuple[float, float]]:
    """Layers from the plant on, by the longest way that does not lead back to it."""
    names = [node.name for node in plan.nodes]
    forward = [
        (writer, reader)
        for writer, reader, _, port in edges(plan)
        if reader != plan.plant and port == "latest"
    ] + [(w, r) for w, r, _, port in edges(plan) if port == "stream" and w == plan.plant]
    layer = dict.fromkeys(names, 0)
    for _ in names:
        for writer, reader in forward:
            if layer[reader] <= layer[writer] < len(names):
                layer[reader] = layer[writer] + 1
    places = {}
    for depth in sorted(set(layer.values())):
        members = [name for name in names if layer[name] == depth]
        for index, name in enumerate(members):
            drop = (len(members) - 1) / 2 - index
            places[name] = (depth * _STEP[0], drop * _STEP[1])
    return places


def _box(axis: Any, place: tuple[float, float], name: str, plant: bool) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = place
    width, height = _BOX
    axis.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0.02,rounding_size=0.25" if plant else "round,pad=0.02",
            facecolor="#e8f4ec" if plant else "#f3f6fb",
            edgecolor="#333333",
            linewidth=1.3,
            zorder=3,
        )
    )
    axis.text(x, y, name, ha="center", va="center", fontsize=9.5, zorder=4)


def _arrow(
    axis: Any, start: tuple[float, float], end: tuple[float, float], topics: list[tuple[str, str]]
) -> None:
    """One arrow for all topics between two nodes; back to an earlier layer it bends below."""
    from matplotlib.patches import FancyArrowPatch

    latest = any(port == "latest" for _, port in topics)
    colour = _COLOURS["latest" if latest else "stream"]
    back, width = end[0] < start[0], _BOX[0] / 2 + 0.04
    if back:
        tail, head = (start[0], start[1] - _BOX[1] / 2), (end[0], end[1] - _BOX[1] / 2)
        bend = -0.32
    elif end[0] == start[0]:
        side = -1 if end[1] < start[1] else 1
        tail, head = (start[0], start[1] + side * 0.33), (end[0], end[1] - side * 0.33)
        bend = 0.0
    else:
        tail, head = (start[0] + width, start[1]), (end[0] - width, end[1])
        bend = 0.0 if end[0] - start[0] <= _STEP[0] or start[1] != end[1] else 0.3
    axis.add_patch(
        FancyArrowPatch(
            tail,
            head,
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=13,
            color=colour,
            linestyle="-" if latest else (0, (3, 2)),
            linewidth=1.3,
            zorder=2,
        )
    )
    depth = abs(bend) * abs(head[0] - tail[0]) / 2
    middle = 0.5 if back or bend else 0.42
    x = tail[0] + middle * (head[0] - tail[0])
    y = tail[1] + middle * (head[1] - tail[1]) + (-depth if back else depth)
    text = ", ".join(topic for topic, _ in topics)
    axis.text(x, y, text, fontsize=8, color=colour, ha="center", va="center", zorder=5,
              bbox={"facecolor": "white", "lw": 0, "pad": 1.2, "alpha": 0.9})  # fmt: skip
