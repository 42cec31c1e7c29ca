"""Fakes: any node can be tested without a socket, a process or sleeping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetypilot.nodes.kernel.clock import VirtualClock
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.kernel.node import Context, Node

INTERFACE = Interface(
    observation_names=("x", "y"),
    observation_units=("m", "m"),
    action_names=("force_x", "force_y"),
    action_units=("N", "N"),
    action_low=(-0.1, -0.1),
    action_high=(0.1, 0.1),
    failsafe=(0.0, 0.0),
)


class FakeExecutor:
    """Records what a node emits and reports; background work waits until `finish_jobs`."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.emitted: list[tuple[str, Any]] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.jobs: list[tuple[Callable[[], Any], Callable[[Any, int], None]]] = []

    def emit(self, topic: str, message: Any) -> None:
        self.emitted.append((topic, message))

    def event(self, kind: str, data: dict[str, Any]) -> None:
        self.events.append((kind, data))

    def background(
        self, work: Callable[[], Any], done: Callable[[Any, int], None], name: str
    ) -> None:
        self.jobs.append((work, done))

    def finish_jobs(self) -> None:
        """Runs the background work that waits, and its `done`."""
        while self.jobs:
            work, done = self.jobs.pop(0)
            try:
                result: Any = work()
            except Exception as error:  # noqa: BLE001  as the real executors hand it over
                result = error
            done(result, self.clock.now_ns())

    def of(self, topic: str) -> list[Any]:
        """All messages emitted on a topic so far."""
        return [message for name, message in self.emitted if name == topic]


class Bench:
    """A node on a test bench: feed it messages, move its time, look at what it emits."""

    def __init__(
        self,
        node_class: type[Node],
        config: Any,
        run_dir: Path,
        interface: Interface = INTERFACE,
        period_ns: int = 20_000_000,
        seed: int = 0,
        realtime: bool = True,
        rates: Mapping[str, int] | None = None,
        budgets_ns: Mapping[str, int] | None = None,
    ) -> None:
        self.clock = VirtualClock(1_000_000_000)
        self.executor = FakeExecutor(self.clock)
        self.node = node_class(
            config,
            Context(
                name=node_class.__name__.lower(),
                interface=interface,
                period_ns=period_ns,
                seed=seed,
                run_dir=run_dir,
                runtime_dir=run_dir,
                clock=self.clock,
                realtime=realtime,
                executor=self.executor,
                rates=rates or {},
                budgets_ns=budgets_ns or {},
            ),
        )
        self.node.configure()
        self.node.activate(self.clock.now_ns())

    @property
    def now_ns(self) -> int:
        return self.clock.now_ns()

    def send(self, topic: str, message: Any) -> None:
        self.node.on_message(topic, message, self.now_ns)

    def pass_time(self, duration_ns: int) -> None:
        """Moves time on, with every timer on the way."""
        end = self.now_ns + duration_ns
        while self.node.next_wake_ns is not None and self.node.next_wake_ns <= end:
            self.clock.advance_to(self.node.next_wake_ns)
            self.node.on_timer(self.now_ns)
        self.clock.advance_to(end)

    def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
        return self.node.on_request(request, arguments, self.now_ns)

    def last(self, topic: str) -> Any:
        return self.executor.of(topic)[-1]
