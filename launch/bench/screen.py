"""How far a benchmark is, on standard error."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self


class Bar:
    """A progress bar on a terminal; without one, a line per contestant and round."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining

        self._console = Console(stderr=True, highlight=False)
        self._title = title
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            Remaining(), console=self._console, transient=True, disable=not sys.stderr.isatty(),
        )  # fmt: skip
        self._task: Any = None
        self._last = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._progress.stop()

    def show(self, contestant: str, done: int, total: int) -> None:
        """So many of all steps are done, and this contestant is at it."""
        text = f"{self._title}: {contestant}"
        if self._task is None:
            self._task = self._progress.add_task(text, total=total)
        self._progress.update(self._task, completed=done, total=total, description=text)
        if self._progress.disable and contestant != self._last:
            self._last = contestant
            self.say(f"{text}, {done} of {total} steps done")

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, soft_wrap=True, markup=False)
