"""The real-time executor: the nodes of one process, on the wall clock.

A turn: sleep until a bell rings, a socket has something or the next absolute time comes; hand over
what has come; call the timers that are due; then, when nothing is left to hand over, the rest.

Between two steps other work empties the CPU's caches, so a step costs what it touches for the first
time, ten times what it costs in a loop. Therefore: one select() to sleep, which knows microseconds,
so that there is no timer to be set; sockets, which seldom have something, behind one epoll; all
that can wait after the answer.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Any

from safetypilot.nodes.kernel import board, rates, schedule
from safetypilot.nodes.kernel.node import Node, Spec
from safetypilot.nodes.kernel.station import Station
from safetypilot.nodes.kernel.transport import Endpoints, descriptor, open_context
from safetypilot.nodes.kernel.wiring import Yard

HOUSEKEEPING_NS = 500_000_000
_QUIET = 4  # observers and housekeeping wait until nothing has come for this part of a period
_LATER = 64  # frames for observers that may wait
_NONE: tuple[int, ...] = ()
_EDGE = select.EPOLLIN | select.EPOLLET

Crew = Sequence[tuple[type[Node], Spec, Any]]  # (class, spec, config) of each node


class RealtimeExecutor:
    """Keeps the stations of one process going until each is told to stop.

    Lifetime contract: on SIGTERM or `shutdown` a node finishes its current call, deactivates and
    closes; when all have, the process exits 0, within 1 s. So it does when its parent is gone.
    """

    def __init__(self, crew: Crew, granted: schedule.Granted | None = None) -> None:
        spec = crew[0][1]
        self._name = "+".join(spec.name for _, spec, _ in crew)
        self._parent = spec.supervisor_pid
        self._granted = granted or schedule.Granted(schedule.Settings())
        self._zmq = open_context(self._granted.io_priority)
        self._bell = spec.bell if spec.bell >= 0 else board.create_bell()
        self._poll = select.epoll()
        self._watched = (self._bell, self._poll.fileno())
        self._doors: dict[int, Callable[[], bool]] = {}  # each says if a message may have come
        self._requests: list[Station] = []
        self._jobs: deque[tuple[Callable[[Any, int], None], Any]] = deque()
        self._running = True
        self._quiet_ns = min(spec.period_ns for _, spec, _ in crew) // _QUIET
        self._look_after_ns = self._latest_ns = self._tell_ns = 0
        self._awake_until_ns = 0
        # More than a third of a period would leave the machine too little else.
        lead_ns = self._granted.settings.rehearse_us * 1000
        self._lead_ns = min(lead_ns, min(spec.period_ns for _, spec, _ in crew) // 3)
        self._yard = yard = Yard(
            self._zmq, Endpoints(spec.runtime_dir), self._background, self._watch
        )
        self._later = yard.later
        if len(crew) > 1:
            yard.handovers = {topic: [] for member in crew for topic in _written(*member[:2])}
        self.stations = [Station(*member, yard) for member in crew]
        self._open_doors()

    def _open_doors(self) -> None:
        """Everything that may have something for us, by file descriptor."""
        for station in self.stations:
            self._open_door(station.control.socket, self._request_for(station))
            for port in station.inlets:
                if port.reader is not None and port.reader.socket is not None:
                    self._open_door(port.reader.socket, _look_at(port.reader, port.wakes))
            for outlets in station.outlets.values():
                for outlet in outlets:
                    if outlet.writer.tap is not None:
                        self._open_door(outlet.writer.tap.socket, _update(outlet.writer.tap))

    def _open_door(self, socket: Any, come: Callable[[], bool]) -> None:
        fd = descriptor(socket)
        self._poll.register(fd, _EDGE)
        self._doors[fd] = come

    def _watch(self, socket: Any, call: Callable[[], None]) -> None:
        def come() -> bool:
            call()
            return False

        self._open_door(socket, come)

    def _request_for(self, station: Station) -> Callable[[], bool]:
        def come() -> bool:
            self._requests.append(station)
            return False

        return come

    def _background(
        self, work: Callable[[], Any], done: Callable[[Any, int], None], name: str
    ) -> None:
        def job() -> None:
            schedule.stand_aside(self._granted)
            try:
                result: Any = work()
            except Exception as error:  # noqa: BLE001  handed to the node, which reports it
                result = error
            self._jobs.append((done, result))
            os.eventfd_write(self._bell, 1)

        threading.Thread(target=job, name=name, daemon=True).start()

    def run(self) -> None:
        """Configures the nodes, reports them ready, and serves until told to stop."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides when to stop
        schedule.guard(self._granted, self._on_runaway)
        for station in self.stations:
            station.node.configure()
        schedule.rise(self._granted)
        if self._granted.missing:
            self.stations[0].event("realtime", {"missing": list(self._granted.missing)})
        for station in self.stations:
            station.ready()
        self._requests.extend(self.stations)
        try:
            while self._running:
                self.turn()
        finally:
            for station in self.stations:
                station.finish()
            self._poll.close()
            self._zmq.destroy(300)

    def _on_signal(self, *_: Any) -> None:
        self._running = False
        os.eventfd_write(self._bell, 1)  # a poll goes on after a signal

    def _on_runaway(self) -> None:
        seconds = schedule.RUNAWAY_US / 1e6
        text = f"ran for {seconds:g} s without sleeping; it has lost SCHED_FIFO until it restarts"
        sys.stderr.write(f"{self._name}: {text}\n")
        self.stations[0].event("runaway", {"text": text})

    # The loop.

    def turn(self) -> None:
        """Sleeps if there is nothing to do, then does what there is."""
        rung, now = self._wait()
        busy = False
        for station in self.stations:
            wake = station.wake_ns
            if rung or (wake is not None and now >= wake):
                # Before the timer, which shall see what passive inputs brought.
                busy |= station.drain()
                busy |= station.fire(monotonic_ns())
        if len(self.stations) > 1:
            busy |= self._settle()
        if self._lead_ns and not busy:
            self._rehearse(now)
        while self._jobs:
            done, result = self._jobs.popleft()
            done(result, monotonic_ns())
        if self._later and (len(self._later) > _LATER or (now >= self._tell_ns and not busy)):
            self._yard.tell_observers()  # while a step goes on, others need this CPU for it
        while self._requests:
            self._requests.pop().serve()
            if all(station.finished for station in self.stations):
                self._running = False
        for station in self.stations:
            if station.arrived:
                station.book()
        now = monotonic_ns()
        if busy:
            self._tell_ns = now + self._quiet_ns
            self._look_after_ns = max(self._look_after_ns, min(self._tell_ns, self._latest_ns))
        if now >= self._look_after_ns:
            self._look_after(now)

    def _wait(self) -> tuple[bool, int]:
        """Waits for something to happen.

        Returns:
            Whether a message may have come, and the time.
        """
        until = self._look_after_ns
        if self._later and self._tell_ns < until:
            until = self._tell_ns
        unfinished = False
        for station in self.stations:
            wake = station.wake_ns
            if wake is not None and wake < until:
                until = wake
            if self._lead_ns:
                until = min(until, station.rehearsal_ns(self._lead_ns))
            if station.sockets:
                unfinished |= station.unfinished
        now = monotonic_ns()
        stay = unfinished or self._requests or now < self._awake_until_ns
        wait = 0 if stay or until <= now else (until - now) / 1e9
        ready, _, _ = select.select(self._watched, _NONE, _NONE, wait)
        rung = unfinished
        for fd in ready:
            if fd == self._bell:
                os.eventfd_read(fd)
                rung = True
            else:
                for door, _ in self._poll.poll(0):
                    rung |= self._doors[door]()
        return rung, monotonic_ns()

    def _settle(self) -> bool:
        """Hands over messages in memory until no node has one that wakes it."""
        busy = False
        while any(station.called for station in self.stations):
            for station in self.stations:
                if station.called:
                    busy |= station.drain()
        return busy

    def _rehearse(self, now: int) -> None:
        """Rehearses what is due, and stays awake if the step then begins here, by a timer.

        Were it to sleep once more, other work would empty the caches again.
        """
        for station in self.stations:
            if now >= station.rehearsal_ns(self._lead_ns):
                station.rehearse()
                wake = station.wake_ns
                if wake is not None and wake - now <= self._lead_ns:
                    self._awake_until_ns = wake

    def _look_after(self, now: int) -> None:
        """Housekeeping, in a quiet moment."""
        self._look_after_ns = now + HOUSEKEEPING_NS
        self._latest_ns = now + 2 * HOUSEKEEPING_NS
        for station in self.stations:
            if not station.finished:
                station.look_after(now)
        if self._granted.settings.gc == "off":
            gc.collect(0)
        if self._parent and os.getppid() != self._parent:
            self._running = False


def _written(node_class: type[Node], spec: Spec) -> list[str]:
    """The topics that a node writes, by the graph's names, thinned out ones included."""
    return [
        rates.thinned(spec.remap.get(name, name), every)
        for name in node_class.outputs
        for every in (1, *spec.slow.get(name, ()))
    ]


def _look_at(reader: Any, wakes: bool) -> Callable[[], bool]:
    def come() -> bool:
        reader.fresh = True
        return wakes

    return come


def _update(tap: Any) -> Callable[[], bool]:
    def come() -> bool:
        tap.update()
        return False

    return come
