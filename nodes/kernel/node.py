"""What a node is: a plain class that owns no socket, thread or clock.

Life cycle: `configure` (load, allocate, warm up) -> `activate` -> messages, timers and requests ->
`deactivate` -> `close`. An executor calls these and takes what the node emits, so the same class
runs in its own process in real time, in lockstep, and in a unit test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from safetypilot.nodes.kernel.clock import Clock
from safetypilot.nodes.kernel.errors import RequestRefused
from safetypilot.nodes.kernel.interface import Interface


class Input(NamedTuple):
    """A topic a node reads.

    A passive input (`wakes=False`) is only drained when something else wakes the node. An optional
    one may have no writer in the graph, and no answer waits for it. `when` names a field of the
    config: while that is zero or empty, the node does not have this input. An input that sets no
    pace (`paces=False`) may come rarely, and the passive ones need not wake the node for that.
    """

    topic: str
    wakes: bool = True
    optional: bool = False
    when: str = ""
    paces: bool = True


class Executor(Protocol):
    """What stands behind a context: the executor, or a fake in tests."""

    def emit(self, topic: str, message: Any) -> None: ...
    def event(self, kind: str, data: dict[str, Any]) -> None: ...
    def background(
        self, work: Callable[[], Any], done: Callable[[Any, int], None], name: str
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Context:
    """All that a node may know of the world it runs in.

    Attributes:
        period_ns: the node's own control period: the graph's, or `every` times that.
        run_dir: where a node may write files that outlive the run.
        runtime_dir: the run's private directory; holds the e-stop latch.
        realtime: False where time is virtual and nothing may depend on how long work takes.
        every: the node answers every so many-th observation (nodes/kernel/rates.py).
        rates: its inputs that do not come for every observation -> for every so many-th.
        budgets_ns: inputs with a latency budget -> how old the observation behind them may be.
    """

    name: str
    interface: Interface
    period_ns: int
    seed: int
    run_dir: Path
    runtime_dir: Path
    clock: Clock
    realtime: bool
    executor: Executor
    generation: int = 0  # how often this node has been restarted in this run
    every: int = 1
    rates: Mapping[str, int] = field(default_factory=dict)
    budgets_ns: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: Spec, clock: Clock, executor: Executor, realtime: bool) -> Context:
        """What a spec says of the world, on this clock and behind this executor."""
        return cls(
            name=spec.name,
            interface=Interface.from_dict(spec.interface),
            period_ns=spec.period_ns,
            seed=spec.seed,
            run_dir=Path(spec.run_dir),
            runtime_dir=Path(spec.runtime_dir),
            clock=clock,
            realtime=realtime,
            executor=executor,
            generation=spec.generation,
            every=spec.every,
            rates=spec.rates,
            budgets_ns=spec.budgets_ns,
        )

    def emit(self, topic: str, message: Any) -> None:
        """Publishes a message on one of the node's outputs, at once."""
        self.executor.emit(topic, message)

    def event(self, kind: str, **data: Any) -> None:
        """Tells the supervisor something a person should be able to read later. JSON-able."""
        self.executor.event(kind, data)

    def background(
        self, work: Callable[[], Any], done: Callable[[Any, int], None], name: str = "job"
    ) -> None:
        """Runs `work` off the control path, then `done(result or exception, now_ns)` in the loop.

        In lockstep both run at once, so that a run stays a function of its seed.
        """
        self.executor.background(work, done, name)


class Node:
    """Base of all nodes; see the module's docstring for the life cycle."""

    inputs: ClassVar[tuple[Input, ...]] = ()
    outputs: ClassVar[tuple[str, ...]] = ()
    Config: ClassVar[type]

    next_wake_ns: int | None = None

    def __init__(self, config: Any, context: Context) -> None:
        self.config = config
        self.context = context
        self.ports = tuple(p for p in self.inputs if not p.when or getattr(config, p.when))

    def configure(self) -> None:
        """Loads what the node needs. Raises NodeError if it can never work like this."""

    def activate(self, now_ns: int) -> None:
        """From here on messages and timers arrive."""

    def on_message(self, topic: str, message: Any, now_ns: int) -> None:
        """A checked message arrived on an input."""

    def on_timer(self, now_ns: int) -> None:
        """`next_wake_ns` has come; the node sets the next one."""

    def rehearse(self) -> None:
        """Computes what a step computes, on the last step's inputs, and leaves nothing changed.

        It is called shortly before the next step is due, where the launch file asks for it: code
        and data are in the CPU's caches then, whatever else ran meanwhile.
        """

    def on_request(self, request: str, arguments: dict[str, Any], now_ns: int) -> dict[str, Any]:
        """Answers a person or the supervisor. Raises RequestRefused to say no, and why."""
        raise RequestRefused(f"{self.context.name} knows no request {request!r}")

    def status(self) -> dict[str, Any]:
        """What `safetypilot nodes` shows of this node; JSON-able and cheap."""
        return {}

    def deactivate(self, now_ns: int) -> None:
        """The last call in which the node may emit."""

    def close(self) -> None:
        """Releases what `configure` took."""


class NetworkNode(Node):
    """A node of the kernel itself that has sockets of its own, to the world outside the run.

    Attributes:
        zmq: the context that its process has for sockets.
        watch: (socket, call): `call()` runs in the node's loop when something may have come.
    """

    zmq: Any
    watch: Callable[[Any, Callable[[], None]], None]


@dataclass(frozen=True, slots=True)
class Spec:
    """What a node's process is started with; the supervisor writes it as JSON.

    Attributes:
        node: "module:Class".
        readers: for each stream the node writes, the names of its readers.
        remap: the node's own topic names -> the graph's.
        absent: optional inputs that no node of this graph writes (own names).
        every, rates, budgets_ns: see Context; period_ns is the node's own.
        thinned: inputs of which the node takes what it answers, and no more (own names).
        slow: the node's own outputs -> the rates at which others take them thinned out.
        cpus: CPU set, or empty for any. nice: 0 is normal, negative is favoured.
        realtime: what the node asks of the machine; see nodes/kernel/schedule.py, Settings.
        boards: topics in shared memory -> the file descriptor to map (nodes/kernel/board.py);
            for those that the node reads, `places` has its place among the readers, for those that
            it writes, `bells` has the readers' bells. bell: its own; -1: none was handed down.
    """

    name: str
    node: str
    config: dict[str, Any]
    interface: dict[str, Any]
    period_ns: int
    seed: int
    run_dir: str
    runtime_dir: str
    clock: str = "realtime"
    readers: dict[str, list[str]] = field(default_factory=dict)
    remap: dict[str, str] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    every: int = 1
    rates: dict[str, int] = field(default_factory=dict)
    budgets_ns: dict[str, int] = field(default_factory=dict)
    thinned: list[str] = field(default_factory=list)
    slow: dict[str, list[int]] = field(default_factory=dict)
    cpus: list[int] = field(default_factory=list)
    nice: int = 0
    realtime: dict[str, Any] = field(default_factory=dict)
    boards: dict[str, int] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    bells: dict[str, list[int]] = field(default_factory=dict)
    bell: int = -1
    supervisor_pid: int = 0
    generation: int = 0  # how often the node has been restarted

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Every file descriptor that is handed down to the node's process."""
        bells = (bell for of_topic in self.bells.values() for bell in of_topic)
        return tuple({fd for fd in (*self.boards.values(), *bells, self.bell) if fd >= 0})

    def input_period_ns(self, topic: str) -> int:
        """How long it is from one message of an input to the next."""
        return self.period_ns // self.every * self.rates.get(topic, 1)
