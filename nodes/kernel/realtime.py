"""The real-time executor: one node in this process, over sockets, on the wall clock."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic_ns, sleep
from typing import Any

from safetypilot.nodes.kernel import rates, schedule
from safetypilot.nodes.kernel.clock import RealClock
from safetypilot.nodes.kernel.errors import KernelError, RequestRefused
from safetypilot.nodes.kernel.health import Histogram, InputHealth
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.kernel.node import Context, Node, Spec
from safetypilot.nodes.kernel.topics import TOPICS
from safetypilot.nodes.kernel.transport import (
    POLLIN,
    ControlServer,
    Endpoints,
    LatestReader,
    LatestWriter,
    Report,
    StreamReader,
    StreamWriter,
    open_context,
    zmq_poll,
)
from safetypilot.nodes.kernel.wire import WireError, codecs

HOUSEKEEPING_NS = 500_000_000
_MS = 1_000_000
_STREAM_BATCH = 64  # stream messages taken per turn, so that a flood cannot starve the rest


class RealtimeExecutor:
    """Moves frames between sockets and a node until it is told to stop.

    Lifetime contract: on SIGTERM or `shutdown` the node finishes its current call, deactivates,
    closes and the process exits 0, within 1 s; when its parent is gone the same happens.
    """

    def __init__(
        self,
        node_class: type[Node],
        spec: Spec,
        config: Any,
        granted: schedule.Granted | None = None,
    ) -> None:
        self.spec = spec
        self._granted = granted or schedule.Granted(schedule.Settings())
        self._zmq = open_context(self._granted.io_priority)
        self._endpoints = Endpoints(spec.runtime_dir)
        interface = Interface.from_dict(spec.interface)
        self._codecs = codecs(interface.dims)
        self._report = Report(self._zmq, self._endpoints, spec.name)
        self._control = ControlServer(self._zmq, self._endpoints.control(spec.name))
        self._arrived: list[tuple[InputHealth, int, int, int, int]] = []
        self._jobs: deque[tuple[Callable[[Any, int], None], Any]] = deque()
        self._handler = Histogram()
        self._timer_lateness = Histogram()
        self._running = True
        self._active = False
        self._next_housekeeping_ns = 0
        context = Context(
            name=spec.name,
            interface=interface,
            period_ns=spec.period_ns,
            seed=spec.seed,
            run_dir=Path(spec.run_dir),
            runtime_dir=Path(spec.runtime_dir),
            clock=RealClock(),
            realtime=True,
            executor=self,
            generation=spec.generation,
            every=spec.every,
            rates=spec.rates,
            budgets_ns=spec.budgets_ns,
        )
        self.node = node_class(config, context)
        self._open_ports(node_class)

    def _open_ports(self, node_class: type[Node]) -> None:
        remap = self.spec.remap
        self._writers: dict[str, LatestWriter | StreamWriter] = {}
        self._encoders: dict[str, Callable[[Any], bytes]] = {}
        for name in node_class.outputs:
            topic = remap.get(name, name)
            if TOPICS[name].port == "latest":
                self._writers[name] = LatestWriter(self._zmq, self._endpoints, topic)
            else:
                readers = self.spec.readers.get(topic, [])
                self._writers[name] = StreamWriter(self._zmq, self._endpoints, topic, readers)
            self._encoders[name] = self._codecs[TOPICS[name].message].encode
        self._slow = {
            name: [
                (
                    n,
                    LatestWriter(
                        self._zmq, self._endpoints, rates.thinned(remap.get(name, name), n)
                    ),
                )
                for n in spaced
            ]
            for name, spaced in self.spec.slow.items()
        }
        self._readers: list[tuple[str, LatestReader | StreamReader, Any, InputHealth]] = []
        self._polled: list[tuple[Any, int]] = [(self._control.socket, POLLIN)]
        ports = [port for port in self.node.ports if port.topic not in self.spec.absent]
        waking = rates.waking(ports, self.spec.rates)
        for port in ports:
            topic = remap.get(port.topic, port.topic)
            if port.topic in self.spec.thinned:
                topic = rates.thinned(topic, self.spec.every)
            info = TOPICS[port.topic]
            reader: LatestReader | StreamReader
            if info.port == "latest":
                reader = LatestReader(self._zmq, self._endpoints.topic(topic))
            else:
                reader = StreamReader(self._zmq, self._endpoints.stream(topic, self.spec.name))
            health = InputHealth(
                self.spec.input_period_ns(port.topic),
                info.stale_after_periods,
                self.spec.rates.get(port.topic, 1),
            )
            decode = self._codecs[info.message].decode
            self._readers.append((port.topic, reader, decode, health))
            if port.topic in waking:
                self._polled.append((reader.socket, POLLIN))

    # What the node's context calls.

    def emit(self, topic: str, message: Any) -> None:
        frame = self._encoders[topic](message)
        for every, writer in self._slow.get(topic, ()):  # first: their readers have more to do
            if rates.is_due(message, every):
                writer.send(frame)
        self._writers[topic].send(frame)

    def event(self, kind: str, data: dict[str, Any]) -> None:
        self._report.send("event", {"kind": kind, "at_ns": monotonic_ns(), **data})

    def background(
        self, work: Callable[[], Any], done: Callable[[Any, int], None], name: str
    ) -> None:
        def job() -> None:
            schedule.stand_aside(self._granted)
            try:
                result: Any = work()
            except Exception as error:  # noqa: BLE001  handed to the node, which reports it
                result = error
            self._jobs.append((done, result))

        threading.Thread(target=job, name=name, daemon=True).start()

    # The loop.

    def run(self) -> None:
        """Configures the node, reports ready, and serves until told to stop."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides when to stop
        schedule.guard(self._granted, self._on_runaway)
        self.node.configure()
        schedule.rise(self._granted)
        if self._granted.missing:
            self.event("realtime", {"missing": list(self._granted.missing)})
        self._report.send("ready", {"pid": os.getpid(), "generation": self.spec.generation})
        try:
            while self._running:
                self._turn()
        finally:
            if self._active:
                self.node.deactivate(monotonic_ns())
            self.node.close()
            self._housekeeping(monotonic_ns())
            slow = [writer for spaced in self._slow.values() for _, writer in spaced]
            for writer in (*self._writers.values(), *slow):
                writer.close()
            self._report.close()
            self._zmq.destroy(300)

    def _on_signal(self, *_: Any) -> None:
        self._running = False

    def _on_runaway(self) -> None:
        seconds = schedule.RUNAWAY_US / 1e6
        text = f"ran for {seconds:g} s without sleeping; it has lost SCHED_FIFO until it restarts"
        sys.stderr.write(f"{self.spec.name}: {text}\n")
        self.event("runaway", {"text": text})

    def _turn(self) -> None:
        now = monotonic_ns()
        wake = self.node.next_wake_ns if self._active else None
        until = self._next_housekeeping_ns
        if wake is not None and wake < until:
            until = wake
        wait = until - now
        if wait >= _MS:
            ready = bool(zmq_poll(self._polled, wait // _MS))
        elif wait > 0:  # zmq_poll knows only whole milliseconds
            sleep(wait / 1e9)
            ready = True
        else:
            ready = True
        now = monotonic_ns()
        if ready or (wake is not None and now >= wake):
            self._drain()  # before the timer, which shall see what passive inputs brought
            now = monotonic_ns()
        if self._active:
            wake = self.node.next_wake_ns
            if wake is not None and now >= wake:
                self._timer_lateness.add(now - wake)
                self.node.on_timer(now)
                self._handler.add(monotonic_ns() - now)
        while self._jobs:
            done, result = self._jobs.popleft()
            done(result, monotonic_ns())
        if now >= self._next_housekeeping_ns:
            self._housekeeping(now)

    def _drain(self) -> None:
        """Hands over what has come; bookkeeping waits until the node's answer is on its way."""
        on_message, clock, arrived = self.node.on_message, monotonic_ns, self._arrived
        for topic, reader, decode, health in self._readers:
            for _ in range(_STREAM_BATCH):
                frame = reader.receive()
                if frame is None:
                    break
                now = clock()
                try:
                    message = decode(frame)
                except WireError as error:
                    health.refuse(error.cause)
                    continue
                if self._active:
                    on_message(topic, message, now)
                arrived.append((health, message.seq, message.stamp_ns, now, clock()))
        for health, seq, stamp_ns, now, done in arrived:
            health.accept(seq, stamp_ns, now)
            self._handler.add(done - now)
        arrived.clear()
        request = self._control.receive()
        if request is not None:
            self._control.answer(self._answer(*request))

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
                self._running = False
                result = {}
            else:
                result = self.node.on_request(request, arguments, now)
        except (RequestRefused, KernelError, ValueError, TypeError, KeyError) as error:
            return {"ok": False, "error": str(error) or type(error).__name__}
        return {"ok": True, "result": result}

    def _housekeeping(self, now: int) -> None:
        self._next_housekeeping_ns = now + HOUSEKEEPING_NS
        for writer in self._writers.values():
            if isinstance(writer, StreamWriter):
                writer.flush()
        self._report.send("health", self.status(now))
        if self.spec.supervisor_pid and os.getppid() != self.spec.supervisor_pid:
            self._running = False

    def status(self, now_ns: int) -> dict[str, Any]:
        """Everything a person may want to know of this process; JSON-able."""
        return {
            "pid": os.getpid(),
            "active": self._active,
            "generation": self.spec.generation,
            "rss_mb": _rss_mb(),
            "inputs": {name: health.summary(now_ns) for name, _, _, health in self._readers},
            "outputs": {name: writer.summary() for name, writer in self._writers.items()},
            "handler_us": self._handler.summary(),
            "timer_late_us": self._timer_lateness.summary(),
            "refused_requests": self._control.refused,
            "node": self.node.status(),
        }


def _rss_mb() -> float:
    with open("/proc/self/statm") as file:
        return round(int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20, 1)
