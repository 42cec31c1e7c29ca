"""Two answers to the same question, recorded and replayed: where they differ, and by how much."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from safetypilot.policies.shield import Reason, Source

TOLERANCE = 1e-6
# topic table's row -> the field of numbers that is compared
_VALUES = {"proposal": "action", "risk": "risk", "recovery": "plan", "command": "action"}
_COMPARED = (*_VALUES, "decision")
_LEFT_OUT = (Reason.NOT_ARMED, Reason.ESTOP)  # a recording says neither who armed nor who stopped


@dataclass
class _Topic:
    kind: str
    recorded: dict[int, Any] = field(default_factory=dict)  # by seq, until its counterpart comes
    replayed: dict[int, Any] = field(default_factory=dict)
    compared: int = 0
    differ: int = 0
    left_out: int = 0
    largest: float = 0.0
    first: dict[str, Any] | None = None
    changes: Counter[str] = field(default_factory=Counter)


class Comparison:
    """Pairs answers by the observation they derive from.

    Args:
        topics: graph topic -> its row in the topic table; those of no interest are ignored.
    """

    def __init__(self, topics: dict[str, str]) -> None:
        self._topics = {name: _Topic(kind) for name, kind in topics.items() if kind in _COMPARED}
        self._begin_ns: int | None = None

    def recorded(self, topic: str, message: Any) -> None:
        """Takes in a recorded answer."""
        if topic in self._topics:
            entry = self._topics[topic]
            self._pair(entry, message.seq, message, entry.replayed.pop(message.seq, None))

    def replayed(self, topic: str, message: Any) -> None:
        """Takes in an answer of a node that ran."""
        if topic in self._topics:
            entry = self._topics[topic]
            self._pair(entry, message.seq, entry.recorded.pop(message.seq, None), message)

    def _pair(self, entry: _Topic, seq: int, recorded: Any, replayed: Any) -> None:
        if recorded is None:
            entry.replayed[seq] = replayed
            return
        if self._begin_ns is None:
            self._begin_ns = recorded.stamp_ns
        if replayed is None:
            entry.recorded[seq] = recorded
            return
        if _left_out(recorded) or _left_out(replayed):
            entry.left_out += 1
            return
        entry.compared += 1
        before, after, distance = _facts(entry.kind, recorded, replayed)
        entry.largest = max(entry.largest, distance)
        if before == after and distance <= TOLERANCE:
            return
        entry.differ += 1
        entry.changes[f"{before} -> {after}" if before != after else f"another {before}"] += 1
        if entry.first is None or seq < entry.first["seq"]:
            at_s = (recorded.stamp_ns - self._begin_ns) / 1e9
            entry.first = {"seq": seq, "at_s": round(at_s, 6),
                           "recorded": _shown(entry.kind, before, recorded),
                           "replayed": _shown(entry.kind, after, replayed)}  # fmt: skip

    def figures(self) -> dict[str, dict[str, Any]]:
        """By topic: how many were compared, how many differ and how, and the first that does."""
        return {
            name: {
                "compared": entry.compared,
                "differ": entry.differ,
                "left_out": entry.left_out,
                "only_recorded": len(entry.recorded),
                "only_replayed": len(entry.replayed),
                "largest_difference": entry.largest,
                "changes": dict(entry.changes.most_common()),
                "first": entry.first,
            }
            for name, entry in self._topics.items()
        }


def _left_out(message: Any) -> bool:
    return getattr(message, "reason", None) in _LEFT_OUT


def _facts(kind: str, recorded: Any, replayed: Any) -> tuple[str, str, float]:
    """What is said in words, by both, and how far their numbers are apart."""
    distance = 0.0
    if kind in _VALUES:
        one, other = (np.asarray(getattr(m, _VALUES[kind]), float) for m in (recorded, replayed))
        if one.shape == other.shape:  # else the words differ
            distance = float(np.abs(one - other).max(initial=0))
    return _words(kind, recorded), _words(kind, replayed), distance


def _words(kind: str, message: Any) -> str:
    if kind == "command":
        return _named(Source, message.source)
    if kind == "decision":
        return f"{_named(Source, message.source)} ({_named(Reason, message.reason)})"
    return f"plan of {len(message.plan)}" if kind == "recovery" else kind


def _named(enumeration: type[Source] | type[Reason], value: int) -> str:
    try:
        return enumeration(value).name
    except ValueError:
        return str(value)


def _shown(kind: str, words: str, message: Any) -> str:
    if kind == "decision":
        return f"{words}, risk {message.risk:.4g}, eps {message.eps:.4g}"
    values = np.asarray(getattr(message, _VALUES[kind])).ravel()[:6]
    return f"{words} [{', '.join(f'{value:.4g}' for value in values)}]"
