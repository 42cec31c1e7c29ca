"""The four-hop graph on eclipse-zenoh: peer to peer over loopback, no scouting, no router."""

from __future__ import annotations

import json
import threading
from queue import Empty, SimpleQueue
from typing import Any

from safetypilot.launch.bench import contest
from safetypilot.launch.bench.course import HOPS, Course
from safetypilot.launch.bench.frames import TOPIC_OF, Work

MODULE = "safetypilot.launch.bench.peers.zenoh"
_ORDER = ("plant", *HOPS)


def open_session(course: Course, role: str) -> Any:
    """A session that listens on its own loopback port and knows the others'."""
    import zenoh

    number = _ORDER.index(role)
    ends = [f"tcp/127.0.0.1:{port}" for port in course.ports[: len(_ORDER)]]
    settings = {
        "mode": "peer",
        "listen/endpoints": [ends[number]],
        "connect/endpoints": ends[:number],
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": False,
        "transport/unicast/lowlatency": True,
        "transport/unicast/qos/enabled": False,
        "transport/shared_memory/enabled": False,
    }
    config = zenoh.Config()
    for key, value in settings.items():
        config.insert_json5(key, json.dumps(value))
    return zenoh.open(config)


def publisher(session: Any, role: str) -> Any:
    """What a process writes; express: sent at once instead of gathered."""
    import zenoh

    return session.declare_publisher(
        f"bench/{TOPIC_OF[role]}",
        express=True,
        congestion_control=zenoh.CongestionControl.DROP,
        priority=zenoh.Priority.REAL_TIME,
    )


def listen(session: Any, role: str, take: Any) -> Any:
    """Calls `take(bytes)` in the thread that received them, which is the shortest way."""
    import zenoh

    before = _ORDER[_ORDER.index(role) - 1]
    callback: Any = zenoh.handlers.Callback(
        lambda sample: take(bytes(sample.payload)), indirect=False
    )
    return session.declare_subscriber(f"bench/{TOPIC_OF[before]}", callback)


class Ends:
    """The plant's publisher and subscriber."""

    def __init__(self, course: Course) -> None:
        self._session = open_session(course, "plant")
        self._received: SimpleQueue[bytes] = SimpleQueue()
        self._subscriber = listen(self._session, "plant", self._received.put)
        self._publisher = publisher(self._session, "plant")

    def send(self, frame: bytes) -> None:
        self._publisher.put(frame)

    def receive(self, timeout_s: float) -> bytes | None:
        try:
            return self._received.get(timeout=timeout_s)
        except Empty:
            return None

    def close(self) -> None:
        self._session.close()


def hop(course: Course, role: str, do: Work) -> None:
    session = open_session(course, role)
    put = publisher(session, role).put
    subscriber = listen(session, role, lambda frame: put(do(frame)))
    threading.Event().wait()
    subscriber.undeclare()


if __name__ == "__main__":
    contest.main(MODULE, Ends, hop)
