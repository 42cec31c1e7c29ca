"""One hop of bare pyzmq, PUSH to PULL over ipc: what the throughput of a stream is measured by."""

from __future__ import annotations

from typing import Any

import zmq

from safetypilot.launch.bench.course import Course


class Sender:
    """Blocks while the pipe is full."""

    def __init__(self, course: Course, pipe: int) -> None:
        self._context: zmq.Context[Any] = zmq.Context(1)
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.set_hwm(pipe)
        self._socket.bind(f"ipc://{course.folder}/bare")
        self.send = self._socket.send


class Receiver:
    """Takes what there is."""

    def __init__(self, course: Course, pipe: int) -> None:
        self._context: zmq.Context[Any] = zmq.Context(1)
        self._socket = self._context.socket(zmq.PULL)
        self._socket.set_hwm(pipe)
        self._socket.setsockopt(zmq.RCVTIMEO, 1000)
        self._socket.connect(f"ipc://{course.folder}/bare")

    def receive(self) -> bytes | None:
        """The next frame, or None after a second without one."""
        try:
            return self._socket.recv()
        except zmq.Again:
            return None
