"""Puts a simulated quadruped somewhere, which no robot lets you."""

from __future__ import annotations

from time import monotonic_ns

from safetypilot.bridge.contract import DriverError, Vector
from safetypilot.bridge.protocols.dds import Writer
from safetypilot.bridge.protocols.unitree_link import Link
from safetypilot.bridge.protocols.unitree_place import Place, pack_place

_PATIENCE_NS, _AGAIN_NS, _TICK_NS = 2_000_000_000, 20_000_000, 2_000_000


class Placer:
    """See bridge/contract.py: Placeable."""

    def __init__(self, link: Link, count: int) -> None:
        self._link, self._count = link, count
        self._writer: Writer | None = None

    def place(self, position: Vector, damping: bytes) -> None:
        """At rest at that position.

        Args:
            damping: a command that keeps it obedient meanwhile; empty: it obeys nobody.

        Raises:
            DriverError: it does not go there.
        """
        if len(position) != self._count:
            raise DriverError(f"placed at {position}; there are {self._count} joints")
        if self._writer is None:
            self._writer = self._link.placer()
        number = (self._link.newest.placed + 1) % (1 << 32) or 1
        sample = pack_place(Place(number, position))
        now_ns = again_ns = monotonic_ns()
        end_ns = now_ns + _PATIENCE_NS
        while self._link.newest.placed != number:
            if now_ns > end_ns:
                raise DriverError(
                    f"the robot was not placed at {position}: it is no simulated quadruped of "
                    "ours, or a joint would be beyond its end"
                )
            if now_ns >= again_ns:  # it may not know us yet
                self._writer.write(sample)
                again_ns = now_ns + _AGAIN_NS
            if damping:
                self._link.send(damping)
            self._link.receive(now_ns + _TICK_NS)
            now_ns = monotonic_ns()

    def forget(self) -> None:
        """The link was closed."""
        self._writer = None
