"""Requests to nodes, made off the supervisor's loop, which must never wait for anybody."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any

Done = Callable[[Any], None]


class Errands:
    """Does one thing after another in a thread; outcomes are handed over in the caller's loop."""

    def __init__(self, name: str) -> None:
        self._todo: SimpleQueue[tuple[Callable[[], Any], Done]] = SimpleQueue()
        self._outcomes: SimpleQueue[tuple[Done, Any]] = SimpleQueue()
        Thread(target=self._work, name=name, daemon=True).start()

    def do(self, work: Callable[[], Any], done: Done) -> None:
        """`done(result or exception)` runs in `collect` once `work()` has."""
        self._todo.put((work, done))

    def collect(self) -> None:
        """Hands over what is finished; call it in every turn of the loop."""
        while not self._outcomes.empty():
            done, outcome = self._outcomes.get()
            done(outcome)

    def _work(self) -> None:
        while True:
            work, done = self._todo.get()
            try:
                outcome: Any = work()
            except Exception as error:  # noqa: BLE001  handed to the caller, who reports it
                outcome = error
            self._outcomes.put((done, outcome))
