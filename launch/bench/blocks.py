"""Runs blocks: one contestant's processes from start to end, with what happens around them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from safetypilot.launch import reaper
from safetypilot.launch.bench.contestants import Contestant, Ground
from safetypilot.launch.bench.course import Course
from safetypilot.launch.bench.plant import Progress
from safetypilot.launch.bench.samples import Samples
from safetypilot.launch.children import environment, last_lines
from safetypilot.nodes.kernel import addresses

_START_S, _END_S = 90.0, 15.0  # patience beyond the course's own length
_LOOK_S = 0.05
_PORTS = 4
_WITNESS = "safetypilot.launch.bench.timer"
_WITNESSED = 4  # times per control period, so that a stall as long as one is not half overlooked
_BUSY = "import ctypes; ctypes.CDLL(None).prctl(1, 9)\nwhile True: pass"


class Unavailable(Exception):
    """A contestant cannot take part; says why, in one line."""


class Interrupted(Exception):
    """Somebody pressed Ctrl-C; `samples` is what the block had by then."""

    def __init__(self, samples: Samples | None) -> None:
        super().__init__("stopped")
        self.samples = samples


def run_block(
    ground: Ground, contestant: Contestant, steps: int, show: Callable[[int], None]
) -> tuple[Samples, list[str]]:
    """One block.

    Args:
        show: called with the steps done so far, many times a second.

    Returns:
        What the plant measured, and what the machine refused to grant.

    Raises:
        Unavailable: there is no result. Interrupted: Ctrl-C.
    """
    if contestant.version is None:
        raise Unavailable(f"not installed: pip install {contestant.package} (extra `peers`)")
    folder = tempfile.mkdtemp(prefix="spb-")
    try:
        course = ground.course(contestant, steps, folder, free_ports())
        return _run(course, contestant, show)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(
    course: Course, contestant: Contestant, show: Callable[[int], None]
) -> tuple[Samples, list[str]]:
    page, log = Progress(course), Path(course.folder) / "log"
    process = start(contestant.module, course, log)
    interrupted = False
    try:
        _await(process, course, page, show)
    except KeyboardInterrupt:
        interrupted = True
        page.ask_to_stop()
        _wait(process, _END_S)
    finally:
        end_session(process)
    samples = _read(course)
    if interrupted:
        raise Interrupted(samples)
    if samples is None or process.returncode:
        raise Unavailable(_reason(course, log, process.returncode))
    refused = [line for line in log.read_text(errors="replace").splitlines()
               if line.startswith("refused: ")]  # fmt: skip
    return samples, list(dict.fromkeys(refused))


def _await(
    process: subprocess.Popen[bytes], course: Course, page: Progress, show: Callable[[int], None]
) -> None:
    """Until the block is over. Raises Unavailable if it takes far too long."""
    longest = _START_S + 1.5 * (course.warmup + course.steps) / course.rate_hz
    end = monotonic() + longest
    while process.poll() is None:
        show(min(page.steps, course.steps))
        if monotonic() > end:
            raise Unavailable(f"it was not done after {longest:.0f} s and was ended")
        sleep(_LOOK_S)


def _read(course: Course) -> Samples | None:
    try:
        return Samples.read(course.result)
    except (OSError, ValueError, KeyError):
        return None


def _reason(course: Course, log: Path, code: int | None) -> str:
    if course.reason.exists():
        return course.reason.read_text()
    lines = last_lines(log, 1)
    return f"it ended with code {code}" + (f": {lines[0][:300]}" if lines else "")


def start(module: str, course: Course, log: Path, *words: str) -> subprocess.Popen[bytes]:
    """A contestant's first process, in a session of its own."""
    course.write()
    fixed = bool(course.schedule.get("fixed_addresses"))
    with log.open("ab") as output, addresses.fix(fixed):
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(course.path), *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**environment(), "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        )


def end_session(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to everything that was started in the session of this process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(state[3]) == process.pid:
                    os.kill(int(entry.name), signal.SIGKILL)
                    reaper.demote(int(entry.name))
            except (OSError, IndexError):
                continue
    _wait(process, _END_S)


def _wait(process: subprocess.Popen[bytes], patience_s: float) -> None:
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_ports() -> list[int]:
    """Ports of the loopback device that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(_PORTS)
        ]
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def load() -> Iterator[None]:
    """Keeps every CPU busy with a process of ordinary priority that uses no memory to speak of."""
    processes = []
    for cpu in sorted(os.sched_getaffinity(0)):
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BUSY], stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        os.sched_setaffinity(process.pid, {cpu})
        os.setpriority(os.PRIO_PROCESS, process.pid, 0)
        processes.append(process)
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def witness_hz(rate_hz: float) -> float:
    """How often a witness looks."""
    return max(1000.0, _WITNESSED * rate_hz)


class Witnesses:
    """Timers that see when the host itself stands still, while a cell runs."""

    def __init__(self, ground: Ground) -> None:
        self._folder = tempfile.mkdtemp(prefix="spw-")
        self._running: list[tuple[int, Course, subprocess.Popen[bytes]]] = []
        for cpu, schedule in _posts(ground).items():
            folder = Path(self._folder) / str(cpu)
            folder.mkdir()
            course = ground.course(Contestant("witness", _WITNESS, ""), 1, str(folder), [])
            course = replace(course, rate_hz=witness_hz(ground.cell.rate_hz), schedule=schedule)
            process = start(_WITNESS, course, folder / "log", "witness")
            self._running.append((cpu, course, process))

    def end(self) -> dict[int, Samples]:
        """CPU -> what its timer saw."""
        for _, _, process in self._running:
            process.terminate()
        seen = {}
        for cpu, course, process in self._running:
            _wait(process, _END_S)
            samples = _read(course)
            if samples is not None:
                seen[cpu] = samples
        shutil.rmtree(self._folder, ignore_errors=True)
        return seen


def _posts(ground: Ground) -> dict[int, dict[str, Any]]:
    """CPU -> how its witness is scheduled: above the contestants, and above the load."""
    watched = list(ground.schedule.get("cpus") or sorted(os.sched_getaffinity(0)))[:1]
    others = [cpu for cpu in sorted(os.sched_getaffinity(0)) if cpu not in watched][:1]
    where = {"neighbour": others or watched, "same": watched, "both": watched + others, "off": []}
    priority = min(int(ground.schedule.get("priority", 50)) + 20, 98)
    settings = {"policy": "fifo", "priority": priority, "lock_memory": True, "timer_slack_us": 1}
    return {cpu: {**settings, "cpus": [cpu]} for cpu in where[ground.cell.witness]}
