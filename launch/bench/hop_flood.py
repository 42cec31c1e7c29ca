"""One hop as fast as it goes: what `safetypilot bench throughput` starts.

    python -P -m safetypilot.launch.bench.hop_flood COURSE [send]

The process without a role receives; it starts the one that sends.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from time import monotonic_ns, sleep
from typing import Any

import numpy as np

from safetypilot.launch.bench import contest, schedule
from safetypilot.launch.bench.course import Course
from safetypilot.launch.bench.plant import GraphError
from safetypilot.launch.bench.samples import Samples
from safetypilot.launch.children import environment
from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.ports import StreamReader, StreamWriter
from safetypilot.nodes.kernel.transport import Endpoints, open_context
from safetypilot.nodes.kernel.wire import Codec

MODULE = "safetypilot.launch.bench.hop_flood"
KINDS = ("bare", "stream", "messages")
_TOPIC, _READER = "transition", "reader"
_IN_FLIGHT_BYTES = 32 * 2**20
_BATCH = 64
_QUIET_S = 5.0


def pipe(size: int) -> int:
    """Messages in flight: the stack's own number, less where they are large."""
    return max(4, min(1000, _IN_FLIGHT_BYTES // size))


def _codec(size: int) -> tuple[Codec, Any]:
    """A codec, and an observation of about this size."""
    count = max(1, size // 4)
    values = np.zeros(count, np.float32)
    return Codec(messages.Observation, {"O": count, "A": 1}), messages.Observation(
        1, 2, 3, 4, 5, values
    )


def send(course: Course) -> None:
    """Sends until it is killed."""
    kind, size = course.options["kind"], course.options["size"]
    frame = bytes(size)
    if kind == "bare":
        from safetypilot.launch.bench.peers.bare_pipe import Sender

        put: Callable[[bytes], Any] = Sender(course, pipe(size)).send
        while True:
            put(frame)
    endpoints = Endpoints(course.folder)
    writer = StreamWriter(open_context(), endpoints, _TOPIC, [_READER], pipe(size), 4 * _BATCH)
    codec, message = _codec(size)
    sent = 0
    while True:
        writer.send(codec.encode(message) if kind == "messages" else frame)
        sent += 1
        # A stream never blocks its writer; one that sends without end has to look itself.
        while not sent % _BATCH and writer.summary()[f"{_READER}.waiting"] > _BATCH:
            sleep(0.0002)
            writer.flush()


def _receiver(course: Course) -> Callable[[], bytes | None]:
    """A call that waits for the next frame, and gives None if none comes."""
    size = course.options["size"]
    if course.options["kind"] == "bare":
        from safetypilot.launch.bench.peers.bare_pipe import Receiver

        return Receiver(course, pipe(size)).receive
    reader = StreamReader(open_context(), Endpoints(course.folder).stream(_TOPIC, _READER),
                          pipe(size))  # fmt: skip

    def receive() -> bytes | None:
        frame = reader.receive()
        if frame is None and reader.socket is not None and reader.socket.poll(1000):
            frame = reader.receive()
        return frame

    return receive


def count(course: Course) -> float:
    """Messages per second, received for so many seconds.

    Raises:
        GraphError: nothing comes.
    """
    receive, decode = _receiver(course), None
    if course.options["kind"] == "messages":
        decode = _codec(course.options["size"])[0].decode
    begin = monotonic_ns()
    while receive() is None:
        if monotonic_ns() - begin > _QUIET_S * 1e9:
            raise GraphError("nothing has come through the hop")
    for _ in range(4 * pipe(course.options["size"])):  # what gathered in the pipe meanwhile
        receive()
    received, begin = 0, monotonic_ns()
    end = begin + int(course.options["seconds"] * 1e9)
    while (now := monotonic_ns()) < end:
        frame = receive()
        if frame is None:
            raise GraphError("the hop has gone silent")
        if decode is not None:
            decode(frame)
        received += 1
    return received / ((now - begin) / 1e9)


def main() -> None:
    schedule.die_with_parent()
    course = Course.read(sys.argv[1])
    if len(sys.argv) > 2:
        contest.begin(course)
        send(course)
    with contest.reasons(course):
        Endpoints(course.folder).make()
        contest.begin(course)
        sender = subprocess.Popen(
            contest.command(MODULE, course, "send"), stdin=subprocess.DEVNULL, env=environment()
        )
        try:
            rate = count(course)
        finally:
            sender.kill()
            sender.wait()
        nothing = np.zeros(0)
        samples = Samples(nothing, np.zeros(0, np.int64), np.zeros(0, bool))
        samples.facts["per_second"] = rate
        samples.save(course.result)
    contest.leave()


if __name__ == "__main__":
    main()
