"""The ways to stop a robot that need neither the graph nor the network nor an import.

A thread of the bridge's own process waits on all of them, whatever the control loop is doing:

- a datagram on a private socket (`safetypilot bridge estop`, or a key of `bridge operator`)
- SIGUSR1 to the bridge (`kill -USR1 PID`, from any shell)
- a byte on a file: a FIFO, or the device of a stop button, whose loss is a stop too
- a button of a joystick, or its loss
- silence of the operator's heartbeat, where one is asked for, or of the supervisor's: while that is
  frozen, Ctrl-C stops nothing

A line that fails is lost, and a lost line is a stop; the thread goes on with the others. Should it
end all the same, `dead` says so, and the bridge does not fly without it.

`test` sends a word through each of them that can be tested without a person.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, monotonic_ns, sleep

from safetypilot.bridge.contract import DriverError

SOCKET = "estop.sock"  # in the run's private directory
STOP, TEST = b"estop", b"test"
BEAT, ALIVE = b"beat", b"alive"  # the operator's, the supervisor's
_WHOSE = {BEAT: "operator", ALIVE: "supervisor"}
_EVENT = struct.Struct("<IhBB")  # linux/joystick.h, js_event: time, value, type, number
_BUTTON = 1
_POKE = b"safetypilot tests this line\n"  # on a FIFO; whatever else comes with it is a stop
_TURN_S = 0.02


@dataclass(frozen=True, slots=True)
class Wiring:
    """Which lines there are beside socket and signal.

    Attributes:
        heartbeat_s: longest silence of the operator while the robot is active; 0: none asked for.
        supervisor_s: the same of the supervisor.
        watch: a FIFO or device any byte of which is a stop.
        joystick: a device such as /dev/input/js0.
        button: of the joystick.
    """

    heartbeat_s: float = 0.0
    supervisor_s: float = 0.0
    watch: str = ""
    joystick: str = ""
    button: int = 0

    def __post_init__(self) -> None:
        for name in ("heartbeat_s", "supervisor_s"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} is {value}; it is a time, or 0 for none")


class Lines:
    """Waits on every line, in a thread of its own.

    Args:
        trip: called with the reason; from this thread, or in the main one for the signal.
        path: of the socket, in a directory of this user alone.
    """

    def __init__(self, trip: Callable[[str], None], path: Path, wiring: Wiring) -> None:
        self._trip, self._path, self._wiring = trip, path, wiring
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._files: dict[int, tuple[str, Callable[[bytes], bool]]] = {}
        self._running = self._signal = False
        self._testing: dict[str, threading.Event] = {}
        self._expected = False
        self._owed = ""  # a stop that could not be handed over
        self._beats = {BEAT: 0, ALIVE: 0}
        self._longest_s = {BEAT: wiring.heartbeat_s, ALIVE: wiring.supervisor_s}
        self._thread = threading.Thread(target=self._wait, name="e-stop", daemon=True)
        self.garbage = 0

    def open(self) -> None:
        """Opens all lines and begins to wait; the signal's, in the main thread only.

        Raises:
            DriverError: a line cannot be opened: without it the robot may not fly.
        """
        try:
            self._path.unlink(missing_ok=True)
            self._socket.bind(str(self._path))
            self._path.chmod(0o600)
            for name, its, stops in (
                ("watched file", self._wiring.watch, bool),
                ("joystick", self._wiring.joystick, self._pressed),
            ):
                if its:
                    # A FIFO stays open when those who write to it leave.
                    how = os.O_RDWR if _is_fifo(its) else os.O_RDONLY
                    self._files[os.open(its, how | os.O_NONBLOCK)] = (name, stops)
        except OSError as error:
            raise DriverError(f"e-stop line {error.filename or self._path}: {error}") from None
        self._signal = threading.current_thread() is threading.main_thread()
        if self._signal:
            signal.signal(signal.SIGUSR1, lambda *_: self._signalled())
        self._running = True
        self._thread.start()

    def expect(self, beating: bool) -> None:
        """From now on the heartbeats are needed, or not any more."""
        self._expected = beating

    @property
    def dead(self) -> bool:
        """Whether nobody waits on the lines any more, although nobody closed them."""
        return self._running and not self._thread.is_alive()

    @property
    def missing(self) -> str:
        """Whose heartbeat is asked for and has not been heard lately; empty: nobody's."""
        now_ns = monotonic_ns()
        for word, longest_s in self._longest_s.items():
            if longest_s and now_ns - self._beats[word] > longest_s * 1e9:
                return _WHOSE[word]
        return ""

    def test(self, patience_s: float = 1.0) -> dict[str, str]:
        """Sends a word through each line; nothing stops by it, but by what others say meanwhile.

        Returns:
            line -> "works", or why it cannot be tested.

        Raises:
            DriverError: a word did not come through.
        """
        results = {name: "needs a person to be tested" for name, _ in self._files.values()}
        senders: dict[str, Callable[[], object]] = {"socket": lambda: send(self._path, TEST)}
        if self._signal:
            senders["signal"] = lambda: os.kill(os.getpid(), signal.SIGUSR1)
        if _is_fifo(self._wiring.watch):
            senders["watched file"] = lambda: _poke(self._wiring.watch)
        for name, send_word in senders.items():
            came = self._testing[name] = threading.Event()
            with suppress(OSError):  # then nothing comes
                send_word()
            deadline = monotonic() + patience_s
            while not came.is_set() and monotonic() < deadline:
                came.wait(0.01)  # the signal's handler needs this thread to run
            del self._testing[name]
            if not came.is_set():
                raise DriverError(f"the e-stop's {name} line is dead: it may not fly like this")
            results[name] = "works"
        return results

    def close(self) -> None:
        """Ends the waiting."""
        if self._running:
            self._running = False
            self._thread.join(1.0)
        if self._signal:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        self._socket.close()
        for fd in self._files:
            os.close(fd)
        self._files.clear()
        self._path.unlink(missing_ok=True)

    # In the thread.

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        for fd in self._files:
            poll.register(fd, select.POLLIN)
        while self._running:
            try:
                self._turn(poll)
            except Exception as error:  # noqa: BLE001  no bug may end the watch over all lines
                self._say(f"the e-stop lines cannot be watched: {error!r}")
                sleep(_TURN_S)

    def _turn(self, poll: select.poll) -> None:
        if self._owed:
            self._say(self._owed)
        for fd, _ in poll.poll(_TURN_S * 1e3):
            if not self._take(fd):
                poll.unregister(fd)
        if self._expected and (whose := self.missing):
            self._expected = False
            self._say(f"the {whose}'s heartbeat is silent")

    def _take(self, fd: int) -> bool:
        """Takes what a line has; False if it is lost, which is a stop."""
        name = "socket"
        try:
            if fd == self._socket.fileno():
                self._hear()
                return True
            name, stops = self._files[fd]
            return self._read(fd, name, stops)
        except Exception as error:  # noqa: BLE001  whatever it is, this line says nothing any more
            self._say(f"the {name} failed: {error!r}")
            return False

    def _say(self, reason: str) -> None:
        """Hands a stop over; one that fails is handed over again in the next turn."""
        try:
            self._trip(reason)
        except Exception:  # noqa: BLE001  whoever is to stop the robot has a bug; a stop it remains
            self._owed = reason
        else:
            self._owed = ""

    def _hear(self) -> None:
        word, _, reason = self._socket.recv(4096).partition(b" ")
        if word in self._beats:
            self._beats[word] = monotonic_ns()
        elif word in (STOP, TEST):
            if word == STOP:
                self._say(reason.decode("utf-8", "replace") or "no reason given")
            elif "socket" in self._testing:
                self._testing["socket"].set()
        else:
            self.garbage += 1

    def _read(self, fd: int, name: str, stops: Callable[[bytes], bool]) -> bool:
        """Takes what a file has; False if it is gone."""
        try:
            data = os.read(fd, 4096)
        except OSError:
            data = b""
        if not data:
            self._say(f"the {name} is gone")
            return False
        if (testing := self._testing.get(name)) and _POKE in data:
            data = data.replace(_POKE, b"", 1)
            testing.set()
        if stops(data):
            self._say(f"the {name} says so")
        return True

    def _pressed(self, data: bytes) -> bool:
        whole = len(data) - len(data) % _EVENT.size
        return any(
            value == 1 and kind == _BUTTON and number == self._wiring.button
            for _, value, kind, number in _EVENT.iter_unpack(data[:whole])
        )

    # In the main thread.

    def _signalled(self) -> None:
        testing = self._testing.get("signal")
        if testing is None or testing.is_set():  # a test sends one: the second is somebody's
            self._say("signal SIGUSR1")
        else:
            testing.set()


def send(path: Path, word: bytes, reason: str = "") -> None:
    """Says a word to the bridge that listens there; never blocks.

    Raises:
        OSError: nobody listens, or it has not listened for long.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.setblocking(False)
        line.connect(str(path))
        line.send(word + (b" " + reason.encode() if reason else b""))


def _is_fifo(path: str) -> bool:
    return bool(path) and stat.S_ISFIFO(os.stat(path).st_mode)


def _poke(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.write(fd, _POKE)
    os.close(fd)
