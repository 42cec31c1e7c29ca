"""Processes whose code lies at the same addresses.

Linux loads every process elsewhere (ASLR). Python processes that take turns on one CPU then teach
its branch predictor the same interpreter several times over, at different addresses, and drive one
another out of it. With the same addresses they share what it has learned: a ring of four of them,
each with a small network to run, takes two thirds of the time. What is given up is that protection
against an attacker who already makes the process jump, so a launch file has to ask for it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_ADDR_NO_RANDOMIZE, _ASK = 0x0040000, 0xFFFFFFFF


def fixed() -> bool:
    """Whether this process was started so, and passes it on."""
    return bool(_personality(_ASK) & _ADDR_NO_RANDOMIZE)


@contextmanager
def fix(wanted: bool) -> Iterator[bool]:
    """What the calling thread starts within has its addresses fixed, if wanted and allowed.

    Yields:
        Whether that is so; a container's system call filter may refuse it.
    """
    before = _personality(_ASK)
    if not wanted or before & _ADDR_NO_RANDOMIZE:
        yield bool(before & _ADDR_NO_RANDOMIZE)
        return
    _personality(before | _ADDR_NO_RANDOMIZE)
    try:
        yield fixed()
    finally:
        _personality(before)


def _personality(persona: int) -> int:
    """The calling thread's, as it was; what is refused changes nothing."""
    return int(ctypes.CDLL(None).personality(ctypes.c_ulong(persona)))
