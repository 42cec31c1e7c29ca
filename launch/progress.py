"""A run as people see it: what happened so far, kept by whoever carries it out."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import current_thread, main_thread
from time import monotonic
from typing import Any

from safetypilot.launch.plan import Plan
from safetypilot.launch.tally import Tally

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Death:
    """The end of a node's process that nobody had asked for."""

    node: str
    code: int
    how: str
    at_s: float  # since the start of the run
    generation: int
    last_lines: list[str]

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass
class Journal:
    """What happened, for people: the last of it on the screen, all of it in the summary."""

    started: float = field(default_factory=monotonic)
    entries: list[dict[str, Any]] = field(default_factory=list)
    listen: Callable[[dict[str, Any]], None] = lambda entry: None
    limit: int = 2000

    def add(self, node: str, text: str, level: str = "info") -> None:
        entry = {"at_s": round(monotonic() - self.started, 3), "node": node, "text": text,
                 "level": level}  # fmt: skip
        if len(self.entries) < self.limit:
            self.entries.append(entry)
        self.listen(entry)


@dataclass
class Run:
    """A run as people see it, while it goes on and after its end; shared with every screen."""

    plan: Plan
    run_dir: Path
    run_id: str = ""
    tally: Tally = field(default_factory=Tally)
    journal: Journal = field(default_factory=Journal)
    deaths: list[Death] = field(default_factory=list)
    rows: Callable[[], dict[str, dict[str, Any]]] = dict  # node -> see Member.row
    lost: dict[str, dict[str, int]] = field(default_factory=dict)  # node -> cause -> messages
    started: float = field(default_factory=monotonic)
    active_since: float | None = None
    ended: float | None = None
    virtual_s: float = 0.0  # in lockstep
    trace_sha256: str | None = None
    failure: str = ""  # why the run failed; empty if it did not
    interrupted: str = ""  # the signal by which a person stopped it
    over: str = ""  # why there is nothing left to do here: the other host has ended the run
    script_failures: list[str] = field(default_factory=list)

    @property
    def active_s(self) -> float:
        """Seconds of the wall clock since the graph became active."""
        return 0.0 if self.active_since is None else (self.ended or monotonic()) - self.active_since

    @property
    def elapsed_s(self) -> float:
        """Seconds of the run's own clock since the graph became active."""
        return self.virtual_s if self.plan.clock == "lockstep" else self.active_s

    def enough(self) -> bool:
        """Whether the plan is fulfilled."""
        plan = self.plan
        by_episodes = plan.episodes is not None and self.tally.episodes >= plan.episodes
        return by_episodes or (plan.duration_s is not None and self.elapsed_s >= plan.duration_s)

    def event(self, node: str, data: dict[str, Any]) -> None:
        """Takes in what a node wants people to know."""
        kind = str(data.get("kind", ""))
        hidden = ("kind", "at_ns", "settings", "files")
        details = {k: v for k, v in data.items() if k not in hidden and v not in ("", None)}
        text = ", ".join(f"{key} {value}" for key, value in details.items())
        named = "" if kind == node else kind  # the journal has the node's name in front
        self.journal.add(node, ": ".join(part for part in (named, text) if part) or kind)


@contextmanager
def handle_signals(run: Run, kill: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C stops the run cleanly, the second kills; only the main thread may ask."""
    if current_thread() is not main_thread():
        yield
        return

    def handler(number: int, _: Any) -> None:
        if run.interrupted:
            kill()
        run.interrupted = run.interrupted or signal.Signals(number).name

    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
