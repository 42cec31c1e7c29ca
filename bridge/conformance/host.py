"""The host's own part in what is measured: calls that never return, and CPUs that others have."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import NoReturn

from safetypilot.bridge.conformance.verdict import Failed


class Stuck(BaseException):
    """A call has not returned in time; no Exception, so that the call itself cannot catch it."""


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Ends what is done inside if it takes longer, even if it waits for a lock.

    Only in the main thread, where Python handles signals; elsewhere it does nothing.

    Raises:
        Failed: it took longer.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    main = threading.get_ident()
    done = threading.Event()

    def wait() -> None:
        if not done.wait(seconds):
            signal.pthread_kill(main, signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, _give_up)
    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    try:
        try:
            yield
        finally:
            done.set()
            waiting.join()  # its signal comes before the handler goes
    except Stuck:
        raise Failed(f"{what} had not returned after {seconds:g} s") from None
    finally:
        signal.signal(signal.SIGUSR2, before)


def _give_up(number: int, frame: FrameType | None) -> NoReturn:
    raise Stuck


class Stopwatch:
    """Time that passes, without that in which this thread would run and others do.

    What is left is the thread's own work and its waiting for something, which is what a deadline is
    about. Where the kernel does not tell, nothing is taken off.
    """

    def __init__(self) -> None:
        self._kept_s, self._since = _kept_waiting_s(), monotonic()

    def seconds(self) -> float:
        """Since the start."""
        passed = monotonic() - self._since
        return max(0.0, passed - (_kept_waiting_s() - self._kept_s))


def _kept_waiting_s() -> float:
    with suppress(OSError, IndexError):
        with open("/proc/thread-self/schedstat") as line:
            return int(line.read().split()[1]) / 1e9
    return 0.0


def starved_s(process: int) -> float:
    """How long the threads of a process have been ready to run while others ran; 0: unknown.

    Linux counts it for each thread; what a hypervisor takes is not in it.
    """
    total_ns = 0
    for path in Path(f"/proc/{process}/task").glob("*/schedstat"):
        with suppress(OSError, IndexError):  # a thread that has just ended, a kernel without it
            total_ns += int(path.read_text().split()[1])
    return total_ns / 1e9
