"""The four-hop graph as Ray actors that call one another; nothing waits for an answer."""

from __future__ import annotations

import os
import sys
from queue import Empty, SimpleQueue
from typing import Any

from safetypilot.launch.bench import contest, schedule
from safetypilot.launch.bench.course import HOPS, Course
from safetypilot.launch.bench.frames import work
from safetypilot.launch.bench.plant import GraphError
from safetypilot.launch.children import environment

# Ray queues every call and has no "only the newest"; beyond so many unanswered observations the
# plant keeps the next to itself, or the figures would be those of an ever longer queue.
_MOST_IN_FLIGHT = 2
_SWITCHED_OFF = ("RAY_USAGE_STATS_ENABLED", "RAY_ENABLE_METRICS_COLLECTION")
_SWITCHED = {"RAY_AUTH_MODE": "disabled", "RAY_DISABLE_MEMORY_MONITOR": "1"}
_STORE_BYTES = 80 * 2**20  # the smallest object store; frames are passed inside the calls


class HopActor:
    """A hop: does its work and calls the next one."""

    def __init__(self, path: str, role: str, following: Any) -> None:
        course = Course.read(path)
        schedule.apply(course.schedule, schedule.all_threads())
        self._do = work(role, course)
        self._following = following

    def take(self, frame: bytes) -> None:
        self._following.take.remote(self._do(frame))


class PlantActor:
    """The plant: flies in one of its threads while the other takes in commands."""

    def __init__(self, path: str) -> None:
        self._course = Course.read(path)
        self._received: SimpleQueue[bytes] = SimpleQueue()
        self._following: Any = None
        self._in_flight = 0

    def take(self, frame: bytes) -> None:
        self._in_flight -= 1
        self._received.put(frame)

    def fly(self, following: Any) -> str:
        """Flies the course; returns what went wrong, or nothing."""
        schedule.apply(self._course.schedule, schedule.all_threads())
        self._following = following
        try:
            contest.fly(self._course, self)
        except GraphError as error:
            return str(error)
        return ""

    def send(self, frame: bytes) -> None:
        if self._in_flight < _MOST_IN_FLIGHT:
            self._in_flight += 1
            self._following.take.remote(frame)

    def receive(self, timeout_s: float) -> bytes | None:
        try:
            return self._received.get(timeout=timeout_s)
        except Empty:
            return None

    def close(self) -> None:
        """Ray ends its actors."""


def start(course: Course) -> Any:
    """Ray on this host's loopback, with no dashboard and no reports home."""
    os.environ |= environment() | dict.fromkeys(_SWITCHED_OFF, "0") | _SWITCHED
    import ray

    ray.init(
        address="local", num_cpus=len(HOPS) + 1, include_dashboard=False, log_to_driver=False,
        _node_ip_address="127.0.0.1", object_store_memory=_STORE_BYTES,
        configure_logging=False, _temp_dir=os.path.join(course.folder, "r"),
    )  # fmt: skip
    return ray


def main() -> None:
    schedule.die_with_parent()
    course = Course.read(sys.argv[1])
    with contest.reasons(course):
        contest.isolate("Ray")
        ray = start(course)
        path = str(course.path)
        following = plant = ray.remote(max_concurrency=2)(PlantActor).remote(path)
        for role in reversed(HOPS):
            following = ray.remote(HopActor).remote(path, role, following)
        reason = ray.get(plant.fly.remote(following))
        ray.shutdown()
        if reason:
            raise GraphError(reason)
    contest.leave()


if __name__ == "__main__":
    main()
