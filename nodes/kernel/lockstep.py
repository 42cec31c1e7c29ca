"""The lockstep executors: virtual time, one fixed order of work, bit-identical runs.

`Lockstep` is a discrete-event scheduler. All messages of an instant are delivered first in, first
out, to the readers of their topic in graph order; when none is left, virtual time jumps to the
earliest timer. Nodes are reached through a `Host`: in this process, or through a socket to a host
in another one. Both pass the same encoded frames in the same order, so both give the same trace.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from safetypilot.nodes.kernel import rates
from safetypilot.nodes.kernel.clock import VirtualClock
from safetypilot.nodes.kernel.errors import KernelError, RequestRefused
from safetypilot.nodes.kernel.health import InputHealth
from safetypilot.nodes.kernel.node import Context, Node, Spec
from safetypilot.nodes.kernel.topics import TOPICS
from safetypilot.nodes.kernel.transport import Endpoints, LockstepClient, LockstepServer
from safetypilot.nodes.kernel.wire import WireError, codecs

CALL_TIMEOUT_S = 300.0  # a learner's update may take a while; a dead process is seen otherwise


class Reply(NamedTuple):
    """What a call to a node gave back."""

    next_wake_ns: int | None
    outputs: list[tuple[str, bytes]]  # (topic, frame) in order of emission
    events: list[dict[str, Any]]
    result: dict[str, Any]
    error: str  # empty unless a request was refused


class Handle(Protocol):
    """A node as the scheduler sees it."""

    def call(self, operation: str, now_ns: int, *arguments: Any) -> Reply: ...
    def close(self) -> None: ...


class Host:
    """Runs one node on virtual time and collects what it emits."""

    def __init__(self, node_class: type[Node], spec: Spec, config: Any) -> None:
        self._clock = VirtualClock()
        self._outputs: list[tuple[str, bytes]] = []
        self._events: list[dict[str, Any]] = []
        self._remap = spec.remap
        self.node = node_class(config, Context.of(spec, self._clock, self, realtime=False))
        self._codecs = codecs(self.node.context.interface.dims)
        self._thinned = {topic: spec.every for topic in spec.thinned}
        self._local = {
            spec.remap.get(port.topic, port.topic): port.topic
            for port in self.node.ports
            if port.topic not in spec.absent
        }
        self._health = {
            name: InputHealth(
                spec.input_period_ns(name),
                TOPICS[name].stale_after_periods,
                spec.rates.get(name, 1),
            )
            for name in self._local.values()
        }

    def emit(self, topic: str, message: Any) -> None:
        frame = self._codecs[TOPICS[topic].message].encode(message)
        self._outputs.append((self._remap.get(topic, topic), frame))

    def event(self, kind: str, data: dict[str, Any]) -> None:
        self._events.append({"kind": kind, "at_ns": self._clock.now_ns(), **data})

    def background(
        self, work: Callable[[], Any], done: Callable[[Any, int], None], name: str
    ) -> None:
        try:
            result: Any = work()
        except Exception as error:  # noqa: BLE001  handed to the node, which reports it
            result = error
        done(result, self._clock.now_ns())

    def call(self, operation: str, now_ns: int, *arguments: Any) -> Reply:
        """Does one thing: deliver, timer, request, configure, activate, deactivate, close."""
        self._clock.advance_to(now_ns)
        result: dict[str, Any] = {}
        error = ""
        if operation == "deliver":
            topic, frame = arguments
            self._deliver(topic, frame, now_ns)
        elif operation == "timer":
            self.node.on_timer(now_ns)
        elif operation == "request":
            try:
                request, details = arguments
                result = self.node.on_request(request, details, now_ns)
            except (RequestRefused, KernelError, ValueError, TypeError, KeyError) as refusal:
                error = str(refusal) or type(refusal).__name__
        elif operation == "status":
            result = self._status(now_ns)
        elif operation == "configure":
            self.node.configure()
        elif operation == "activate":
            self.node.activate(now_ns)
        elif operation == "deactivate":
            self.node.deactivate(now_ns)
            self.node.close()
        else:
            raise KernelError(f"lockstep knows no operation {operation!r}")
        reply = Reply(self.node.next_wake_ns, self._outputs, self._events, result, error)
        self._outputs, self._events = [], []
        return reply

    def _deliver(self, topic: str, frame: bytes, now_ns: int) -> None:
        local = self._local[topic]
        health = self._health[local]
        try:
            message = self._codecs[TOPICS[local].message].decode(frame)
        except WireError as error:
            health.refuse(error.cause)
            return
        if local in self._thinned and not rates.is_due(message, self._thinned[local]):
            return
        health.accept(message.seq, message.stamp_ns, now_ns)
        self.node.on_message(local, message, now_ns)

    def _status(self, now_ns: int) -> dict[str, Any]:
        inputs = {name: health.summary(now_ns) for name, health in self._health.items()}
        return {"pid": os.getpid(), "inputs": inputs, "node": self.node.status()}

    def close(self) -> None:
        """Nothing is held beyond the node itself."""


class Remote:
    """A handle on a host in another process; `alive` tells whether that still runs."""

    def __init__(
        self, endpoints: Endpoints, name: str, alive: Callable[[], bool] = lambda: True
    ) -> None:
        self._client = LockstepClient(endpoints, name, alive)

    def call(self, operation: str, now_ns: int, *arguments: Any) -> Reply:
        reply = self._client.call([operation, now_ns, *arguments], CALL_TIMEOUT_S)
        wake, outputs, events, result, error = reply
        return Reply(wake, [(topic, frame) for topic, frame in outputs], events, result, error)

    def close(self) -> None:
        self._client.close()


def serve(host: Host, spec: Spec) -> None:
    """Answers the scheduler until it deactivates the node, SIGTERM comes or the parent is gone."""
    running = True

    def stop(*_: Any) -> None:
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = LockstepServer(Endpoints(spec.runtime_dir), spec.name)
    try:
        while running:
            call = server.receive(0.5)
            if call is None:
                if spec.supervisor_pid and os.getppid() != spec.supervisor_pid:
                    return
                continue
            operation, now_ns, *arguments = call
            server.answer(list(host.call(operation, now_ns, *arguments)))
            if operation == "deactivate":
                return
    finally:
        server.close()


class Lockstep:
    """Runs a graph of handles on virtual time.

    Args:
        handles: node name -> handle, in graph order.
        readers: topic -> names of the nodes that read it.
        observe: called with (topic, frame) for every frame, in order.
        on_event: called with (node, event).
    """

    def __init__(
        self,
        handles: dict[str, Handle],
        readers: dict[str, list[str]],
        observe: Callable[[str, bytes], None],
        on_event: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._handles = handles
        self._readers = {
            topic: [name for name in handles if name in names] for topic, names in readers.items()
        }
        self._observe = observe
        self._on_event = on_event
        self._wakes: dict[str, int | None] = dict.fromkeys(handles)
        self._queue: deque[tuple[str, bytes]] = deque()
        self._digest = sha256()
        self.now_ns = 0

    @property
    def trace_sha256(self) -> str:
        """Hash over every frame of the run so far, in order."""
        return self._digest.hexdigest()

    def call(self, name: str, operation: str, *arguments: Any) -> Reply:
        """Calls a node now and takes in what it emits. Used for requests between two events."""
        reply = self._handles[name].call(operation, self.now_ns, *arguments)
        self._wakes[name] = reply.next_wake_ns
        self._queue.extend(reply.outputs)
        for event in reply.events:
            self._on_event(name, event)
        return reply

    def start(self) -> None:
        """Configures all nodes, then activates them, both in graph order."""
        for operation in ("configure", "activate"):
            for name in self._handles:
                self.call(name, operation)

    def run(self, stop: Callable[[], bool]) -> None:
        """Runs event by event until `stop()` or nothing is left to happen."""
        while not stop():
            while self._queue:
                topic, frame = self._queue.popleft()
                self._digest.update(topic.encode() + b"\0" + frame)
                self._observe(topic, frame)
                for name in self._readers.get(topic, ()):
                    self.call(name, "deliver", topic, frame)
            due = [(wake, name) for name, wake in self._wakes.items() if wake is not None]
            if not due:
                return
            wake = min(due)[0]
            self.now_ns = max(self.now_ns, wake)
            for name in [name for at, name in due if at == wake]:
                current = self._wakes[name]
                if current is not None and current <= self.now_ns:
                    self.call(name, "timer")

    def finish(self) -> None:
        """Deactivates and closes all nodes in reverse order."""
        for name in reversed(self._handles):
            self.call(name, "deactivate")
            self._handles[name].close()
