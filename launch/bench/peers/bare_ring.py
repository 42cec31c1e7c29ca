"""The floor: four processes in a ring of PAIR sockets, and nothing but pyzmq between them."""

from __future__ import annotations

import os
from math import ceil
from typing import Any

import zmq
from zmq.backend import zmq_poll

from safetypilot.launch.bench import contest
from safetypilot.launch.bench.course import HOPS, Course
from safetypilot.launch.bench.frames import Work

MODULE = "safetypilot.launch.bench.peers.bare_ring"


class Ring:
    """One process's two sockets; hop number 0 is the plant."""

    def __init__(self, course: Course, number: int) -> None:
        self._context: zmq.Context[Any] = zmq.Context(1)
        if course.schedule.get("policy") == "fifo":  # as the stack has it: above its own process
            self._context.set(zmq.THREAD_SCHED_POLICY, os.SCHED_FIFO)
            self._context.set(zmq.THREAD_PRIORITY, int(course.schedule["priority"]) + 1)
        self._out = self._context.socket(zmq.PAIR)
        self._out.bind(f"ipc://{course.folder}/{number}")
        self._in = self._context.socket(zmq.PAIR)
        self._in.connect(f"ipc://{course.folder}/{(number or len(HOPS) + 1) - 1}")
        self._polled = [(self._in, zmq.POLLIN)]

    def send(self, frame: bytes) -> None:
        self._out.send(frame)

    def receive(self, timeout_s: float) -> bytes | None:
        if zmq_poll(self._polled, ceil(timeout_s * 1e3)):
            return self._in.recv(zmq.NOBLOCK)
        return None

    def close(self) -> None:
        self._context.destroy(0)


def plug(course: Course) -> Ring:
    return Ring(course, 0)


def hop(course: Course, role: str, do: Work) -> None:
    contest.serve(Ring(course, 1 + HOPS.index(role)), do)


if __name__ == "__main__":
    contest.main(MODULE, plug, hop, network=False)
