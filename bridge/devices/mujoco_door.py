"""The door of the MuJoCo device: a packet socket in a private folder, and who may come in.

One client at a time is the commander; it has the session whose number its packets carry. Everybody
else may ask to become that while there is none, and is shown out with the first other packet.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import select
import shutil
import socket
import stat
import struct
import tempfile
import termios
from collections.abc import Iterator
from pathlib import Path
from time import monotonic_ns

from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.protocols.mujoco import LONGEST, Head, Kind, Refused, read_head

_MOST_LINKS = 8
_MOST_FRAMES = 64  # of one client in one turn: a flood is not to stop the clock
_LONGEST_PATH = 107  # bytes, of a Unix socket
_CREDENTIALS = struct.Struct("3i")


class Link:
    """One connection."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self.sock, self.pid = sock, pid
        self.seq = 0  # of its last packet


class Door:
    """Listens, and lets one client in.

    Attributes:
        path: of the socket.
        session: of the commander; 0: there is none.
        unsent: frames that the commander did not take.
    """

    def __init__(self, path: Path | None, end_after_s: float | None) -> None:
        """Open it.

        Args:
            path: of the socket, in a folder that is nobody else's; None: a folder of its own.
            end_after_s: without a commander for so long, the device is forsaken; None: never.

        Raises:
            DriverError: there is no such folder, it is open to others, or the path is too long.
        """
        self._own = None if path else Path(tempfile.mkdtemp(prefix="sp-mujoco-"))
        self.path = path or Path(str(self._own)) / "device"
        self.session = self.unsent = 0
        self._end_after_ns = None if end_after_s is None else round(end_after_s * 1e9)
        self._left_ns = monotonic_ns()
        self._commander: Link | None = None
        self._links: dict[socket.socket, Link] = {}
        self._buffer = memoryview(bytearray(LONGEST + 1))
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        self._watched = [self._listener]

    def _open(self) -> None:
        if len(os.fsencode(self.path)) > _LONGEST_PATH:
            raise DriverError(
                f"the socket's path {self.path} is longer than {_LONGEST_PATH} bytes; "
                "set TMPDIR to a shorter one"
            )
        try:
            folder = self.path.parent.stat()
            if folder.st_uid != os.getuid() or stat.S_IMODE(folder.st_mode) & 0o077:
                raise DriverError(f"{self.path.parent} is open to others; chmod 700 it")
            self._listener.bind(str(self.path))
        except OSError as error:
            raise DriverError(f"cannot listen at {self.path}: {error.strerror}") from None
        self._listener.listen(_MOST_LINKS)
        self._listener.setblocking(False)

    @property
    def forsaken(self) -> bool:
        """Whether nobody has commanded the device for as long as that may be."""
        return (
            self._end_after_ns is not None
            and self._commander is None
            and monotonic_ns() - self._left_ns > self._end_after_ns
        )

    def frames(self, until_ns: int) -> Iterator[tuple[Link, memoryview]]:
        """What has come, or comes first until then; each frame is to be used at once."""
        patience_s = max(0, until_ns - monotonic_ns()) * 1e-9
        for sock in select.select(self._watched, (), (), patience_s)[0]:
            if sock is self._listener:
                self._accept()
                continue
            link = self._links[sock]
            for _ in range(_MOST_FRAMES):
                size = self._receive(link)
                if size < 0:
                    break
                yield link, self._buffer[:size]
                if sock not in self._links:  # shown out meanwhile
                    break

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        pid, uid, _ = _CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if uid != os.getuid() or len(self._links) >= _MOST_LINKS:
            sock.close()
            return
        sock.setblocking(False)
        self._links[sock] = Link(sock, pid)
        self._watched = [self._listener, *self._links]

    def _receive(self, link: Link) -> int:
        """Bytes of a packet, now in the buffer; -1: there is none."""
        try:
            try:
                size = link.sock.recv_into(self._buffer, 0, socket.MSG_TRUNC)
            except ConnectionResetError:  # told before what was sent, perhaps an e-stop
                size = link.sock.recv_into(self._buffer, 0, socket.MSG_TRUNC)
        except BlockingIOError:
            return -1
        except OSError:
            size = 0
        if not size and _is_over(link.sock):
            self._show_out(link)
            return -1
        return min(size, len(self._buffer))

    def check(self, link: Link, frame: memoryview) -> Head:
        """The head of a packet, if it is of someone who may send it.

        Raises:
            Refused: it is not whole, or of a stranger, another session or an older packet.
        """
        head = read_head(frame)
        if head.kind == Kind.HELLO:
            return head
        if link is not self._commander:
            raise Refused("stranger")
        if head.session != self.session:
            raise Refused("session")
        if head.kind != Kind.ESTOP:  # made in advance, and good at any time
            if head.seq <= link.seq:
                raise Refused("sequence")
            link.seq = head.seq
        return head

    def admit(self, link: Link, head: Head) -> None:
        """Makes a client the commander.

        Raises:
            DriverError: there is another.
        """
        if self._commander not in (None, link):
            raise DriverError(f"another client, process {self._commander.pid}, has the device")
        self._commander, self.session, link.seq = link, secrets.randbits(63) + 1, head.seq

    def refused(self, link: Link) -> None:
        """Its packet was not taken; who is not the commander has to leave."""
        if link is not self._commander and link.sock in self._links:
            self._show_out(link)

    def send(self, frame: bytes) -> None:
        """To the commander, if there is one and it takes it."""
        if self._commander is not None:
            self.send_to(self._commander, frame)

    def send_to(self, link: Link, frame: bytes) -> None:
        try:
            link.sock.send(frame, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            self.unsent += 1
        except OSError:
            pass  # it is gone; reading will say so

    def _show_out(self, link: Link) -> None:
        del self._links[link.sock]
        link.sock.close()
        self._watched = [self._listener, *self._links]
        if link is self._commander:
            self._commander, self.session = None, 0
            self._left_ns = monotonic_ns()

    def close(self) -> None:
        for link in self._links.values():
            link.sock.close()
        self._listener.close()
        self.path.unlink(missing_ok=True)
        if self._own:
            shutil.rmtree(self._own, ignore_errors=True)


def _is_over(sock: socket.socket) -> bool:
    """Whether nothing more will come; an empty packet looks the same to recv."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    waiting = fcntl.ioctl(sock, termios.FIONREAD, bytes(4))
    return bool(poll.poll(0)) and not any(waiting)
