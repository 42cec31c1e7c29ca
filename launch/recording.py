"""Recordings that the launch layer makes itself: of a run in lockstep, and from outside a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from safetypilot.launch import runtime_dir
from safetypilot.launch.progress import Run
from safetypilot.nodes.kernel.transport import Endpoints

RECORDER = "safetypilot.nodes.recorder:Recorder"
_LOOK_S = 0.1
_PATIENCE_S = 30.0  # for the disk, at the end


class LockstepRecording:
    """Records in the stead of the graph's recorders: the scheduler sees every frame itself."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._writers: dict[str, Any] = {}
        self._failures: dict[str, str] = {}
        recorders = [node for node in run.plan.nodes if node.node == RECORDER]
        if not recorders:
            return
        from safetypilot.nodes.kernel.process import build_config
        from safetypilot.nodes.recorder import Recorder
        from safetypilot.nodes.recording_file import RecordingWriter

        for node in recorders:
            settings = build_config(Recorder, node.config).settings(run.run_dir)
            self._writers[node.name] = RecordingWriter(settings, run.plan.describe())

    def observe(self, topic: str, frame: bytes) -> None:
        """Takes in a frame."""
        for name in self._writers:
            self._try(name, lambda writer: writer.write(topic, frame))

    def close(self) -> None:
        """Ends the files."""
        for name, writer in self._writers.items():
            self._try(name, lambda writer: writer.close())
            if not self._failures.get(name):
                text = f"recorded: file {writer.path}, messages {writer.messages}"
                self._run.journal.add(name, text)

    def rows(self, rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """The recorders' rows of the run, with how the recording went."""
        return {
            name: {**rows.get(name, {"state": "ended", "restarts": 0, "inputs": {}}),
                   "node": {"file": str(writer.path), "messages": writer.messages,
                            "failure": self._failures.get(name, "")}}
            for name, writer in self._writers.items()
        }  # fmt: skip

    def _try(self, name: str, work: Callable[[Any], None]) -> None:
        """A disk that fails costs the recording, not the run."""
        if name in self._failures:
            return
        try:
            work(self._writers[name])
        except OSError as error:
            self._writers[name].abandon()
            self._failures[name] = f"{self._writers[name].path}: {error.strerror or error}"
            self._run.journal.add(name, f"recording failed: {self._failures[name]}", "error")


def attach(
    found: runtime_dir.Running,
    settings: Any,
    duration_s: float | None,
    show: Callable[[dict[str, Any]], None],
    stopped: Callable[[], bool],
) -> dict[str, Any]:
    """Records a running graph from outside, until it ends, somebody stops it or time is up.

    Args:
        settings: see nodes/recording_file.py.
        show: called with the recording's status every now and then.

    Returns:
        The recording's last status; `failure` says why it is not whole, or is empty.
    """
    from safetypilot.nodes.recording import LiveRecording

    recording = LiveRecording(settings, Endpoints(found.path), found.graph)
    recording.start()
    begun = looked = monotonic()
    while not stopped() and not recording.failure:
        sleep(_LOOK_S)
        now = monotonic()
        if duration_s is not None and now - begun >= duration_s:
            break
        if now - looked >= 1.0:
            looked = now
            show(recording.status())
            if not runtime_dir.alive(found.path):
                break
    whole = recording.stop(_PATIENCE_S)
    status = recording.status()
    if not whole and not status["failure"]:
        status["failure"] = f"{status['file']}: the disk is too slow; cut off"
    return status


def default_name(run_id: str) -> Path:
    """Where a recording goes when nobody says."""
    return Path(f"{run_id}.mcap")
