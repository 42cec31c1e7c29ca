"""The line between two hosts: ZeroMQ over TCP, encrypted and authenticated with CURVE.

One host listens at the address that the launch file names, the other calls it, over one connection
for values and one for streams. Each knows the other's public key. Whoever comes without the right
one, or speaks something else, gets no further than the handshake and is counted.
"""

from __future__ import annotations

from socket import AF_INET6, SOCK_STREAM, getaddrinfo
from time import monotonic
from typing import Any, NamedTuple

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from safetypilot.nodes.kernel.errors import NodeError
from safetypilot.nodes.kernel.link_frames import BULK, NOW
from safetypilot.nodes.kernel.transport import NOBLOCK, has_frame, open_socket

KEY_BYTES = 32
_PROCESS_BYTES = 8
_PIPE = 256  # messages in a socket; links themselves keep far fewer in flight
_ZAP = "inproc://zeromq.zap.01"
_DEAD_MS = 2000  # data that nobody acknowledges for so long end a TCP connection
_HANDSHAKE_S = 2.0  # who says nothing is not listened to for longer
_LINGER_MS = 200
_NO_CRYPTO, _NO_CURVE = 0x11000001, 0x11000002  # ZMQ_PROTOCOL_ERROR_ZMTP_...
PLAIN, OTHER_KEY, STRANGER = "plain text", "not the key of this host", "a stranger's key"
BROKEN_OFF, NOISE = "broken off", "no handshake"


class Keys(NamedTuple):
    """Our pair and the other host's public key, 32 bytes each."""

    public: bytes
    secret: bytes
    peer: bytes


def make_pair() -> tuple[bytes, bytes]:
    """A new pair: public, secret."""
    public, secret = zmq.curve_keypair()
    return z85.decode(public), z85.decode(secret)


def public_of(secret: bytes) -> bytes:
    """The public key that belongs to a secret one."""
    found: bytes = z85.decode(zmq.curve_public(z85.encode(secret)))
    return found


