"""The alarm goes off at its time and not before, whatever else is polled."""

from __future__ import annotations

import os
import select
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.nodes.kernel.timer import Timer

MS = 1_000_000


def polled(timer: Timer) -> select.epoll:
    poll = select.epoll()
    poll.register(timer.fd, select.EPOLLIN | select.EPOLLET)
    return poll


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-2 * MS, 2 * MS), min_size=1, max_size=5))
def test_it_is_never_early_and_a_new_time_replaces_the_old(offsets_ns: list[int]) -> None:
    timer = Timer()
    poll = polled(timer)
    at = 0
    for offset in offsets_ns:
        at = time.monotonic_ns() + offset
        timer.arm(at)
    assert poll.poll(5.0)
    assert time.monotonic_ns() >= at
    assert timer.armed_ns == at
    timer.close()


def test_a_time_that_has_passed_goes_off_at_once() -> None:
    timer = Timer()
    poll = polled(timer)
    timer.arm(time.monotonic_ns() - 1000 * MS)
    assert poll.poll(0)
    timer.close()


def test_one_that_is_armed_again_goes_off_again_unread() -> None:
    timer = Timer()
    poll = polled(timer)
    for _ in range(3):
        timer.arm(time.monotonic_ns() + MS // 10)
        assert poll.poll(5.0)
        assert not poll.poll(0)
    timer.close()


def test_messages_come_through_while_it_runs() -> None:
    timer, bell = Timer(), os.eventfd(0)
    poll = polled(timer)
    poll.register(bell, select.EPOLLIN)
    timer.arm(time.monotonic_ns() + 60_000 * MS)
    os.eventfd_write(bell, 1)
    assert [fd for fd, _ in poll.poll(5.0)] == [bell]
    os.close(bell)
    timer.close()


def test_the_same_time_costs_no_second_call(monkeypatch: pytest.MonkeyPatch) -> None:
    timer = Timer()
    at = time.monotonic_ns() + 1000 * MS
    timer.arm(at)
    calls: list[int] = []
    monkeypatch.setattr(timer, "_settime", lambda *a: calls.append(1))
    timer.arm(at)
    assert calls == []
    timer.arm(at + 1)
    assert calls == [1]
    timer.close()
