"""Two links on a bench, over real sockets: each in its executor, turned by a thread of its own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from safetypilot.nodes.kernel import board, link_sockets, messages
from safetypilot.nodes.kernel.link import Link, shaped
from safetypilot.nodes.kernel.link_config import LinkConfig
from safetypilot.nodes.kernel.node import Spec
from safetypilot.nodes.kernel.ports import StreamReader, StreamWriter
from safetypilot.nodes.kernel.realtime import RealtimeExecutor
from safetypilot.nodes.kernel.testing import INTERFACE
from safetypilot.nodes.kernel.transport import Endpoints, Inbox, open_context
from safetypilot.nodes.kernel.wire import codecs

Topics = tuple[str, ...]
CODECS = codecs(INTERFACE.dims)
OUT, BACK, STREAMS = ("observation",), ("proposal", "risk"), ("transition", "episode")
PERIOD_NS = 20_000_000


def eventually(condition: Callable[[], Any], within_s: float = 15.0, what: str = "it") -> Any:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.002)
    raise AssertionError(f"{what} did not come about within {within_s:g} s")


def observation(seq: int, stamp_ns: int | None = None) -> messages.Observation:
    stamp_ns = time.monotonic_ns() if stamp_ns is None else stamp_ns
    return messages.Observation(seq, stamp_ns, stamp_ns, 0, seq, np.array([seq, 0], np.float32))


def proposal(seen: messages.Observation) -> messages.Proposal:
    now = time.monotonic_ns()
    action = np.zeros(2, np.float32)
    return messages.Proposal(seen.seq, seen.stamp_ns, now, seen.seq, action, "m", now)


class Side:
    """One host: its link, and the boards by which a node would write to it and read from it."""

    def __init__(self, root: Path, config: LinkConfig, period_ns: int = PERIOD_NS) -> None:
        self.endpoints = Endpoints(root)
        self.endpoints.make()
        self.inbox = Inbox(self.endpoints)
        self._fds: dict[str, int] = {}
        self._bell, self.bell = board.create_bell(), board.create_bell()
        values = [t for t in (*config.sends, *config.receives) if t not in STREAMS]
        for topic in values:
            self._fds[topic] = board.create(topic, 1 << 16)
        streams = {t: ["reader"] for t in config.receives if t in STREAMS}
        spec = Spec(
            "link", "x:y", {}, INTERFACE.to_dict(), period_ns, 0, str(root), str(root),
            readers=streams, boards=self._fds, places=dict.fromkeys(config.sends, 0),
            bells={topic: [self.bell] for topic in config.receives}, bell=self._bell,
        )  # fmt: skip
        shape = shaped({"sends": config.sends, "receives": config.receives})
        self._writers = {
            topic: board.BoardWriter(self._fds[topic], [self._bell])
            for topic in config.sends
            if topic in self._fds
        }
        self._readers = {
            topic: board.BoardReader(self._fds[topic], 0, True)
            for topic in config.receives
            if topic in self._fds
        }
        self._zmq = open_context()
        self.streams = {
            topic: StreamWriter(self._zmq, self.endpoints, topic, ["link"])
            for topic in config.sends
            if topic in STREAMS
        }
        self._stream_readers = {
            topic: StreamReader(self._zmq, self.endpoints.stream(topic, "reader"))
            for topic in config.receives
            if topic in STREAMS
        }
        self.events: list[dict[str, Any]] = []
        self.executor = RealtimeExecutor([(shape, spec, config)])
        self.link: Link = self.executor.stations[0].node  # type: ignore[assignment]
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> Side:
        self.link.configure()
        self.executor.stations[0]._answer("activate", {})
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def _run(self) -> None:
        while not self._stop.is_set():
            self.executor.turn()

    def write(self, topic: str, message: Any) -> None:
        self._writers[topic].write(CODECS[type(message)].encode(message))

    def read(self, topic: str, within_s: float = 5.0) -> Any:
        """The next message of a topic."""
        frame = eventually(self._readers[topic].receive, within_s, topic)
        return CODECS[{"observation": messages.Observation, "proposal": messages.Proposal,
                       "risk": messages.Risk}[topic]].decode(frame)  # fmt: skip

    def read_stream(self, topic: str) -> list[bytes]:
        """All frames of a stream that are here."""
        frames = []
        while (frame := self._stream_readers[topic].receive()) is not None:
            frames.append(frame)
        return frames

    def peek(self, topic: str) -> Any:
        frame = self._readers[topic].receive()
        return None if frame is None else CODECS[messages.Observation].decode(frame)

    @property
    def status(self) -> dict[str, Any]:
        return self.link.status()

    def heard(self, kind: str) -> dict[str, Any] | None:
        """The first event of a kind."""
        reports, _ = self.inbox.receive(0.0)
        self.events += [data for _, what, data in reports if what == "event"]
        return next((event for event in self.events if event["kind"] == kind), None)

    def freeze(self) -> None:
        """Its process does nothing any more, as after SIGSTOP; `thaw` goes on."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def thaw(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.freeze()
        for station in self.executor.stations:
            station.finish()
        self.executor._zmq.destroy(300)
        self._zmq.destroy(0)
        self.inbox.close()
        for fd in (*self._fds.values(), self._bell, self.bell):
            os.close(fd)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Pair:
    """Keys and configs of a robot and a workstation."""

    def __init__(
        self, folder: Path, sends: tuple[str, ...] = OUT, back: tuple[str, ...] = BACK
    ) -> None:
        self.folder = folder
        self._public = {}
        for host in ("robot", "workstation", "stranger"):
            public, secret = link_sockets.make_pair()
            self._public[host] = public
            (folder / f"{host}.secret").write_text(secret.hex() + "\n")
        self.port = free_port()
        self._robot = LinkConfig(
            "robot", "workstation", f"tcp://127.0.0.1:{self.port}", False,
            str(folder / "robot.secret"), self._public["workstation"].hex(), sends, back, "graph",
        )  # fmt: skip

    def robot(self, **changes: Any) -> LinkConfig:
        return replace(self._robot, **changes)

    def workstation(self, **changes: Any) -> LinkConfig:
        robot = self._robot
        made = LinkConfig(
            "workstation", "robot", robot.address, True, str(self.folder / "workstation.secret"),
            self._public["robot"].hex(), robot.receives, robot.sends, "graph",
        )  # fmt: skip
        return replace(made, **changes)

    def key(self, host: str) -> bytes:
        return self._public[host]
