"""Many taps on one thread: for those who want to see everything and may hold up nothing."""

from __future__ import annotations

from collections.abc import Iterable

import zmq

from safetypilot.nodes.kernel.transport import NOBLOCK, Endpoints, has_frame

_BATCH = 1000  # frames taken of one topic in one go, so that none can keep the others waiting


class Taps:
    """Observers of several topics: see what passes, and can never hold up the writers.

    What passes while nobody takes it is kept up to a bound; beyond it the newest are lost, which
    shows as gaps in the sequence numbers.

    Args:
        topics: by the graph's names.
        keep: frames kept per topic.
    """

    def __init__(self, endpoints: Endpoints, topics: Iterable[str], keep: int = 10_000) -> None:
        self._context = zmq.Context(1)
        self._sockets = {}
        for topic in topics:
            socket = self._context.socket(zmq.SUB)
            for option, value in (
                (zmq.LINGER, 0),
                (zmq.RCVHWM, keep),
                (zmq.MAXMSGSIZE, 16 * 2**20),
                (zmq.RECONNECT_IVL, 50),
            ):
                socket.setsockopt(option, value)
            socket.subscribe(b"")
            socket.connect(endpoints.topic(topic))
            self._sockets[topic] = socket

    def take(self) -> list[tuple[str, bytes]]:
        """(topic, frame) of all that is here now, in order within a topic; never waits."""
        taken = []
        for topic, socket in self._sockets.items():
            for _ in range(_BATCH):
                if not has_frame(socket):
                    break
                taken.append((topic, socket.recv(NOBLOCK)))
        return taken

    def close(self) -> None:
        self._context.destroy(0)
