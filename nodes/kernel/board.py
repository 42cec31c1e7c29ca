"""Values between the processes of one machine without a socket: shared memory and a bell.

A board holds the newest frame of one topic. Its writer never waits and never fails; a reader sees
whole frames, in order, and of several unread ones the newest. A bell (an eventfd) wakes a process
that wants to know at once. The supervisor makes both and hands them down, so that they outlive a
process which is restarted, and vanish with the run whatever becomes of it.

Memory of a board, native integers: how many frames were written (8 bytes), one byte per reader
that says whether its bell is to be rung, then the slots, which are written in turn. A slot holds
the number of its frame, its length and checksum, and the frame. The counter is raised last, and a
reader whom the checksum tells that a slot is being written looks again, so no lock is needed and no
memory model assumed.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence
from struct import Struct
from zlib import crc32

from safetypilot.nodes.kernel.errors import KernelError

SLOTS = 4
_HEAD = 64  # bytes before the first slot: a counter, and a flag per reader
_FLAGS = 8
MOST_READERS = _HEAD - _FLAGS
_SLOT = Struct("@QII")  # number, bytes, checksum
_LOOKS = 100  # of a reader at a value that is being written


def create(name: str, frame_bytes: int) -> int:
    """A file descriptor of a new board, for frames of up to so many bytes; pages come when used."""
    step = -(-(frame_bytes + _SLOT.size) // 64) * 64
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, _HEAD + SLOTS * step)
    # Who holds it cannot take the memory away from under the others.
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


def create_bell() -> int:
    """A file descriptor that is readable from a ring on until it is read."""
    return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


class _Board:
    def __init__(self, fd: int) -> None:
        size = os.fstat(fd).st_size
        if size <= _HEAD:
            raise KernelError(f"file descriptor {fd} of {size} bytes is no board")
        self._memory = mmap.mmap(fd, size)
        self._step = (size - _HEAD) // SLOTS
        self._view = memoryview(self._memory)
        self._count = self._view[:8].cast("Q")

    def close(self) -> None:
        self._count.release()
        self._view.release()
        self._memory.close()


class BoardWriter(_Board):
    """Puts frames on a board, and rings the bells of those who asked for it.

    Args:
        bells: of the readers, by their place.
    """

    def __init__(self, fd: int, bells: Sequence[int]) -> None:
        super().__init__(fd)
        self.readers = len(bells)
        self._bells = tuple(zip(range(_FLAGS, _HEAD), bells, strict=False))
        self.limit = self._step - _SLOT.size
        self.refused = 0  # frames that were larger

    def write(self, frame: bytes) -> None:
        size, memory, count = len(frame), self._memory, self._count[0] + 1
        if size > self.limit:
            self.refused += 1
            return
        at = _HEAD + count % SLOTS * self._step
        _SLOT.pack_into(memory, at, count, size, crc32(frame))
        at += _SLOT.size
        memory[at : at + size] = frame
        self._count[0] = count
        for flag, bell in self._bells:
            if memory[flag]:
                os.eventfd_write(bell, 1)


class BoardReader(_Board):
    """Takes the newest frame from a board; what was there before it came is not for it.

    Args:
        place: this reader's, as the writer numbers them.
        wakes: whether the bell is to be rung for every frame.
    """

    def __init__(self, fd: int, place: int, wakes: bool) -> None:
        super().__init__(fd)
        self._seen = self._count[0]
        self._memory[_FLAGS + place] = wakes

    def receive(self) -> bytes | None:
        """The newest frame, or None if it has been seen."""
        count = self._count[0]
        if count == self._seen:
            return None
        memory = self._memory
        for _ in range(_LOOKS):
            at = _HEAD + count % SLOTS * self._step
            number, size, checksum = _SLOT.unpack_from(memory, at)
            at += _SLOT.size
            frame = memory[at : at + size] if number == count else b""
            if number == count and crc32(frame) == checksum:
                self._seen = count
                return frame
            count = self._count[0]  # it was overtaken, or the last bytes are on their way
        return None
