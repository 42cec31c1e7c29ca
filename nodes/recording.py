"""A recording under way: taps on one thread, the disk on another, and an account of what was lost.

Neither can hold up the graph: taps are observers, and a disk that is slow, full or gone only makes
the queue between the two threads drop messages, which are counted.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from safetypilot.nodes.kernel.taps import Taps
from safetypilot.nodes.kernel.transport import Endpoints
from safetypilot.nodes.recording_file import RecordingWriter, Settings

_PAUSE_S = 0.01  # between two looks at the taps: few wake-ups beside a control loop
_OVERHEAD = 100  # bytes that a waiting frame costs beyond its own

Batch = list[tuple[str, bytes]]


class LiveRecording:
    """Records a running graph until it is stopped.

    Args:
        graph: what `graph.json` says of the run.

    Attributes:
        failure: why nothing is written any more; empty while all is well.
    """

    def __init__(self, settings: Settings, endpoints: Endpoints, graph: dict[str, Any]) -> None:
        self._limit = settings.queue_bytes
        self._writer = RecordingWriter(settings, graph)
        self._taps = Taps(endpoints, self._writer.topics)
        self._queue: deque[Batch] = deque()
        self._offered = self._taken = 0  # bytes; each is counted by one thread only
        self._arrived = threading.Event()
        self._stopping = threading.Event()
        self._listened = threading.Event()  # all that will ever come is in the queue
        self.dropped: dict[str, int] = {}
        self.failure = ""
        self._threads = [
            threading.Thread(target=self._listen, name="taps", daemon=True),
            threading.Thread(target=self._write, name="disk", daemon=True),
        ]

    def start(self) -> None:
        """Begins to listen and to write."""
        for thread in self._threads:
            thread.start()

    def stop(self, patience_s: float) -> bool:
        """Writes what has come and ends the file; False if the disk took longer than that."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(patience_s / len(self._threads))
        return not any(thread.is_alive() for thread in self._threads)

    def status(self) -> dict[str, Any]:
        """Where it writes, how much, and what was lost, by cause and by topic."""
        writer = self._writer
        dropped = {**self.dropped, **{f"refused: {k}": n for k, n in writer.refused.items()}}
        return {
            "file": str(writer.path),
            "files": len(writer.files),
            "messages": writer.messages,
            "mb": round(writer.size_bytes / 1e6, 3),
            "dropped": sum(dropped.values()),
            "dropped_by": dropped,
            "gaps": writer.gaps(),
            "failure": self.failure,
        }

    # The thread of the taps.

    def _listen(self) -> None:
        while not self._stopping.wait(_PAUSE_S):
            self._offer(self._taps.take())
        while batch := self._taps.take():
            self._offer(batch)
        self._taps.close()
        self._listened.set()
        self._arrived.set()

    def _offer(self, batch: Batch) -> None:
        if not batch:
            return
        size = sum(len(frame) + _OVERHEAD for _, frame in batch)
        if self._offered - self._taken + size > self._limit:
            self._drop("disk too slow", len(batch))
            return
        self._offered += size
        self._queue.append(batch)
        self._arrived.set()

    def _drop(self, cause: str, number: int) -> None:
        self.dropped[cause] = self.dropped.get(cause, 0) + number

    # The thread of the disk.

    def _write(self) -> None:
        self._try(self._writer.open)
        while True:
            self._arrived.wait()
            self._arrived.clear()
            while self._queue:
                self._store(self._queue.popleft())
            if self._listened.is_set() and not self._queue:
                break
        self._try(self._writer.close)

    def _store(self, batch: Batch) -> None:
        for number, (topic, frame) in enumerate(batch):
            if not self._try(self._writer.write, topic, frame):
                self._drop("disk failed", len(batch) - number)
                break
        self._taken += sum(len(frame) + _OVERHEAD for _, frame in batch)

    def _try(self, work: Callable[..., None], *arguments: Any) -> bool:
        """Does something with the disk; a failure is final, and costs what was not yet on it."""
        if self.failure:
            return False
        try:
            work(*arguments)
        except OSError as error:
            self.failure = f"{self._writer.path}: {error.strerror or error}"
            self._drop("disk failed", self._writer.abandon())
            return False
        return True
