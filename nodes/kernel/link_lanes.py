"""How topics cross a link: of a value only the newest, of a stream everything, both bounded.

What is in flight towards the other host cannot be called back, so little is allowed to be: of a
value as many frames as fit on the way, of a stream a fixed number. What comes meanwhile waits here,
where a newer value takes the place of an older one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

_BIG = 16_384  # bytes; of larger values none is sent before the one ahead has arrived
_MOST = 8  # values in flight, on however long a way
STREAM_WINDOW, STREAM_WINDOW_BYTES = 64, 1 << 20  # in flight
STREAM_BACKLOG = 10_000  # as for a reader on the same host (ports.py)

Send = Callable[[str, int, bytes], bool]  # (topic, number, frame) -> whether it is on its way


class LatestOut:
    """A value on its way out.

    Attributes:
        sent: frames so far.
        overtaken: values that a newer one replaced before they could be sent.
    """

    def __init__(self, topic: str, period_ns: int) -> None:
        self.topic = topic
        self._period_ns = max(1, period_ns)
        self.sent = self.taken = self.overtaken = 0
        self._waiting: bytes | None = None

    def restart(self) -> None:
        """A new session: nothing is in flight, and nothing old is sent."""
        self.taken = self.sent
        self._waiting = None

    def put(self, frame: bytes) -> None:
        self.overtaken += self._waiting is not None
        self._waiting = frame

    def window(self, size: int, round_trip_ns: int) -> int:
        """How many may be in flight: as many as leave before the first is acknowledged.

        One more where it costs little: when TCP loses a frame, it notices by the next.
        """
        fit = 1 + 3 * round_trip_ns // (2 * self._period_ns)
        return min(fit + (size < _BIG), _MOST)

    def pump(self, send: Send, round_trip_ns: int) -> None:
        """Sends what waits, if it may."""
        frame = self._waiting
        if frame is None or self.sent - self.taken >= self.window(len(frame), round_trip_ns):
            return
        if send(self.topic, self.sent + 1, frame):
            self.sent += 1
            self._waiting = None

    def acknowledge(self, number: int) -> None:
        if self.taken < number <= self.sent:
            self.taken = number


class StreamOut:
    """A stream on its way out; what the other host has not acknowledged is sent again to it.

    Attributes:
        dropped: messages given up because too many waited.
    """

    def __init__(self, topic: str, backlog: int = STREAM_BACKLOG) -> None:
        self.topic = topic
        self._limit = backlog
        self._frames: deque[bytes] = deque()  # not acknowledged; the first has number `taken` + 1
        self.taken = self.dropped = 0
        self._flying = self._flying_bytes = 0  # the first of them are under way in this session

    @property
    def waiting(self) -> int:
        return len(self._frames)

    def restart(self, taken: int | None) -> None:
        """A new session.

        Args:
            taken: the last that the other host has; None: it knows of none.
        """
        self._flying = self._flying_bytes = 0
        if taken is not None:
            self._forget(taken)

    def put(self, frame: bytes) -> None:
        if len(self._frames) >= self._limit:
            oldest = self._frames.popleft()
            self.taken += 1
            if self._flying:
                self._flying -= 1
                self._flying_bytes -= len(oldest)
            else:
                self.dropped += 1
        self._frames.append(frame)

    def pump(self, send: Send) -> None:
        while self._flying < min(len(self._frames), STREAM_WINDOW):
            frame = self._frames[self._flying]
            if self._flying and self._flying_bytes + len(frame) > STREAM_WINDOW_BYTES:
                return
            if not send(self.topic, self.taken + self._flying + 1, frame):
                return
            self._flying += 1
            self._flying_bytes += len(frame)

    def acknowledge(self, number: int) -> None:
        if number <= self.taken + self._flying:
            self._forget(number)

    def _forget(self, number: int) -> None:
        while self._frames and self.taken < number:
            frame = self._frames.popleft()
            self.taken += 1
            if self._flying:
                self._flying -= 1
                self._flying_bytes -= len(frame)


class StreamIn:
    """A stream as it arrives: each message once, in order; gaps are counted.

    Attributes:
        lost: messages that the other host gave up before they could be sent.
    """

    def __init__(self) -> None:
        self.taken: int | None = None
        self.lost = 0

    def take(self, number: int) -> bool:
        """Whether this one is new."""
        if self.taken is not None:
            if number <= self.taken:
                return False
            self.lost += number - self.taken - 1
        self.taken = number
        return True
