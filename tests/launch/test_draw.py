"""Drawings: every topic reaches its readers, and no line crosses a box or lies on another."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.launch import draw
from safetypilot.launch.graph import load
from safetypilot.launch.layout import BOX_WIDTH, Drawing, Net, arrange, columns
from safetypilot.launch.plan import Plan


def plan() -> Plan:
    return load("maze", ["learner=on"], check_files=False).plan()


def test_mermaid() -> None:
    text = draw.mermaid(plan())
    assert text.startswith("%% maze: safetypilot/Maze-v0 at 50 Hz\nflowchart LR\n")
    assert '    simulator(["simulator<br/><small>Simulator</small>"])' in text
    assert "    arbiter -->|command| simulator\n" in text
    assert "    simulator -.->|transition| learner\n" in text


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_pictures(tmp_path: Path, suffix: str, start: bytes) -> None:
    pictures = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in pictures:
        draw.draw(plan(), path)
    first, second = (path.read_bytes() for path in pictures)
    assert first.startswith(start)
    assert first == second
    if suffix == ".svg":
        assert all(word.encode() in first for word in ("recovery_planner", "observation", "50 Hz"))


def test_columns_follow_a_step() -> None:
    made = plan()
    assert columns([n.name for n in made.nodes], draw.nets(made), made.plant) == {
        "simulator": 0, "task_policy": 1, "recovery_planner": 1, "learner": 1,
        "safety_critic": 2, "arbiter": 3,
    }  # fmt: skip


def check(drawing: Drawing, nets: list[Net]) -> None:
    """What a reader of the picture relies on."""
    edges: list[tuple[str, bool, float, float, float]] = []
    for line, net in zip(drawing.lines, nets, strict=True):
        assert sorted(x for x, _ in line.heads) == sorted(
            drawing.boxes[reader].x - BOX_WIDTH / 2 for reader in net.readers
        )
        for (x0, y0), (x1, y1) in line.pieces:
            assert x0 == x1 or y0 == y1
            for box in drawing.boxes.values():
                inside_x = min(x0, x1) < box.x + BOX_WIDTH / 2 - 1e-9 and (
                    max(x0, x1) > box.x - BOX_WIDTH / 2 + 1e-9
                )
                inside_y = min(y0, y1) < box.y + box.height / 2 - 1e-9 and (
                    max(y0, y1) > box.y - box.height / 2 + 1e-9
                )
                assert not (inside_x and inside_y), (net, (x0, y0), (x1, y1), box)
            if x0 == x1 and y0 != y1:
                edges.append((net.topic, True, x0, min(y0, y1), max(y0, y1)))
    for i, (topic, _, x, low, high) in enumerate(edges):
        for other, _, there, bottom, top in edges[i + 1 :]:
            apart = topic == other or x != there or high <= bottom or top <= low
            assert apart, f"{topic} lies on {other}"


def test_the_maze() -> None:
    made = plan()
    nets = draw.nets(made)
    drawing = arrange([node.name for node in made.nodes], nets, made.plant)
    check(drawing, nets)
    loose = {line.net.topic for line in drawing.lines if line.loose}
    assert loose == {"episode", "decision"}


NODES = [f"node_{i}" for i in range(6)]


@st.composite
def graphs(strategy: st.DrawFn) -> tuple[list[str], list[Net]]:
    names = NODES[: strategy(st.integers(1, 6))]
    readers = st.lists(st.sampled_from(names), unique=True, max_size=6).map(tuple)
    count = strategy(st.integers(0, 8))
    nets = [
        Net(
            f"topic_{i}",
            strategy(st.sampled_from(names)),
            strategy(readers),
            strategy(st.booleans()),
        )
        for i in range(count)
    ]
    return names, nets


@settings(max_examples=60, deadline=None)
@given(graphs(), st.booleans())
def test_any_graph(graph: tuple[list[str], list[Net]], has_plant: bool) -> None:
    names, nets = graph
    check(arrange(names, nets, names[0] if has_plant else None), nets)
