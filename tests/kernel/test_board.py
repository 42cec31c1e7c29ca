"""Shared memory keeps its promises: whole frames, the newest first, also between processes."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetypilot.nodes.kernel import board
from safetypilot.nodes.kernel.board import BoardReader, BoardWriter
from safetypilot.nodes.kernel.errors import KernelError


@pytest.fixture
def fd() -> Iterator[int]:
    made = board.create("observation", 4096)
    yield made
    os.close(made)


@pytest.fixture
def bell() -> Iterator[int]:
    made = board.create_bell()
    yield made
    os.close(made)


def rings(poll: select.epoll) -> bool:
    return bool(poll.poll(0))


@given(st.lists(st.one_of(st.none(), st.binary(max_size=300)), max_size=60))
def test_a_reader_sees_the_newest_frame_once(history: list[bytes | None]) -> None:
    """None stands for a look of the reader."""
    fd = board.create("x", 300)
    writer, reader = BoardWriter(fd, []), BoardReader(fd, 0, False)
    unread: bytes | None = None
    for frame in history:
        if frame is None:
            assert reader.receive() == unread
            unread = None
        else:
            writer.write(frame)
            unread = frame
    writer.close()
    reader.close()
    os.close(fd)


def test_what_was_there_before_is_not_for_a_new_reader(fd: int) -> None:
    writer = BoardWriter(fd, [])
    writer.write(b"old")
    reader = BoardReader(fd, 0, False)
    assert reader.receive() is None
    writer.write(b"new")
    assert reader.receive() == b"new"


def test_a_restarted_writer_goes_on_where_the_last_one_stopped(fd: int) -> None:
    first = BoardWriter(fd, [])
    reader = BoardReader(fd, 0, False)
    first.write(b"first")
    first.close()
    BoardWriter(fd, []).write(b"second")
    assert reader.receive() == b"second"
    assert reader.receive() is None


def test_a_frame_that_is_too_large_is_refused_and_counted(fd: int) -> None:
    writer, reader = BoardWriter(fd, []), BoardReader(fd, 0, False)
    writer.write(bytes(writer.limit))
    assert reader.receive() == bytes(writer.limit)
    writer.write(bytes(writer.limit + 1))
    assert (reader.receive(), writer.refused) == (None, 1)


def test_a_slot_that_was_torn_is_not_read(fd: int) -> None:
    writer, reader = BoardWriter(fd, []), BoardReader(fd, 0, False)
    writer.write(b"whole" * 100)
    at = writer._memory.find(b"whole")
    writer._memory[at] = ord("W")
    assert reader.receive() is None
    writer._memory[at] = ord("w")
    assert reader.receive() == b"whole" * 100


def test_the_bells_of_those_who_want_it_ring_at_every_frame(fd: int, bell: int) -> None:
    poll = select.epoll()
    poll.register(bell, select.EPOLLIN | select.EPOLLET)
    passive = board.create_bell()
    writer = BoardWriter(fd, [passive, bell])
    BoardReader(fd, 0, wakes=False)
    reader = BoardReader(fd, 1, wakes=True)
    assert not rings(poll)
    for number in range(3):  # without anybody ever reading the bell
        writer.write(b"%d" % number)
        assert rings(poll)
        assert not rings(poll)
        assert reader.receive() == b"%d" % number
    assert not select.select([passive], [], [], 0)[0]
    os.close(passive)


def test_nobody_can_take_the_memory_away(fd: int) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)


def test_something_else_is_no_board(tmp_path: Any) -> None:
    with (tmp_path / "empty").open("w+b") as file, pytest.raises(KernelError, match="is no board"):
        BoardWriter(file.fileno(), [])


WRITER = """
import sys
from safetypilot.nodes.kernel.board import BoardWriter
writer = BoardWriter(int(sys.argv[1]), [int(sys.argv[2])])
number = 0
while True:
    number += 1
    writer.write(b"%d:" % number + bytes([number % 251]) * (number % 4000))
"""


@pytest.mark.integration
def test_frames_are_whole_and_in_order_while_the_writer_races_and_after_it_is_killed(
    fd: int, bell: int
) -> None:
    reader = BoardReader(fd, 0, wakes=True)
    seen = 0
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", WRITER, str(fd), str(bell)], pass_fds=(fd, bell)
        )
        last, taken, end = 0, 0, time.monotonic() + 20
        while taken < 2_000 and time.monotonic() < end:
            frame = reader.receive()
            if frame is None:
                continue
            head, _, body = frame.partition(b":")
            number = int(head)
            assert number > last, "an older frame after a newer one"
            assert body == bytes([number % 251]) * (number % 4000), f"frame {number} is torn"
            last, taken = number, taken + 1
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen += taken
        reader.receive()
    assert seen == 4_000
