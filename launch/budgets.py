"""Latency budgets of paths: how old the observation behind a message may be at the path's end.

    budgets:
      observation -> command: 4
      observation -> proposal -> risk -> command: 30

A budget counts from the plant's stamp to the moment at which the last topic of the path is sent; at
a command, what counts is the age of the data that it was decided on. Whether it can be met follows
from the periods, from the arbiter's deadline and from what each node may take: its `budget_ms`, or,
with a summary of an earlier run, what was the worst there. At run time the arbiter enforces it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import ceil
from pathlib import Path

from safetypilot.launch.checks import Check
from safetypilot.launch.loader import Place, did_you_mean, show
from safetypilot.launch.resolved import NodeSpec, TopicSpec

_ARROW = re.compile(r"\s*(?:->|→)\s*")


@dataclass(frozen=True)
class Measured:
    """The worst ages of an earlier run.

    Attributes:
        source: the file they come from.
        ages_ms: (node, its own name of an input) -> oldest observation behind a message that came.
    """

    source: str
    ages_ms: Mapping[tuple[str, str], float] = field(default_factory=dict)


def read_measured(path: Path) -> Measured:
    """The worst ages that a run's `summary.json` tells of.

    Raises:
        ValueError: it is no summary of a run in real time; says what it is instead.
    """
    file = path / "summary.json" if path.is_dir() else path
    try:
        summary = json.loads(file.read_text())
        rows = {name: row["inputs"] for name, row in summary["nodes"].items()}
        clock = summary["clock"]
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{file} is no summary of a run") from None
    if clock != "realtime":
        raise ValueError(f"{file} is of a run in {clock}, in which nothing takes any time")
    ages = {
        (node, topic): port["age_us"]["max"] / 1e3
        for node, inputs in rows.items()
        for topic, port in inputs.items()
        if port.get("age_us", {}).get("n")
    }
    return Measured(str(file), ages)


def find_measured(name: str, rate: float, runs: Path = Path("runs")) -> Measured | None:
    """The worst ages of the newest run of a launch file in real time, if there is one here."""
    files = sorted(runs.glob(f"{name}-*/summary.json"), key=lambda f: f.stat().st_mtime)
    for file in reversed(files):
        try:
            summary = json.loads(file.read_text())
            if summary["name"] == name and abs(summary["rate_hz"] - rate) < 1e-3 * rate:
                return read_measured(file)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def settle(
    check: Check, topics: tuple[TopicSpec, ...], measured: Measured | None
) -> tuple[NodeSpec, ...]:
    """Checks each budget; the nodes with the budgets that they enforce."""
    graph = _Graph(check, {topic.name: topic for topic in topics}, measured)
    nodes = {node.name: node for node in check.nodes}
    for text, limit in check.file.budgets.items():
        path = graph.path(text)
        if path is None:
            continue
        graph.verify(text, path, limit)
        enforced = graph.enforced(path)
        if enforced is not None:
            node, name = nodes[enforced[0]], enforced[1]
            least = min(limit, node.budgets_ms.get(name, limit))
            nodes[node.name] = replace(node, budgets_ms={**node.budgets_ms, name: least})
    return tuple(nodes.values())


@dataclass
class _Graph:
    check: Check
    topics: Mapping[str, TopicSpec]
    measured: Measured | None

    @property
    def period(self) -> float:
        return 1e3 / self.check.file.rate

    def node(self, name: str) -> NodeSpec:
        return next(node for node in self.check.nodes if node.name == name)

    def path(self, text: str) -> tuple[str, ...] | None:
        """The topics of a path; None, with a problem noted, if there is no such path."""
        place: Place = ("budgets", text)
        names = tuple(_ARROW.split(text.strip()))
        if len(names) < 2:
            mend = "write it as `observation -> command`, or with topics in between"
            self.check.complain(place, f"{show(text)} is no path", mend, key=True)
            return None
        for name in names:
            if name not in self.topics:
                mend = did_you_mean(name, self.topics, what="topics")
                self.check.complain(place, f"there is no topic {show(name)}", mend, key=True)
                return None
        if self.topics[names[0]].type != "observation":
            message = f"a budget counts from an observation, not from {show(names[0])}"
            self.check.complain(place, message, "begin the path with observation", key=True)
            return None
        for before, after in pairwise(names):
            writer = self.node(self.topics[after].writer)
            reads = [port.topic for port in writer.inputs]
            if before not in reads:
                message = f"{writer.name}, which writes {after}, does not read {before}"
                mend = f"it reads {', '.join(reads)}" if reads else "it reads nothing"
                self.check.complain(place, message, mend, key=True)
                return None
        return names

    def verify(self, text: str, path: tuple[str, ...], limit: float) -> None:
        """Complains if the budget cannot be met, by what is declared or by what was measured."""
        place: Place = ("budgets", text)
        took, why = self._declared(path)
        if took > limit + 1e-9:
            message = f"of a budget of {limit:g} ms, {why} {took:.4g} ms"
            mend = "raise it, or lower what takes so long"
            self.check.complain(place, message, mend)
        elif self.measured is not None:
            took, why = self._measured(path, self.measured)
            if took > limit:
                message = f"of a budget of {limit:g} ms, {why} {took:.4g} ms"
                self.check.complain(place, message, f"measured: {self.measured.source}")

    def _declared(self, path: tuple[str, ...]) -> tuple[float, str]:
        """The longest that the path may take in ms, and what takes it."""
        took, parts = 0.0, []
        *way, last = path[1:]
        for topic in way if self._decides(last) else (*way, last):
            node = self.node(self.topics[topic].writer)
            own = node.config.get("budget_ms")
            if isinstance(own, int | float) and not isinstance(own, bool) and own > 0:
                took += own
                parts.append(f"{node.name} ({own:g})")
        if not self._decides(last):
            return took, f"{' + '.join(parts)} may take"
        return self._at_use(path[-2], took)

    def _decides(self, topic: str) -> bool:
        """Whether a topic's writer decides by a deadline, with what it has."""
        writer = self.node(self.topics[topic].writer)
        return self.topics[topic].type == "command" and "deadline" in writer.config

    def _at_use(self, topic: str, came: float) -> tuple[float, str]:
        """How old the data of an arbiter's input may be when a command is decided on it, in ms.

        Args:
            topic: the input.
            came: after how many ms its messages come.
        """
        arbiter = next(n for n in self.check.nodes if any(p.name == "command" for p in n.outputs))
        deadline = float(arbiter.config["deadline"]) * self.period
        every = self.node(self.topics[topic].writer).every
        if every == 1:
            return deadline, f"{arbiter.name} may take (its deadline)"
        late = 0 if came <= deadline else ceil(came / self.period)
        held = (every - 1 + late) * self.period + deadline
        valid = float(arbiter.config.get("validity", 1.0)) * every * self.period
        why = f"{topic}, which comes with every {every}. observation, may be used at an age of"
        return min(held, valid), why

    def _measured(self, path: tuple[str, ...], measured: Measured) -> tuple[float, str]:
        """The longest that the path took in ms, and where."""
        topic = path[-1]
        if self._decides(topic) and self.topics[path[-2]].type != "observation":
            topic = path[-2]
        ages = [
            measured.ages_ms.get((node.name, port.name), 0.0)
            for node in self.check.nodes
            for port in node.inputs
            if port.topic == topic
        ]
        worst = max(ages, default=0.0)
        if topic != path[-1] and self.node(self.topics[topic].writer).every > 1:
            return self._at_use(topic, worst)
        return worst, f"{topic} came after up to"

    def enforced(self, path: tuple[str, ...]) -> tuple[str, str] | None:
        """The arbiter and its own name of the input to which the budget applies, if there is."""
        topic = path[-2] if self._decides(path[-1]) else path[-1]
        for node in self.check.nodes:
            if any(port.name == "command" for port in node.outputs):
                for port in node.inputs:
                    if port.topic == topic:
                        return node.name, port.name
        return None
