"""Hears everything and writes it into MCAP files, which Foxglove and Rerun open.

It listens through taps, so it can never hold up the loop; what it could not keep it counts. In
lockstep there are no taps: the scheduler, which sees every frame, records in its stead.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetypilot.nodes.kernel.errors import NodeError
from safetypilot.nodes.kernel.node import Context, Node
from safetypilot.nodes.kernel.process import main
from safetypilot.nodes.kernel.transport import Endpoints
from safetypilot.nodes.recording import LiveRecording
from safetypilot.nodes.recording_file import Settings

_LOOK_NS = 500_000_000  # between two looks at how the recording goes
_PATIENCE_S = 0.8  # a node is killed when it has not ended after 2 s


@dataclass(frozen=True)
class RecorderConfig:
    """What is recorded, and how much disk it may take.

    Attributes:
        file: its name in the directory of the run; the files after the first are NAME-2.mcap, ...
        topics: which; empty: all.
        max_mb: a file that has grown beyond it is followed by the next; 0: never.
        keep: files kept, the oldest are removed; 0: all.
        queue_mb: what may wait for a slow disk before messages are dropped.
    """

    file: str = "recording.mcap"
    topics: tuple[str, ...] = ()
    max_mb: float = 1024.0
    keep: int = 0
    queue_mb: float = 64.0

    def __post_init__(self) -> None:
        """Says no before anything starts."""
        if not self.file.endswith(".mcap") or Path(self.file).name != self.file:
            raise ValueError(
                f"file is {self.file!r}; it is a plain name ending in .mcap, in the run's directory"
            )
        if self.max_mb < 0 or self.keep < 0:
            raise ValueError("max_mb and keep are 0 (no bound) or above")
        if not self.queue_mb > 0:
            raise ValueError(f"queue_mb is {self.queue_mb}; it must be above 0")

    def settings(self, run_dir: Path) -> Settings:
        """Of the recording in the directory of a run."""
        return Settings(
            path=run_dir / self.file,
            topics=tuple(self.topics),
            max_bytes=int(self.max_mb * 1e6),
            keep=self.keep,
            queue_bytes=int(self.queue_mb * 1e6),
        )


class Recorder(Node):
    inputs = ()
    outputs = ()
    Config = RecorderConfig

    def __init__(self, config: RecorderConfig, context: Context) -> None:
        super().__init__(config, context)
        self._recording: LiveRecording | None = None
        self._told = False

    def configure(self) -> None:
        context = self.context
        if not context.realtime:
            return
        described = context.runtime_dir / "graph.json"
        try:
            graph = json.loads(described.read_text())
        except (OSError, ValueError) as error:
            raise NodeError(f"{described} cannot be read: {error}") from None
        unknown = sorted(set(self.config.topics) - set(graph["topics"]))
        if unknown:
            raise NodeError(
                f"there is no topic {unknown[0]!r} to record; there are: "
                f"{', '.join(graph['topics'])}"
            )
        settings = self.config.settings(context.run_dir)
        if context.generation:  # what the process before this one left is kept
            name = f"{settings.path.stem}-restart{context.generation}.mcap"
            settings = Settings(**{**vars(settings), "path": settings.path.with_name(name)})
        self._recording = LiveRecording(settings, Endpoints(context.runtime_dir), graph)
        self._recording.start()

    def activate(self, now_ns: int) -> None:
        self.next_wake_ns = now_ns + _LOOK_NS if self._recording else None

    def on_timer(self, now_ns: int) -> None:
        self.next_wake_ns = now_ns + _LOOK_NS
        if self._recording and self._recording.failure and not self._told:
            self._told = True
            self.context.event("recording failed", reason=self._recording.failure)

    def status(self) -> dict[str, Any]:
        return self._recording.status() if self._recording else {}

    def deactivate(self, now_ns: int) -> None:
        if self._recording is None:
            return
        whole = self._recording.stop(_PATIENCE_S)
        status = self._recording.status()
        self.context.event(
            "recorded",
            file=status["file"],
            messages=status["messages"],
            dropped=status["dropped"],
            failure=status["failure"] or ("" if whole else "the disk is too slow; cut off"),
        )

    def close(self) -> None:
        if self._recording is not None:
            self._recording.stop(0.1)


if __name__ == "__main__":
    main(Recorder)
