"""Several rates in one graph: a slow node answers every so many-th observation and no other.

Which ones follows from `step`, so that every episode begins with an observation that all answer.
Observations for slow nodes are thinned out where they are written: a slow node sleeps in between,
and what it has not read yet is not overwritten by an observation that it does not answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol


class Port(Protocol):
    """What must be known of an input; see node.py."""

    @property
    def topic(self) -> str: ...
    @property
    def wakes(self) -> bool: ...
    @property
    def paces(self) -> bool: ...


def is_due(message: Any, every: int) -> bool:
    """Whether a node that answers every so many-th observation answers this one."""
    return not message.step % every


def thinned(topic: str, every: int) -> str:
    """What a topic is called where only every so many-th of its messages is published."""
    return f"{topic}@{every}" if every > 1 else topic


def waking(ports: Iterable[Port], rates: Mapping[str, int]) -> set[str]:
    """The inputs that wake a node.

    A passive input does too where some that set the pace come more rarely than it, or none do.

    Args:
        ports: inputs that have a writer.
        rates: topic -> a message comes for every so many-th observation; absent: for every one.
    """
    known = tuple(ports)
    active = {port.topic for port in known if port.wakes}
    if not rates:
        return active
    pace = [rates.get(port.topic, 1) for port in known if port.wakes and port.paces]
    rarest = max(pace, default=max(rates.values()) + 1)
    return active | {port.topic for port in known if rates.get(port.topic, 1) < rarest}
