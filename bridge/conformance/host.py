"""The host's own part in what is measured: calls that never return, and CPUs that others have."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
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


def starved_s(process: int) -> float:
    """How long the threads of a process have been ready to run while others ran; 0: unknown.

    Linux counts it for each thread; what a hypervisor takes is not in it.
    """
    total_ns = 0
    for path in Path(f"/proc/{process}/task").glob("*/schedstat"):
        with suppress(OSError, IndexError):  # a thread that has just ended, a kernel without it
            total_ns += int(path.read_text().split()[1])
    return total_ns / 1e9
