"""One node at work in real time: its calls, its statistics, and the line on which people reach it.

The executor (realtime.py) decides when; a station moves messages between the ports (wiring.py) and
the node.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic_ns
from typing import Any

from safetypilot.nodes.kernel import rates
from safetypilot.nodes.kernel.clock import RealClock
from safetypilot.nodes.kernel.errors import KernelError, RequestRefused
from safetypilot.nodes.kernel.health import Histogram, InputHealth
from safetypilot.nodes.kernel.node import Context, NetworkNode, Node, Spec
from safetypilot.nodes.kernel.transport import ControlServer, Report
from safetypilot.nodes.kernel.wire import WireError, codecs
from safetypilot.nodes.kernel.wiring import Yard, inlet, outlets

_NEVER = 1 << 62
_LATE = 10  # a timer is late from this part of a period on


class Station:
    """Hosts one node.

    Attributes:
        called: a message that wakes the node waits in memory.
        wake_ns: when the node wants its timer; None while it is not active.
        sockets: of inputs that wake the node, where they have one.
        arrived: what has been handed over and is not in the statistics yet.
        finished: the node was told to stop, and has.
    """

    def __init__(self, node_class: type[Node], spec: Spec, config: Any, yard: Yard) -> None:
        self.spec = spec
        self.called = self.finished = self._active = self._stopping = False
        self._yard = yard
        self._report = Report(yard.zmq, yard.endpoints, spec.name)
        self.control = ControlServer(yard.zmq, yard.endpoints.control(spec.name))
        self.arrived: list[tuple[InputHealth, int, int, int, int]] = []
        self._fired: list[tuple[int, int]] = []  # how late a timer was, and how long it took
        self._stamp_ns = self._rehearsed_ns = 0  # of the last observation seen
        self._handler, self._timer_lateness = Histogram(), Histogram()
        self._late_timers = self._skipped_timers = 0
        self._late_ns = spec.period_ns // _LATE
        self.node = node_class(config, Context.of(spec, RealClock(), self, realtime=True))
        if isinstance(self.node, NetworkNode):
            self.node.zmq, self.node.watch = yard.zmq, yard.watch
        made = codecs(self.node.context.interface.dims)
        self.outlets = {name: outlets(name, spec, yard, made) for name in node_class.outputs}
        ports = [port for port in self.node.ports if port.topic not in spec.absent]
        waking = rates.waking(ports, spec.rates)
        call = self._call
        self.inlets = tuple(
            inlet(port.topic, call if port.topic in waking else None, spec, yard, made)
            for port in ports
        )
        readers = [port.reader for port in self.inlets if port.reader and port.wakes]
        self.sockets = [reader for reader in readers if reader.socket is not None]

    def _call(self) -> None:
        self.called = True

    # What the node's context calls.

    def emit(self, topic: str, message: Any) -> None:
        self._stamp_ns = message.stamp_ns
        for outlet in self.outlets[topic]:
            if outlet.every == 1 or rates.is_due(message, outlet.every):
                outlet.send(message)

    def event(self, kind: str, data: dict[str, Any]) -> None:
        self._report.send("event", {"kind": kind, "at_ns": monotonic_ns(), **data})

    def background(
        self, work: Callable[[], Any], done: Callable[[Any, int], None], name: str
    ) -> None:
        self._yard.background(work, done, name)

    # What the executor calls.

    @property
    def unfinished(self) -> bool:
        """Whether a socket may hold more than was taken in one go."""
        return any(reader.fresh for reader in self.sockets)

    @property
    def wake_ns(self) -> int | None:
        return self.node.next_wake_ns if self._active else None

    def rehearsal_ns(self, lead_ns: int) -> int:
        """When to rehearse: so long before the next observation; far off once that is done."""
        if self._stamp_ns == self._rehearsed_ns or not self._active:
            return _NEVER
        return self._stamp_ns + self.spec.period_ns - lead_ns

    def ready(self) -> None:
        self._report.send("ready", {"pid": os.getpid(), "generation": self.spec.generation})

    def drain(self) -> bool:
        """Hands over what has come; bookkeeping (`book`) waits until the answer is on its way.

        Returns:
            Whether anything had.
        """
        self.called = False
        on_message, clock, arrived = self.node.on_message, monotonic_ns, self.arrived
        for name, take, _, health, batch, _, reader in self.inlets:
            if reader is not None and not reader.fresh:
                continue
            for _ in range(batch):
                now = clock()
                try:
                    message = take()
                except WireError as error:
                    health.refuse(error.cause)
                    continue
                if message is None:
                    break
                if self._active:
                    on_message(name, message, now)
                arrived.append((health, message.seq, message.stamp_ns, now, clock()))
                self._stamp_ns = message.stamp_ns
        return bool(arrived)

    def book(self) -> None:
        """Statistics of what has been done since the last time."""
        handled = self._handler.add
        for health, seq, stamp_ns, now, done in self.arrived:
            health.accept(seq, stamp_ns, now)
            handled(done - now)
        for late, took in self._fired:
            self._timer_lateness.add(late)
            self._late_timers += late > self._late_ns
            handled(took)
        self.arrived.clear()
        self._fired.clear()

    def fire(self, now_ns: int) -> bool:
        """Calls the node's timer if its time has come: once, however late it is.

        A node that counts on from a time which passed long ago does not catch up in a burst: whole
        periods are skipped, and counted.
        """
        wake = self.node.next_wake_ns
        if wake is None or now_ns < wake or not self._active:
            return False
        late = now_ns - wake
        self.node.on_timer(now_ns)
        self._fired.append((late, monotonic_ns() - now_ns))
        period, following = self.spec.period_ns, self.node.next_wake_ns
        if late > period and following is not None and following <= now_ns:
            missed = (now_ns - following) // period + 1
            self.node.next_wake_ns = following + missed * period
            self._skipped_timers += missed
        return True

    def rehearse(self) -> None:
        """Walks the way of a step without effect: frames, the node, frames."""
        self._rehearsed_ns = self._stamp_ns
        for port in self.inlets:
            port.rehearse()
        self.node.rehearse()
        for made in self.outlets.values():
            made[-1].rehearse()

    def serve(self) -> None:
        """Answers the requests that have come."""
        while self.control.waiting:
            request = self.control.receive()
            if request is not None:
                self.control.answer(self._answer(*request))
        if self._stopping and not self.finished:
            self.finish()

    def _answer(self, request: str, arguments: dict[str, Any]) -> dict[str, Any]:
        now = monotonic_ns()
        try:
            if request == "status":
                result = self.status(now)
            elif request == "activate":
                if not self._active:
                    self.node.activate(now)
                    self._active = True
                result = {}
            elif request == "shutdown":
                self._stopping = True
                result = {}
            else:
                result = self.node.on_request(request, arguments, now)
        except (RequestRefused, KernelError, ValueError, TypeError, KeyError) as error:
            return {"ok": False, "error": str(error) or type(error).__name__}
        return {"ok": True, "result": result}

    def finish(self) -> None:
        """Deactivates and closes the node; its last words are on their way afterwards."""
        if self.finished:
            return
        self.finished = True
        if self._active:
            self._active = False
            self.node.deactivate(monotonic_ns())
        self.node.close()
        self._yard.tell_observers()
        self.look_after(monotonic_ns())
        for made in self.outlets.values():
            for outlet in made:
                outlet.writer.close()
        self._report.close()

    def look_after(self, now_ns: int) -> None:
        """What is to be done now and then: push what waits, and report."""
        for made in self.outlets.values():
            writer = made[-1].writer
            writer.flush()
            if writer.tap is not None:
                writer.tap.update()  # a send may have swallowed the news that somebody left
        self._report.send("health", self.status(now_ns))

    def status(self, now_ns: int) -> dict[str, Any]:
        """Everything a person may want to know of this node; JSON-able."""
        self.book()
        return {
            "pid": os.getpid(),
            "active": self._active,
            "generation": self.spec.generation,
            "rss_mb": _rss_mb(),
            "inputs": {inlet.name: inlet.health.summary(now_ns) for inlet in self.inlets},
            "outputs": {name: made[-1].writer.summary() for name, made in self.outlets.items()},
            "handler_us": self._handler.summary(),
            "timer_late_us": self._timer_lateness.summary(),
            "late_timers": self._late_timers,
            "skipped_timers": self._skipped_timers,
            "refused_requests": self.control.refused,
            "node": self.node.status(),
        }


def _rss_mb() -> float:
    with open("/proc/self/statm") as file:
        return round(int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20, 1)
