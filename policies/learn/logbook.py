"""Writes a run's curve to `metrics.jsonl` and TensorBoard, and shows it on a terminal."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any


class Logbook:
    """One line per entry; on resume, entries after the checkpoint are cut off and written again."""

    def __init__(self, directory: Path, keep_steps: int | None = None) -> None:
        """Open in a run's directory.

        Args:
            directory: of the run.
            keep_steps: None starts afresh, otherwise entries up to this step are kept.
        """
        from torch.utils.tensorboard import SummaryWriter

        directory.mkdir(parents=True, exist_ok=True)
        self._path = path = directory / "metrics.jsonl"
        kept = [] if keep_steps is None else _lines_until(path, keep_steps)
        path.write_text("".join(kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        purge = None if keep_steps is None else keep_steps + 1
        self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=purge)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record values at an environment step.

        Raises:
            OSError: the disk is full, say; with the path.
        """
        try:
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(self._path)) from None

    def close(self) -> None:
        """Every entry has been written by now; what could not be has been told."""
        for each in (self._file, self._board):
            with contextlib.suppress(OSError):
                each.close()


class Display:
    """A progress bar with counts and time left, or nothing."""

    def __init__(self, show: bool, console: Any = None) -> None:
        """Show or stay silent; `console` is a rich console."""
        self._progress: Any = None
        if show:
            from rich import progress

            self._progress = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeElapsedColumn(),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[note]}"),
                console=console,
            )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Display:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def report(self, what: str, done: int, total: int, note: str = "") -> None:
        """Move one bar."""
        if self._progress is None:
            return
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total, note=note)
        self._progress.update(self._tasks[what], completed=done, total=total, note=note)


def _lines_until(path: Path, step: int) -> list[str]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]  # a killed run may leave half a line
    return [line for line in whole if json.loads(line)["step"] <= step]
