"""Feeds a recording to some nodes of a graph, and compares their answers with the recorded ones.

The recording stands in for all other nodes: their messages arrive when they were sent, on virtual
time, through the scheduler of lockstep runs. So the outcome is a function of recording, launch file
and settings. The plant does not react: these are answers to what was, not a flight.

Questions to a recording (why a step was decided as it was, what else would have been) find here
what they need: `arrivals` gives the inputs of every step in order, `Comparison` what became of it.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from safetypilot.launch.cli_common import InputError
from safetypilot.launch.comparison import Comparison
from safetypilot.launch.plan import Plan
from safetypilot.launch.recording import RECORDER
from safetypilot.launch.stepwise import host
from safetypilot.nodes.kernel import trace
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.kernel.lockstep import Handle, Lockstep, Reply
from safetypilot.nodes.kernel.messages import Command, Proposal, Recovery, Risk
from safetypilot.nodes.kernel.topics import TOPICS
from safetypilot.nodes.kernel.wire import codecs
from safetypilot.nodes.recording_file import Recording, RecordingError, RecordingWriter, Settings

_PLAYER = "recording"
_AHEAD_NS = 2_000_000_000  # how far apart two messages may stand in the file and still be sorted
_AFTERMATH_PERIODS = 2  # for answers to the last messages
_FIRST_CHOICE = "arbiter"  # runs where nobody says which, and the recording has every topic


class Arrival(NamedTuple):
    """A recorded message on its way to the nodes."""

    at_ns: int
    number: int  # in the file
    topic: str
    message: Any
    moved: bool = False


def arrivals(recording: Recording, topics: dict[str, str]) -> Iterator[Arrival]:
    """Messages of a recording in the order in which they arrived.

    A message arrives when it was sent; one that was sent before the command of its step, but did
    not reach the arbiter before it decided, arrives right after that command.

    Args:
        topics: graph topic -> its row in the topic table.
    """
    waiting: list[Arrival] = []
    commands: dict[int, Command] = {}
    newest = 0
    for number, (topic, message) in enumerate(recording):
        if topics.get(topic) == "command":
            commands[message.seq] = message
            if len(commands) > 10_000:
                commands.pop(next(iter(commands)))
        heapq.heappush(waiting, Arrival(message.sent_ns, number, topic, message))
        newest = max(newest, message.sent_ns)
        while waiting[0].at_ns < newest - _AHEAD_NS:
            yield from _next(waiting, commands)
    while waiting:
        yield from _next(waiting, commands)


def _next(waiting: list[Arrival], commands: dict[int, Command]) -> Iterator[Arrival]:
    """The earliest that waits, unless it turns out to have arrived later."""
    first = heapq.heappop(waiting)
    command = commands.get(first.message.seq)
    if not first.moved and command is not None and _came_late(first.message, command):
        moved = first._replace(at_ns=command.sent_ns + 1, moved=True)
        heapq.heappush(waiting, moved)
        return
    yield first


def _came_late(message: Any, command: Command) -> bool:
    """Sent before the command, but not among what it was decided on."""
    if not isinstance(message, Proposal | Risk | Recovery) or message.sent_ns >= command.sent_ns:
        return False
    chain = trace.unpack(command.chain)
    used = {Proposal: chain.proposal_sent, Risk: chain.risk_sent, Recovery: chain.recovery_sent}
    return used[type(message)] != message.sent_ns


class Player:
    """The recording, as the scheduler sees it: a node that says what was recorded, when it was.

    Attributes:
        done: all has been said.
    """

    def __init__(self, source: Iterator[Arrival], dims: dict[str, int]) -> None:
        self._source = source
        self._encode = {message: codec.encode for message, codec in codecs(dims).items()}
        self._next = next(source, None)

    @property
    def done(self) -> bool:
        return self._next is None

    @property
    def next_ns(self) -> int | None:
        """When it speaks next."""
        return None if self._next is None else self._next.at_ns

    def call(self, operation: str, now_ns: int, *arguments: Any) -> Reply:
        outputs = []
        while operation == "timer" and self._next is not None and self._next.at_ns <= now_ns:
            message = self._next.message
            outputs.append((self._next.topic, self._encode[type(message)](message)))
            self._next = next(self._source, None)
        return Reply(self.next_ns, outputs, [], {}, "")

    def close(self) -> None:
        """Nothing is held."""


class Replay:
    """Runs some nodes of a plan on a recording.

    Args:
        plan: the graph, resolved for lockstep.
        nodes: which run; empty: those whose topics are not in the recording, else the arbiter.
        output: an MCAP file for what they answered; None: nothing is kept.

    Raises:
        InputError: recording and graph do not fit.
    """

    def __init__(self, plan: Plan, file: Path, nodes: list[str], output: Path | None) -> None:
        self._plan = plan
        try:
            self._recording = Recording(file)
        except RecordingError as error:
            raise InputError(str(error)) from None
        graph = self._recording.graph
        self._topics = {name: topic["type"] for name, topic in graph["topics"].items()}
        self._interface = Interface.from_dict(graph["interface"])
        if self._interface != Interface.from_dict(plan.interface):
            raise InputError(f"{file} was recorded in {graph.get('env')}; {plan.name} flies "
                             f"{plan.env}, with other observations or actions")  # fmt: skip
        self.nodes = self._chosen(nodes, self._present(file))
        own = {topic for node in plan.nodes if node.name in self.nodes for topic in node.outputs}
        self._comparison = Comparison({t: k for t, k in self._topics.items() if t in own})
        self._own = own
        self._output = output

    def _present(self, file: Path) -> set[str]:
        """Topics of which something was recorded, to the first second of the file."""
        present: set[str] = set()
        try:
            for number, (topic, _) in enumerate(self._recording):
                present.add(topic)
                if number > 10_000:
                    break
        except RecordingError as error:
            raise InputError(str(error)) from None
        if not present:
            raise InputError(f"{file} holds no messages")
        return present

    def _chosen(self, nodes: list[str], present: set[str]) -> list[str]:
        """The nodes that run, in graph order; checks that somebody says what they need."""
        plan = self._plan
        known = [node for node in plan.nodes if node.node != RECORDER and node.outputs]
        chosen = nodes or [n.name for n in known if not present & set(n.outputs)]
        if not chosen:
            chosen = [plan.writer("command") or _FIRST_CHOICE]
        running = [node for node in known if node.name in chosen]
        spoken = present | {topic for node in running for topic in node.outputs}
        for node in running:
            absent = [t for t in node.inputs if t not in spoken and plan.writer(t)]
            if absent:
                writer = plan.writer(absent[0])
                raise InputError(
                    f"{node.name} needs {absent[0]}, which is not in {self._recording.path}; "
                    f"let {writer} run too: --nodes {writer},{node.name}"
                )
        return [node.name for node in running]

    def run(self) -> dict[str, Any]:
        """What came of it; JSON-able.

        Raises:
            InputError: the recording is broken.
        """
        with tempfile.TemporaryDirectory(prefix="sp-replay-") as folder:
            try:
                return self._run(Path(folder))
            except RecordingError as error:
                raise InputError(str(error)) from None

    def _run(self, folder: Path) -> dict[str, Any]:
        plan = self._plan
        player = Player(self._spoken(), self._interface.dims)
        handles: dict[str, Handle] = {_PLAYER: player}
        for node in plan.nodes:
            if node.name in self.nodes:
                handles[node.name] = host(plan.spec(node, folder, folder, 0))
        keeper = self._keeper()
        decoders = {
            topic: codecs(self._interface.dims)[TOPICS[self._topics[topic]].message].decode
            for topic in self._own
            if topic in self._topics
        }

        def observe(topic: str, frame: bytes) -> None:
            if topic in decoders:
                self._comparison.replayed(topic, decoders[topic](frame))
                if keeper is not None:
                    keeper.write(topic, frame)

        graph = Lockstep(handles, plan.readers(), observe, lambda node, event: None)
        graph.now_ns = self._begin = player.next_ns or 0
        graph.start()
        graph.run(lambda: player.done and self._is_over(graph))
        graph.finish()
        if keeper is not None:
            keeper.close()
        return self._outcome(graph)

    def _spoken(self) -> Iterator[Arrival]:
        """What the recording says in the stead of nodes; the rest is there to be compared."""
        for arrival in arrivals(self._recording, self._topics):
            self._end = arrival.at_ns
            if arrival.topic in self._own:
                self._comparison.recorded(arrival.topic, arrival.message)
            else:
                yield arrival

    def _is_over(self, graph: Lockstep) -> bool:
        return graph.now_ns > self._end + _AFTERMATH_PERIODS * self._plan.period_ns

    def _keeper(self) -> RecordingWriter | None:
        if self._output is None:
            return None
        described = self._plan.describe()
        own = tuple(topic for topic in described["topics"] if topic in self._own)
        return RecordingWriter(Settings(self._output, own), described)

    def _outcome(self, graph: Lockstep) -> dict[str, Any]:
        return {
            "file": str(self._recording.path),
            "whole": not self._recording.cut_off,
            "launch": self._plan.name,
            "nodes": self.nodes,
            "seconds": round((self._end - self._begin) / 1e9, 3),
            "trace_sha256": graph.trace_sha256,
            "topics": self._comparison.figures(),
        }


def text(outcome: dict[str, Any]) -> str:
    """The outcome for people."""
    cut = "" if outcome["whole"] else " (cut off: its writer was killed)"
    lines = [
        f"{outcome['file']}{cut}: {outcome['seconds']:g} s fed to {', '.join(outcome['nodes'])}"
    ]
    for topic, row in outcome["topics"].items():
        line = f"{topic}: {row['compared']} compared, {row['differ']} differ"
        extra = [f"{row[key]} {word}" for key, word in (
            ("only_recorded", "only recorded"), ("only_replayed", "only replayed"),
            ("left_out", "left out (not armed or e-stopped)")) if row[key]]  # fmt: skip
        lines.append(", ".join([line, *extra]))
        lines += [f"  {change}: {count}" for change, count in row["changes"].items()]
        if row["first"]:
            first = row["first"]
            where = f"seq {first['seq']}, {first['at_s']:.3f} s into the recording"
            lines.append(f"  first at {where}: {first['recorded']} -> {first['replayed']}")
    return "\n".join(lines)
