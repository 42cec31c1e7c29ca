"""The conversation of two links: greeting, clocks, and noticing when the other one is gone.

Who calls says hello until it is welcomed; both then ask each other for the time until they know it
well, and say that they are ready. From then on data flow, and each asks now and then, so that
silence means something. After silence or a goodbye everything begins anew, as another session.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import randbits
from time import monotonic_ns
from typing import Any, NamedTuple

from safetypilot.nodes.kernel.link_clock import ClockEstimate
from safetypilot.nodes.kernel.link_frames import BULK, NOW, ON_BULK, VERSION, Kind, pack, unpack
from safetypilot.nodes.kernel.wire import WireError

HELLO_NS = 200_000_000  # between two greetings
PING_NS, FIRST_PING_NS = 100_000_000, 5_000_000  # between two questions for the time
FIRST_PINGS = 8  # answers after which the time is known
_DATA = (Kind.LATEST, Kind.STREAM, Kind.TAKEN, Kind.ASK, Kind.ANSWER, Kind.BRING)

Taken = dict[str, int]
Tell = Callable[..., None]  # (kind of event, **data)


class Me(NamedTuple):
    """Who speaks.

    Attributes:
        peer: the name of the other host.
        run: this host's run.
        process: a number that no other process has.
        graph: a digest of what both hosts must agree on.
        calls: whether it calls or is called.
        silence_ns: after so long without a word the other one is gone.
    """

    host: str
    peer: str
    run: str
    process: int
    graph: str
    calls: bool
    silence_ns: int


class Talk:
    """One end of the conversation; knows no socket.

    Args:
        send: (process, lane, frame) -> whether it is on its way.
        renew: gives up the connections and makes new ones.
        taken: what has been taken of the other host's streams, topic -> number.
        begin: called when a session begins, with what the other host has taken of ours; None:
            it does not know this process.
        end: called when a session has ended, with the reason and whether it was a goodbye.

    Attributes:
        up: data may be sent, and come.
        leaving: it has said goodbye.
        process, run: of the other host, in this session or the last one.
        next_ns: when `tick` has something to do.
    """

    def __init__(
        self,
        me: Me,
        send: Callable[[int, bytes, bytes], bool],
        renew: Callable[[], None],
        taken: Callable[[], Taken],
        begin: Callable[[Taken | None, bool], None],
        end: Callable[[str, bool], None],
        tell: Tell,
        now: Callable[[], int] = monotonic_ns,
    ) -> None:
        self.me = me
        self._send, self._renew, self._taken = send, renew, taken
        self._begin, self._end, self._tell, self._now = begin, end, tell, now
        self.clock = ClockEstimate()
        self.session = self.process = 0
        self.run = ""
        self.up = self._ready = self._peer_ready = self.leaving = False
        self.next_ns = 0
        self._hello = randbits(62)
        self._heard_ns = self._asked_ns = self._called_ns = 0
        self.malformed = self.foreign = 0
        self._refusal = ""

    # What it says.

    def say(self, kind: Kind, *fields: Any) -> bool:
        """Says something in this session; False if it cannot leave."""
        if not self.session:
            return False
        lane = BULK if kind in ON_BULK else NOW
        return self._send(self.process, lane, pack(kind, self.session, *fields))

    def tick(self, now_ns: int) -> None:
        """Says what is due."""
        if self.session and now_ns - self._heard_ns > self.me.silence_ns:
            self.finish(f"nothing heard for {self.me.silence_ns / 1e9:g} s", False)
        if self.session:
            quick = self.clock.samples < FIRST_PINGS
            if now_ns - self._asked_ns >= (FIRST_PING_NS if quick else PING_NS):
                self._asked_ns = now_ns
                self.say(Kind.PING, self._now())
                if self._ready and not self.up:
                    self.say(Kind.READY, False)
            self.next_ns = self._asked_ns + (FIRST_PING_NS if quick else PING_NS)
        elif self.me.calls:
            self._called_ns = self._called_ns or now_ns
            if now_ns - self._called_ns > 2 * self.me.silence_ns:
                self._called_ns = now_ns
                self._renew()
            me, taken = self.me, self._taken()
            hello = (VERSION, me.host, me.run, me.process, me.graph, self.process, taken)
            self._send(0, NOW, pack(Kind.HELLO, self._hello, *hello))
            self.next_ns = now_ns + HELLO_NS
        else:
            self.next_ns = now_ns + PING_NS

    def leave(self, reason: str) -> None:
        """Says goodbye; when the other one has said it too, the session is over.

        To be waited for a little: a connection that is closed with something unread in it takes
        back what was said last.
        """
        self.leaving = True
        self.say(Kind.BYE, reason)

    def finish(self, reason: str, goodbye: bool) -> None:
        """Ends the session, if there is one."""
        if not self.session:
            return
        self.session, self.up = 0, False
        self._hello = randbits(62)
        self._called_ns = self._now()
        if not goodbye:
            self._renew()
        if not self.leaving:
            self._end(reason, goodbye)

    # What it hears.

    def take(self, process: int, frame: bytes, now_ns: int) -> tuple[Kind, list[Any]] | None:
        """Takes a frame in; gives it back if it is data of this session."""
        try:
            kind, session, fields = unpack(frame)
        except WireError:
            self.malformed += 1
            return None
        if kind is Kind.HELLO:
            self._on_hello(process, session, fields, now_ns)
        elif kind is Kind.WELCOME or kind is Kind.NO:
            if self.me.calls and session == self._hello and not self.session:
                (self._on_welcome if kind is Kind.WELCOME else self._on_no)(fields, now_ns)
        elif session != self.session or (process and process != self.process):
            self.foreign += 1  # of an earlier session
        else:
            self._heard_ns = now_ns
            if kind in _DATA:
                return (kind, fields) if self._ready else None
            self._on_word(kind, fields, now_ns)
        return None

    def _on_word(self, kind: Kind, fields: list[Any], now_ns: int) -> None:
        if kind is Kind.PING:
            self.say(Kind.PONG, fields[0], now_ns, self._now())
        elif kind is Kind.PONG:
            self.clock.add(fields[0], fields[1], fields[2], now_ns)
            if self.clock.samples >= FIRST_PINGS and not self._ready:
                self._ready = True
                self._look()
                self.say(Kind.READY, self.up)
        elif kind is Kind.READY:
            self._peer_ready = True
            self._look()
            if self._ready and not fields[0]:
                self.say(Kind.READY, self.up)
        elif kind is Kind.BYE:
            if not self.leaving:
                self.say(Kind.BYE, "goodbye")
            self.finish(str(fields[0]), True)

    def _look(self) -> None:
        if self._ready and self._peer_ready and not self.up:
            self.up = True
            self._refusal = ""
            self._tell("link up", peer=self.me.peer, **self._figures())

    def _figures(self) -> dict[str, float]:
        clock = self.clock
        return {
            "round_trip_ms": round(clock.round_trip_ns / 1e6, 3),
            "offset_ms": round(clock.offset_ns / 1e6, 3),
            "uncertainty_ms": round(clock.bound_ns(self._now()) / 1e6, 3),
        }

    def _on_hello(self, process: int, session: int, fields: list[Any], now_ns: int) -> None:
        version, host, run, said, graph, of, taken = fields
        if self.me.calls or said != process:
            self.malformed += 1
            return
        if session != self.session:
            refusal = self._refuses(version, host, process, graph, now_ns)
            if refusal:
                self._send(process, NOW, pack(Kind.NO, session, refusal))
                if refusal != self._refusal:
                    self._refusal = refusal
                    self._tell("link refused", peer=host, reason=refusal)
                return
            self.finish("it has called again", False)
            self._start(session, process, run, of, taken, now_ns)
        me = self.me
        welcome = (me.host, me.run, me.process, self.process, self._taken())
        self._send(process, NOW, pack(Kind.WELCOME, session, *welcome))

    def _refuses(self, version: int, host: str, process: int, graph: str, now_ns: int) -> str:
        me = self.me
        if version != VERSION:
            return f"{me.host} speaks version {VERSION} of the link, {host} version {version}"
        if host != me.peer:
            return f"{me.host} waits for {me.peer}, not for {host}"
        if graph != me.graph:
            return (
                f"{me.host} and {host} fly different graphs: launch the same file with the same "
                "arguments on both"
            )
        if self.session and process != self.process:
            if now_ns - self._heard_ns <= me.silence_ns:
                return f"another run of {host} is linked already: {self.run}"
        return ""

    def _on_welcome(self, fields: list[Any], now_ns: int) -> None:
        host, run, process, of, taken = fields
        if host != self.me.peer:
            self._on_no([f"{self.me.peer} was called, {host} answered"], now_ns)
            return
        self._start(self._hello, process, run, of, taken, now_ns)

    def _on_no(self, fields: list[Any], now_ns: int) -> None:
        if fields[0] != self._refusal:
            self._refusal = str(fields[0])
            self._tell("link refused", peer=self.me.peer, reason=self._refusal)

    def _start(
        self, session: int, process: int, run: str, of: int, taken: Taken, now_ns: int
    ) -> None:
        known = process == self.process
        self.session, self.process, self.run = session, process, run
        self.clock = ClockEstimate()
        self.up = self._ready = self._peer_ready = False
        self._heard_ns, self._asked_ns, self.next_ns = now_ns, 0, now_ns
        self._begin(taken if of == self.me.process else None, known)
