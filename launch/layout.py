"""Where the parts of a drawn graph go: nodes in columns, one line per topic along free tracks.

Columns run left to right along the way of a step. A topic leaves its writer on the right, turns in
the channel between two columns on a track of its own, passes further columns in a gap kept free for
it, and enters its readers on the left. What goes back runs below everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import NamedTuple

BOX_WIDTH = 2.1
_PORT = 0.36  # between two lines at the same node
_LABEL = 0.115  # width of a character of a label
_TRACK = 0.26  # between two lines in a channel
_GAP = 0.42  # between two things in a column
_MOST_TRIED = 6  # lines in a channel whose every order is tried

Point = tuple[float, float]


class Net(NamedTuple):
    """A topic, from its writer to its readers."""

    topic: str
    writer: str
    readers: tuple[str, ...]
    stream: bool = False


class Box(NamedTuple):
    """Where a node stands: its centre and its height."""

    x: float
    y: float
    height: float


@dataclass
class Line:
    """A drawn topic: straight pieces, arrow heads, branching points and the label's corner."""

    net: Net
    label: Point = (0.0, 0.0)
    pieces: list[tuple[Point, Point]] = field(default_factory=list)
    heads: list[Point] = field(default_factory=list)  # pointing right
    joints: list[Point] = field(default_factory=list)
    loose: list[Point] = field(default_factory=list)  # the ends of what nobody in the graph reads


@dataclass
class Drawing:
    """Everything's place; y grows upwards."""

    boxes: dict[str, Box]
    lines: list[Line]

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top."""
        points = [point for line in self.lines for piece in line.pieces for point in piece]
        points += [(box.x + s * BOX_WIDTH / 2, box.y + s * box.height / 2)
                   for box in self.boxes.values() for s in (-1, 1)]  # fmt: skip
        xs, ys = [x for x, _ in points], [y for _, y in points]
        return min(xs), max(xs), min(ys), max(ys)


def arrange(nodes: Sequence[str], nets: Sequence[Net], first: str | None) -> Drawing:
    """Places nodes and lines; `first` (the plant) stands leftmost, what leads to it goes back."""
    return _Layout(nodes, nets, first).drawing()


def columns(nodes: Iterable[str], nets: Iterable[Net], first: str | None) -> dict[str, int]:
    """Each node's column: the longest way from the plant, over values before streams."""
    names = list(nodes)
    column = dict.fromkeys(names, 0)
    ways = [
        (net.writer, reader)
        for net in nets
        for reader in net.readers
        if reader != first and net.writer != reader and (not net.stream or net.writer == first)
    ]
    for _ in names:  # a circle of values without the plant ends here too
        for writer, reader in ways:
            if column[reader] <= column[writer] < len(names) - 1:
                column[reader] = column[writer] + 1
    used = sorted(set(column.values()))
    return {name: used.index(column[name]) for name in names}


