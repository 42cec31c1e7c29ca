"""Joins the two halves of a graph that is split over two hosts, so that no node notices.

On each host one link reads the topics that go out and writes those that come in, as any node does;
the supervisor starts and restarts it. Of values only the newest crosses (link_lanes.py), stamps are
made this host's (link_frames.py), and who speaks at all is settled by keys (link_sockets.py). While
the line is cut nothing comes: what then flies is the arbiter's business, not the link's.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from secrets import randbits
from time import monotonic_ns, sleep
from typing import Any

from safetypilot.nodes.kernel import link_sockets as sockets
from safetypilot.nodes.kernel.errors import NodeError
from safetypilot.nodes.kernel.link_config import LinkConfig, is_value
from safetypilot.nodes.kernel.link_frames import Kind, Translator, pack, unpack
from safetypilot.nodes.kernel.link_relay import Relay
from safetypilot.nodes.kernel.link_talk import Me, Talk
from safetypilot.nodes.kernel.link_traffic import Traffic
from safetypilot.nodes.kernel.node import Context, Input, NetworkNode
from safetypilot.nodes.kernel.process import read_spec, run
from safetypilot.nodes.kernel.topics import TOPICS
from safetypilot.nodes.kernel.transport import Endpoints
from safetypilot.nodes.kernel.wire import WireError, codecs

ACK_SHARE = 4  # what has been taken is acknowledged after this part of a period, or with a frame
_TURN = 256  # frames taken in one go
_REQUESTS = (Kind.ASK, Kind.ANSWER, Kind.BRING)
_GOODBYE_NS = 250_000_000  # so long the other host has to say goodbye as well
_WELL_KNOWN = 0.5  # the clocks are called well known again below this part of the limit


class Link(NetworkNode):
    """One end; `shaped` gives the class the topics of a config."""

    Config = LinkConfig

    def __init__(self, config: LinkConfig, context: Context) -> None:
        super().__init__(config, context)
        self._codecs = codecs(context.interface.dims)
        self._translator = Translator(home="observation" in config.sends)
        self._line: sockets.Listener | sockets.Caller | None = None
        me = Me(
            config.host, config.peer, context.runtime_dir.name, randbits(62), config.graph,
            config.calls, int(config.silence_s * 1e9),
        )  # fmt: skip
        self._talk = talk = Talk(
            me, self._send, self._renew, self._taken, self._begin, self._end, context.event
        )
        self._traffic = Traffic(
            {topic: self._period_ns(topic) for topic in config.sends if is_value(topic)},
            [topic for topic in config.sends if not is_value(topic)],
            [topic for topic in config.receives if is_value(topic)],
            [topic for topic in config.receives if not is_value(topic)],
            talk.say,
            context.period_ns // ACK_SHARE,
        )
        self._relay = Relay(
            talk, Endpoints(context.runtime_dir), config.nodes, config.stoppers, config.elsewhere,
            context.run_dir, context.background,
        )  # fmt: skip
        self._active = self._uncertain = False
        self._bound_to = ""  # the run of the plant, once it has been met
        self._losses = 0
        self._down = "not linked yet"
        self._refused: dict[str, int] = {}
        self._last: tuple[str, bytes] | None = None  # that came, to rehearse with
        self._told: set[str] = set()  # why handshakes were refused, as far as that was said

    def _period_ns(self, topic: str) -> int:
        context = self.context
        return context.period_ns // context.every * context.rates.get(topic, 1)

    # Its life.

    def configure(self) -> None:
        config, keys = self.config, self._keys()
        if config.calls:
            line: sockets.Listener | sockets.Caller = sockets.Caller(
                self.zmq, config.address, keys, self._talk.me.process
            )
        else:
            line = sockets.Listener(self.zmq, config.address, keys)
        self._line = line
        for socket in line.sockets:
            self.watch(socket, self._come)
        for socket in line.others:
            self.watch(socket, line.look_after)
        self._relay.open(self.zmq, self.watch)

    def _keys(self) -> sockets.Keys:
        try:
            secret = bytes.fromhex(Path(self.config.secret).read_text().split()[0])
            public = sockets.public_of(secret)
        except (OSError, ValueError, IndexError) as error:
            raise NodeError(f"the secret key {self.config.secret} is of no use: {error}") from None
        return sockets.Keys(public, secret, bytes.fromhex(self.config.peer_key))

    def activate(self, now_ns: int) -> None:
        self._active = True
        self.next_wake_ns = now_ns
        what = "link calls" if self.config.calls else "link listens"
        self.context.event(what, peer=self.config.peer, address=self.config.address)

    def deactivate(self, now_ns: int) -> None:
        self._active = False
        self._talk.leave("its run has ended")
        while self._talk.session and monotonic_ns() < now_ns + _GOODBYE_NS:
            self._hear()
            sleep(0.001)

    def close(self) -> None:
        self._relay.close()
        line, self._line = self._line, None
        if line is not None:
            line.close()

    # Sessions.

    def _send(self, process: int, lane: bytes, frame: bytes) -> bool:
        return self._line is not None and self._line.send(process, lane, frame)

    def _renew(self) -> None:
        if self._line is not None:
            self._line.renew()

    def _taken(self) -> dict[str, int]:
        return self._traffic.taken()

    def _begin(self, taken: Mapping[str, int] | None, known: bool) -> None:
        self._traffic.restart(taken, known)
        if "observation" not in self.config.receives:
            return
        if self._bound_to and self._talk.run != self._bound_to:
            reason = f"{self.config.peer} has begun another run without ending this one"
            self.context.event("run over", reason=reason, failed=True)
        self._bound_to = self._bound_to or self._talk.run

    def _end(self, reason: str, goodbye: bool) -> None:
        self._losses += 1
        self._down = reason
        self.context.event("link lost", peer=self.config.peer, reason=reason)
        if goodbye and "observation" in self.config.receives:
            self.context.event("run over", reason=f"{self.config.peer} says that {reason}")

    # What goes out.

    def on_message(self, topic: str, message: Any, now_ns: int) -> None:
        if topic == "observation":
            self._translator.note(message)
        up = self._talk.up
        if up or not is_value(topic):
            self._traffic.put(topic, self._codecs[type(message)].encode(message), up)
        else:
            self._traffic.while_down += 1
        if up:
            self._traffic.pump(self._talk.clock.round_trip_ns)
            self._look_again()

    def on_timer(self, now_ns: int) -> None:
        talk = self._talk
        self._traffic.acknowledge(now_ns)
        if now_ns >= talk.next_ns:
            talk.tick(now_ns)
            self._look_after(now_ns)
            self._relay.look_after(now_ns)
        if talk.up:
            self._traffic.pump(talk.clock.round_trip_ns)
        self._look_again()
        self.next_wake_ns = self._traffic.due_ns(talk.next_ns)

    def _look_again(self) -> None:
        """After sending: the news that something has come may have been swallowed."""
        if self._line is not None and self._line.waiting:
            self._come()

    def _look_after(self, now_ns: int) -> None:
        """Says once what a person should know."""
        if self._line is not None:
            self._line.look_after()
            for cause in self._line.refused.keys() - self._told:
                self._told.add(cause)
                self.context.event("link refused a handshake", cause=cause)
        bound_ms, limit = self._talk.clock.bound_ns(now_ns) / 1e6, self.config.uncertainty_ms
        if self._talk.up and not self._uncertain and bound_ms > limit:
            self._uncertain = True
            self.context.event(
                "clocks uncertain",
                uncertainty_ms=round(bound_ms, 3),
                limit_ms=limit,
                meaning=f"ages on {self._away} may be wrong by that much; what the arbiter goes by "
                "is exact",
            )
        elif self._uncertain and bound_ms < _WELL_KNOWN * limit:
            self._uncertain = False

    @property
    def _away(self) -> str:
        """The host without the plant."""
        return str(self.config.peer if "observation" in self.config.sends else self.config.host)

    # What comes in.

    def _come(self) -> None:
        """Something may have come."""
        if self._line is None or not self._active:
            return
        self._hear()
        if self._talk.up:
            self._traffic.pump(self._talk.clock.round_trip_ns)
        again_ns = monotonic_ns() if self._line.waiting else self._talk.next_ns
        self.next_wake_ns = self._traffic.due_ns(again_ns)

    def _hear(self) -> None:
        """Takes what has come: of values the newest only, however many were queued."""
        newest: dict[str, bytes] = {}
        for _ in range(_TURN):
            got = self._line.receive() if self._line else None
            if got is None:
                break
            data = self._talk.take(*got, monotonic_ns())
            if data is None:
                continue
            if data[0] in _REQUESTS:
                self._relay.take(*data)
            else:
                for topic, frame in self._traffic.take(*data, newest):
                    self._deliver(topic, frame)
        for topic, frame in newest.items():
            self._deliver(topic, frame)

    def rehearse(self) -> None:
        """What a frame goes through on arrival, with the last one."""
        if self._last is not None:
            topic, frame = self._last
            unpack(pack(Kind.LATEST, 0, topic, 0, frame, {}))
            with suppress(WireError):
                self._here(topic, frame)

    def _deliver(self, topic: str, frame: bytes) -> None:
        try:
            here = self._here(topic, frame)
        except WireError as error:
            cause = f"{topic}: {error.cause}"
            self._refused[cause] = self._refused.get(cause, 0) + 1
            return
        self.context.emit(topic, here)
        self._last = topic, frame

    def _here(self, topic: str, frame: bytes) -> Any:
        message = self._codecs[TOPICS[topic].message].decode(frame)
        return self._translator.here(topic, message, self._talk.clock.offset_ns, monotonic_ns())

    def status(self) -> dict[str, Any]:
        talk, now_ns = self._talk, monotonic_ns()
        return {
            "peer": self.config.peer,
            "up": talk.up,
            "down_because": "" if talk.up else self._down,
            "losses": self._losses,
            **talk.clock.summary(now_ns),
            "clocks_uncertain": self._uncertain,
            **self._traffic.summary(),
            "refused": dict(self._refused),
            "refused_handshakes": dict(self._line.refused) if self._line else {},
            "malformed": talk.malformed,
            "of_earlier_sessions": talk.foreign,
        }


def shaped(config: Mapping[str, Any]) -> type[Link]:
    """The class for a config: its topics are those that cross the link."""
    ports = {
        "inputs": tuple(Input(topic) for topic in config["sends"]),
        "outputs": tuple(config["receives"]),
    }
    return type("Link", (Link,), ports)


def main() -> None:
    """Runs the link that the spec file named on the command line describes; never returns."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {Path(sys.argv[0]).name} SPEC.json (the supervisor starts links)")
    spec = read_spec(Path(sys.argv[1]))
    run([(shaped(spec.config), spec)], "")


if __name__ == "__main__":
    main()
