"""The clocks a node can live on. A node only ever reads `now_ns()`."""

from __future__ import annotations

from time import monotonic_ns
from typing import Protocol


class Clock(Protocol):
    def now_ns(self) -> int: ...


class RealClock:
    """CLOCK_MONOTONIC, ns: one clock for all processes of a host."""

    now_ns = staticmethod(monotonic_ns)


class VirtualClock:
    """Time that the lockstep scheduler moves; it stands still while a node works."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        return self._now_ns

    def advance_to(self, time_ns: int) -> None:
        """Moves time forward; never back."""
        self._now_ns = max(self._now_ns, time_ns)