class _Layout:
    def __init__(self, nodes: Sequence[str], nets: Sequence[Net], first: str | None) -> None:
        self.nets = list(nets)
        self.column = columns(nodes, nets, first)
        self.count = max(self.column.values(), default=0) + 1
        self.boxes: dict[str, Box] = {}
        self.passing: dict[tuple[str, int], float] = {}  # topic, column -> y of its free gap
        self.ports: dict[tuple[str, str, bool], float] = {}  # node, topic, out -> y
        self.rank: dict[str, float] = {name: i for i, name in enumerate(nodes)}

    def ahead(self, net: Net) -> list[str]:
        here = self.column[net.writer]
        return [reader for reader in net.readers if self.column[reader] > here]

    def back(self, net: Net) -> list[str]:
        here = self.column[net.writer]
        return [reader for reader in net.readers if self.column[reader] <= here]

    def span(self, net: Net) -> int:
        """How far a line goes back, in columns; the farthest runs lowest."""
        return self.column[net.writer] - min([self.column[r] for r in net.readers], default=0)

    def drawing(self) -> Drawing:
        self.stack()
        self.place_ports()
        entries = [self.entries(channel) for channel in range(-1, self.count)]
        tracks = [self.order(entry) for entry in entries]
        self.place_columns(tracks)
        return Drawing(self.boxes, [self.line(net, tracks) for net in self.nets])

    def stack(self) -> None:
        """Vertical places: each column's nodes and free gaps, top to bottom, centred."""
        for column in range(self.count):
            things: list[tuple[float, str, float]] = []
            for name in (n for n, c in self.column.items() if c == column):
                ends = [sum(n.writer == name for n in self.nets)]
                ends.append(sum(name in n.readers for n in self.nets))
                things.append((self.rank[name], name, max(0.78, max(ends) * _PORT + 0.2)))
            for net in self.nets:
                reach = max([self.column[reader] for reader in self.ahead(net)], default=0)
                if self.column[net.writer] < column < reach:
                    things.append((self.rank[net.writer] - 0.5, f"\0{net.topic}", 0.05))
            things.sort()
            y = sum(height + _GAP for *_, height in things) / 2
            for _, name, height in things:
                centre = y - (height + _GAP) / 2
                y -= height + _GAP
                if name.startswith("\0"):
                    self.passing[name[1:], column] = centre
                else:
                    self.boxes[name] = Box(0.0, centre, height)

    def place_ports(self) -> None:
        """Where each line meets its nodes: in the order of where it comes from or goes to."""

        def leaves(net: Net) -> float:
            readers = self.ahead(net)
            if not readers:
                return float("-inf")
            gap = self.passing.get((net.topic, self.column[net.writer] + 1))
            ends = [self.boxes[reader].y for reader in readers]
            return gap if gap is not None else sum(ends) / len(ends)

        def comes(net: Net, name: str) -> float:
            if name not in self.ahead(net):
                return float("-inf")
            gap = self.passing.get((net.topic, self.column[name] - 1))
            return gap if gap is not None else self.boxes[net.writer].y

        for name, box in self.boxes.items():
            out = sorted((n for n in self.nets if n.writer == name), key=leaves, reverse=True)
            into = sorted(
                (n for n in self.nets if name in n.readers),
                key=lambda n: comes(n, name),
                reverse=True,
            )
            for nets, is_out in ((out, True), (into, False)):
                for i, net in enumerate(nets):
                    y = box.y + ((len(nets) - 1) / 2 - i) * _PORT
                    self.ports[name, net.topic, is_out] = y

    def entries(self, channel: int) -> dict[str, tuple[float | None, list[float]]]:
        """The lines that turn in a channel: where each enters from the left, and leaves right.

        Channel c is right of column c; -1 is left of everything. None enters from below.
        """
        found: dict[str, tuple[float | None, list[float]]] = {}
        for net in self.nets:
            start, topic = self.column[net.writer], net.topic
            ahead, back = self.ahead(net), self.back(net)
            below = any(self.column[reader] == channel + 1 for reader in back)
            exits = [
                self.ports[reader, topic, False]
                for reader in net.readers
                if self.column[reader] == channel + 1
            ]
            if (gap := self.passing.get((topic, channel + 1))) is not None:
                exits.append(gap)
            if not net.readers:
                continue
            if channel == start:
                found[topic] = self.ports[net.writer, topic, True], exits
            elif channel > start and any(self.column[r] > channel for r in ahead):
                found[topic] = self.passing[topic, channel], exits
            elif below:
                found[topic] = None, exits
        return found

    def order(self, entry: dict[str, tuple[float | None, list[float]]]) -> list[str]:
        """Tracks of a channel, left to right, with the fewest crossings."""
        floor = self.floor()
        spans = {}
        for topic, (start, exits) in entry.items():
            net = next(net for net in self.nets if net.topic == topic)
            ys = [y for y in (start, *exits) if y is not None]
            if start is None or (exits == [] and net.readers) or self.back(net):
                ys.append(floor)
            spans[topic] = min(ys), max(ys)

        def crossings(order: Iterable[str]) -> int:
            tracks = tuple(order)
            total = 0
            for i, left in enumerate(tracks):
                for right in tracks[i + 1 :]:
                    start, exits = entry[right][0], entry[left][1]
                    low, high = spans[left]
                    total += start is not None and low <= start <= high
                    low, high = spans[right]
                    total += sum(low <= y <= high for y in exits)
            return total

        names = sorted(entry, key=lambda topic: -(entry[topic][0] or floor))
        if len(names) > _MOST_TRIED:
            return names
        return list(min(permutations(names), key=crossings))

    def floor(self) -> float:
        return min(box.y - box.height / 2 for box in self.boxes.values()) - 0.4

    def place_columns(self, tracks: list[list[str]]) -> None:
        """Horizontal places: channels as wide as their labels and tracks need."""
        self.track_x: dict[tuple[int, str], float] = {}
        x = 0.0
        for channel in range(-1, self.count):
            names = tracks[channel + 1]
            starting = [n.topic for n in self.nets if self.column[n.writer] == channel]
            x += max((len(topic) * _LABEL + 0.3 for topic in starting), default=0.3)
            for name in names:
                self.track_x[channel, name] = x
                x += _TRACK
            x += 0.35
            for name in (n for n, c in self.column.items() if c == channel + 1):
                self.boxes[name] = self.boxes[name]._replace(x=x + BOX_WIDTH / 2)
            x += BOX_WIDTH

    def line(self, net: Net, tracks: list[list[str]]) -> Line:
        """The pieces of one topic, channel by channel."""
        line, topic = Line(net), net.topic
        start, back = self.column[net.writer], self.back(net)
        lanes = [n.topic for n in sorted(self.nets, key=self.span) if self.back(n)]
        lane = self.floor() - 0.3 * lanes.index(topic) if back else 0.0
        edge, y = self.boxes[net.writer].x + BOX_WIDTH / 2, self.ports[net.writer, topic, True]
        line.label = edge + 0.1, y
        if not net.readers:
            end = (edge + len(topic) * _LABEL + 0.2, y)
            line.pieces.append(((edge, y), end))
            line.loose.append(end)
            return line
        turns: list[float] = []
        for channel, names in enumerate(tracks, start=-1):
            if topic not in names:
                continue
            x = self.track_x[channel, topic]
            entry, exits = self.entries(channel)[topic]
            ys = list(exits)
            if entry is not None:
                ys.append(entry)
                line.pieces.append(((edge, entry), (x, entry)))
            if back and (channel == start or entry is None):
                ys.append(lane)
                turns.append(x)
            line.pieces.append(((x, min(ys)), (x, max(ys))))
            inner = [v for v in ys if min(ys) < v < max(ys)]
            line.joints += [(x, v) for v in inner]
            self.leave(line, x, channel + 1)
            gap = self.passing.get((topic, channel + 1))
            if gap is not None:
                edge = x  # the next channel's piece starts at this turn
        if back:
            line.pieces.append(((min(turns), lane), (max(turns), lane)))
            line.joints += [(x, lane) for x in sorted(turns)[1:-1]]
        return line

    def leave(self, line: Line, x: float, column: int) -> None:
        """From a turn into the readers of the next column."""
        for reader in line.net.readers:
            if self.column[reader] == column:
                y = self.ports[reader, line.net.topic, False]
                end = (self.boxes[reader].x - BOX_WIDTH / 2, y)
                line.pieces.append(((x, y), end))
                line.heads.append(end)
