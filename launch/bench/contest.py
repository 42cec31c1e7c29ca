"""How a contestant's processes begin: `python -P -m safetypilot.launch.bench.peers.X FILE [ROLE]`.

Without a role the process is the plant, which starts the three hops.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep

from safetypilot.launch.bench import schedule
from safetypilot.launch.bench.course import HOPS, Course
from safetypilot.launch.bench.frames import Work, work
from safetypilot.launch.bench.plant import GraphError, Link, Plant
from safetypilot.launch.children import environment

EXIT_UNUSABLE = 3  # it cannot work here; the course's folder holds the reason
_END_S = 3.0

Plug = Callable[[Course], Link]
Hop = Callable[[Course, str, Work], None]


def main(module: str, plug: Plug, hop: Hop, network: bool = True) -> None:
    """Runs the plant or a hop of a graph whose processes we start ourselves; never returns.

    Args:
        module: where the caller lives; the hops are started from it.
        plug: connects the plant.
        hop: connects a hop and serves until it is killed.
        network: it talks over IP, and gets a network of its own where that is allowed.
    """
    schedule.die_with_parent()
    course = Course.read(sys.argv[1])
    if len(sys.argv) > 2:
        begin(course)
        hop(course, sys.argv[2], work(sys.argv[2], course))
    with reasons(course):
        if network:
            isolate("", needed=False)
        with hops(module, course) as watch:
            begin(course)
            fly(course, plug(course), watch)
    leave()


def begin(course: Course) -> None:
    """Takes the schedule, before any library starts a thread, and says what it could not have."""
    for line in schedule.apply(course.schedule):
        sys.stderr.write(f"refused: {line}\n")


def isolate(who: str, needed: bool = True) -> None:
    """Gives this process and its children a network of their own.

    Raises:
        GraphError: it is needed, as `who` may listen beyond loopback, and not allowed here.
    """
    if not schedule.isolate_network() and needed:
        raise GraphError(
            f"{who} may listen beyond loopback, and a network of its own is not allowed here; "
            "run as root, or give CAP_SYS_ADMIN"
        )


def fly(course: Course, link: Link, watch: Callable[[], str] = str) -> None:
    """Flies the course and saves what was measured.

    Args:
        watch: says what is wrong with the graph's other processes; empty if nothing is.

    Raises:
        GraphError: the graph does not answer.
    """
    plant = Plant(course)
    try:
        plant.fly(link).save(course.result)
    except GraphError as error:
        raise GraphError(watch() or str(error)) from None
    if reason := watch():
        raise GraphError(reason)
    link.close()


@contextmanager
def reasons(course: Course) -> Iterator[None]:
    """What can be expected to go wrong is written to the course's `reason`, with exit code 3."""
    try:
        yield
    except ImportError as error:
        fail(course, f"not installed: {error}")
    except GraphError as error:
        fail(course, str(error))
    except (OSError, RuntimeError, ValueError) as error:
        fail(course, f"{type(error).__name__}: {error}")


def fail(course: Course, reason: str) -> None:
    """Ends the process with a reason in one line; the first one counts."""
    if not course.reason.exists():
        course.reason.write_text(" ".join(reason.split())[:500])
    os._exit(EXIT_UNUSABLE)


def leave() -> None:
    """Ends the process at once: a library's threads may take their time otherwise, or hang."""
    sys.stderr.flush()
    os._exit(0)


def command(module: str, course: Course, role: str) -> list[str]:
    """What starts a hop."""
    return [sys.executable, "-P", "-m", module, str(course.path), role]


@contextmanager
def hops(module: str, course: Course) -> Iterator[Callable[[], str]]:
    """The three hops as child processes that die with this one; yields a look at their health."""
    children = {
        role: subprocess.Popen(
            command(module, course, role),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **environment()},
        )
        for role in HOPS
    }

    def watch() -> str:
        sleep(0.05)
        dead = [f"{role} ended with code {child.poll()}" for role, child in children.items()
                if child.poll() is not None]  # fmt: skip
        return ", ".join(dead)

    try:
        yield watch
    finally:
        for child in children.values():
            child.kill()
        end = monotonic() + _END_S
        for child in children.values():
            child.wait(max(0.1, end - monotonic()))


def serve(link: Link, do: Work) -> None:
    """A hop's life, for libraries that have a call to wait with."""
    while True:
        frame = link.receive(1.0)
        if frame is not None:
            link.send(do(frame))
