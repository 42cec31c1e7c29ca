"""An alarm at an absolute time that a poll set can wait for beside sockets.

poll() knows only whole milliseconds, and a sleep hears no message; a timerfd does both. Python
names the calls from 3.13 on, so they are made through the C library here.
"""

from __future__ import annotations

import ctypes
import os
from time import CLOCK_MONOTONIC

from safetypilot.nodes.kernel.errors import KernelError

_ABSTIME = 1
_SECOND = 1_000_000_000


class Timer:
    """Readable from a time of CLOCK_MONOTONIC on; a time that has passed is readable at once.

    Attributes:
        fd: to be polled; edge-triggered, so that it need not be read.
        armed_ns: when it goes off; 0: never.
    """

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise KernelError(f"no timer: {os.strerror(ctypes.get_errno())}")
        self.armed_ns = 0
        self._when = (ctypes.c_long * 4)()  # struct itimerspec: interval s, ns; value s, ns
        self._address = ctypes.addressof(self._when)
        self._settime = libc.timerfd_settime
        self._settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)

    def arm(self, at_ns: int) -> None:
        """Goes off at `at_ns`, and no more at any time set before; one system call, if any."""
        if at_ns == self.armed_ns:
            return
        when = self._when
        when[2], when[3] = divmod(at_ns, _SECOND)
        self._settime(self.fd, _ABSTIME, self._address, None)
        self.armed_ns = at_ns

    def close(self) -> None:
        os.close(self.fd)
