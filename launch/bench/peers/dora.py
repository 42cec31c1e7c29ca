"""The four-hop graph as a dora-rs dataflow: four nodes and the daemon that `dora run` starts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from safetypilot.launch.bench import contest, schedule
from safetypilot.launch.bench.course import HOPS, Course
from safetypilot.launch.bench.frames import TOPIC_OF, work
from safetypilot.launch.bench.plant import GraphError
from safetypilot.launch.children import environment, last_lines

MODULE = "safetypilot.launch.bench.peers.dora"
_ORDER = ("plant", *HOPS)
_CLOSED = ("STOP", "ERROR")


class Ends:
    """One node's output and its only input."""

    def __init__(self, role: str) -> None:
        from dora import Node

        self._node = Node()
        self._output = TOPIC_OF[role]

    def send(self, frame: bytes) -> None:
        self._node.send_output(self._output, frame)

    def receive(self, timeout_s: float) -> bytes | None:
        """Raises GraphError when the dataflow is over."""
        event: dict[str, Any] | None = self._node.next(timeout=timeout_s)
        if event is None:
            return None
        if event["type"] == "ERROR" and event["error"].startswith("Timeout"):
            return None
        if event["type"] in _CLOSED:
            raise GraphError(f"dora ended the dataflow: {event.get('error', 'stopped')}")
        return bytes(event["value"].to_numpy()) if event["type"] == "INPUT" else None

    def close(self) -> None:
        """The node ends with its process."""


def dataflow(course: Course) -> str:
    """The dataflow's YAML; each node keeps only the newest of what it was sent."""
    nodes = []
    for number, role in enumerate(_ORDER):
        before = _ORDER[number - 1]
        arguments = " ".join(contest.command(MODULE, course, role)[1:])
        nodes.append(
            f"  - id: {role}\n"
            f"    path: {sys.executable}\n"
            f'    args: "{arguments}"\n'
            f"    inputs:\n"
            f"      {TOPIC_OF[before]}:\n"
            f"        source: {before}/{TOPIC_OF[before]}\n"
            f"        queue_size: 1\n"
            f"    outputs: [{TOPIC_OF[role]}]\n"
        )
    return "nodes:\n" + "".join(nodes)


def node(course: Course, role: str) -> None:
    """What dora starts: the plant or a hop."""
    contest.begin(course)
    ends: Any = Ends(role)
    if role == "plant":
        with contest.reasons(course):
            contest.fly(course, ends)
        contest.leave()
    do = work(role, course)
    schedule.settle(course.schedule)
    try:
        while True:
            if (frame := ends.receive(1.0)) is not None:
                ends.send(do(frame))
    except GraphError:
        contest.leave()


def main() -> None:
    course = Course.read(sys.argv[1])
    if len(sys.argv) > 2:
        node(course, sys.argv[2])
    schedule.die_with_parent()
    program = shutil.which("dora", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    with contest.reasons(course):
        import dora  # noqa: F401  its absence is reported like that of other peers

        if program is None:
            raise GraphError("not installed: the `dora` program; pip install dora-rs-cli")
        contest.isolate("dora's daemon")
        _run(program, course)
    contest.leave()


def _run(program: str, course: Course) -> None:
    """`dora run` in the course's folder, until the plant has saved its samples."""
    folder = Path(course.folder)
    (folder / "dataflow.yml").write_text(dataflow(course))
    contest.begin(course)  # the daemon inherits it
    log = folder / "dora.log"
    with log.open("wb") as output:
        running = subprocess.Popen(
            [program, "run", "dataflow.yml"], cwd=folder, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, env={**os.environ, **environment(), "HOME": course.folder},
            preexec_fn=schedule.die_with_parent,
        )  # fmt: skip
    signal.signal(signal.SIGTERM, lambda *_: running.terminate())
    running.wait()
    if not course.result.exists():
        lines = last_lines(log, 3) or ["no output"]
        raise GraphError(f"`dora run` ended with code {running.returncode}: "
                                 + " | ".join(lines))  # fmt: skip


if __name__ == "__main__":
    main()