class _Line:
    """What both ends have in common.

    Attributes:
        sockets: readable when something may have come; call `receive` then.
        others: readable when a handshake wants attention; call `look_after` then.
        refused: handshakes that failed, by cause.
    """

    def __init__(self, context: zmq.Context[Any], address: str, keys: Keys) -> None:
        self._context = context
        self._address = address
        self._keys = keys
        self.sockets: list[zmq.Socket[Any]] = []
        self.others: list[zmq.Socket[Any]] = []
        self._monitors: list[zmq.Socket[Any]] = []
        self.refused: dict[str, int] = {}

    def _open(self, kind: int, **options: int) -> zmq.Socket[Any]:
        socket = open_socket(
            self._context, kind, SNDHWM=_PIPE, RCVHWM=_PIPE, TCP_MAXRT=_DEAD_MS,
            HANDSHAKE_IVL=int(1e3 * _HANDSHAKE_S), IPV6=int("[" in self._address),
            LINGER=_LINGER_MS, **options,
        )  # fmt: skip
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret)
        self.sockets.append(socket)
        self._monitors.append(socket.get_monitor_socket())
        self.others.append(self._monitors[-1])
        return socket

    def refuse(self, cause: str) -> None:
        self.refused[cause] = self.refused.get(cause, 0) + 1

    @property
    def waiting(self) -> bool:
        """Whether `receive` has something; to be asked after sending, which may hide that."""
        return any(has_frame(socket) for socket in self.sockets)

    def look_after(self) -> None:
        """Takes in what has become of handshakes."""
        for monitor in self._monitors:
            while has_frame(monitor):
                event = parse_monitor_message(monitor.recv_multipart(NOBLOCK))
                self._on_event(int(event["event"]), int(event["value"]))

    def _on_event(self, event: int, value: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            cause = {_NO_CRYPTO: OTHER_KEY, _NO_CURVE: PLAIN}.get(value, NOISE)
            self.refuse(cause)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self.refuse(BROKEN_OFF)

    def close(self) -> None:
        for socket in self.sockets:
            socket.disable_monitor()
        for socket in (*self.sockets, *self.others):
            socket.close()


class Listener(_Line):
    """The end that listens; only the one key of the other host is let in."""

    def __init__(self, context: zmq.Context[Any], address: str, keys: Keys) -> None:
        super().__init__(context, address, keys)
        self._zap = open_socket(context, zmq.REP)
        self._zap.bind(_ZAP)  # before the first handshake can ask
        self.others.append(self._zap)
        self._opened: dict[int, float] = {}  # connection -> since when
        self._unsettled = 0  # accepted, and no outcome yet
        options = {"ROUTER_MANDATORY": 1, "ROUTER_HANDOVER": 1, "CURVE_SERVER": 1}
        self._router = self._open(zmq.ROUTER, ZAP_ENFORCE_DOMAIN=1, **options)
        self._router.setsockopt(zmq.ZAP_DOMAIN, b"link")
        try:
            self._router.bind(_numeric(address))
        except (zmq.ZMQError, OSError) as error:
            self.close()
            raise NodeError(
                f"cannot listen at {address}: {error.strerror}; `hosts:` must name an address of "
                "this machine and a port that is free"
            ) from None

    def receive(self) -> tuple[int, bytes] | None:
        """The next frame and the process that it is from; never waits."""
        while has_frame(self._router):
            who, *parts = self._router.recv_multipart(NOBLOCK)
            if len(who) == 1 + _PROCESS_BYTES and len(parts) == 1:
                return int.from_bytes(who[1:]), parts[0]
        return None

    def send(self, process: int, lane: bytes, frame: bytes) -> bool:
        """Whether the frame is on its way; what cannot leave is not kept."""
        try:
            self._router.send_multipart(
                (lane + process.to_bytes(_PROCESS_BYTES), frame), NOBLOCK, copy=True
            )
        except zmq.ZMQError:  # nobody of that name, or it does not take any more
            return False
        return True

    def renew(self) -> None:
        """It is for the other host to call again."""

    def look_after(self) -> None:
        super().look_after()
        if self._unsettled:
            self._count_noise()
        while has_frame(self._zap):
            self._admit(self._zap.recv_multipart(NOBLOCK))

    def _admit(self, asked: list[bytes]) -> None:
        """Answers libzmq, which asks for every key that comes (ZAP, RFC 27)."""
        mechanism, key = asked[5:6], asked[6:7]
        known = mechanism == [b"CURVE"] and key == [self._keys.peer]
        if not known:
            self.refuse(STRANGER)
        status = (b"200", b"OK") if known else (b"400", b"unknown key")
        self._zap.send_multipart((b"1.0", asked[1], *status, b"", b""), NOBLOCK)

    def _on_event(self, event: int, value: int) -> None:
        super()._on_event(event, value)
        if event == zmq.EVENT_ACCEPTED:
            self._opened[value] = monotonic()
            self._unsettled += 1
        elif event == zmq.EVENT_DISCONNECTED:
            self._opened.pop(value, None)
        elif event & _OUTCOMES:
            self._unsettled -= 1

    def _count_noise(self) -> None:
        """Of noise ZeroMQ tells nothing: its connection ends without an outcome.

        One that is open and young may have an outcome yet.
        """
        since = monotonic() - 1.5 * _HANDSHAKE_S
        young = sum(opened > since for opened in self._opened.values())
        while self._unsettled > young:
            self._unsettled -= 1
            self.refuse(NOISE)


_OUTCOMES = int(
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


def _numeric(address: str) -> str:
    """The address with a number for a name; ZeroMQ listens at numbers only."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    family, _, _, _, found = getaddrinfo(host.strip("[]"), int(port), type=SOCK_STREAM)[0]
    return f"tcp://[{found[0]}]:{port}" if family == AF_INET6 else f"tcp://{found[0]}:{port}"


class Caller(_Line):
    """The end that calls, as a process of its own name; it calls again when told to."""

    def __init__(self, context: zmq.Context[Any], address: str, keys: Keys, process: int) -> None:
        super().__init__(context, address, keys)
        self._lanes = {
            lane: self._open(zmq.DEALER, IMMEDIATE=1, **_CALLING) for lane in (NOW, BULK)
        }
        for lane, socket in self._lanes.items():
            socket.setsockopt(zmq.CURVE_SERVERKEY, keys.peer)
            socket.setsockopt(zmq.ROUTING_ID, lane + process.to_bytes(_PROCESS_BYTES))
            socket.connect(address)

    def receive(self) -> tuple[int, bytes] | None:
        for socket in self.sockets:
            while has_frame(socket):
                parts = socket.recv_multipart(NOBLOCK)
                if len(parts) == 1:
                    return 0, parts[0]
        return None

    def send(self, process: int, lane: bytes, frame: bytes) -> bool:
        try:
            self._lanes[lane].send(frame, NOBLOCK)
        except zmq.Again:
            return False
        return True

    def renew(self) -> None:
        """Gives up connections that have gone silent; TCP alone would wait ever longer."""
        for socket in self.sockets:
            socket.disconnect(self._address)
            socket.connect(self._address)

    def _on_event(self, event: int, value: int) -> None:
        super()._on_event(event, value)
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self.refuse(STRANGER)


_CALLING = {"CONNECT_TIMEOUT": 1000, "RECONNECT_IVL": 100}
