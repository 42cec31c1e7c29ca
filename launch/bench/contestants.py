"""Who takes part in `bench latency`, and what each is told."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetypilot.launch.bench.course import Course
from safetypilot.launch.bench.frames import message_sizes

if TYPE_CHECKING:
    from safetypilot.launch.plan import Plan

GRAPH = Path(__file__).parent / "bench.yaml"
_PEER = "safetypilot.launch.bench.peers"
_STACK = "safetypilot.launch.bench.stack"
_ECHO = ["echo", "observation", "--json", "--run", "{run}"]
_RECORD = ["record", "{run}", "-o", "{dir}/recording.mcap"]


@dataclass(frozen=True)
class Contestant:
    """One line of the table.

    Attributes:
        module: what is started, with a course.
        package: what has to be installed; empty: nothing beside the stack itself.
        peer: it stands under `peers` in the JSON.
        arguments: for the stack: of the launch file.
        observers: for the stack: verbs that are attached to the graph while it runs.
        options: what else its processes are told.
    """

    name: str
    module: str
    transport: str
    package: str = ""
    peer: bool = False
    arguments: tuple[str, ...] = ()
    observers: tuple[list[str], ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def version(self) -> str | None:
        """Of its package; None: not installed."""
        try:
            return version(self.package) if self.package else ""
        except PackageNotFoundError:
            return None


_LATEST = "the stack's own, as the launch file has it"
ALL = (
    Contestant("host_jitter", "safetypilot.launch.bench.timer", "none: a sleeping process"),
    Contestant("bare_ring", f"{_PEER}.bare_ring", "ZeroMQ PAIR over ipc", "pyzmq"),
    Contestant("shielded", _STACK, _LATEST),
    Contestant("unshielded", _STACK, _LATEST, arguments=("shield=off",)),
    Contestant("observed", _STACK, _LATEST, observers=(_ECHO, _RECORD)),
    Contestant("dora", f"{_PEER}.dora", "dora-rs, newest only", "dora-rs", peer=True),
    Contestant("zenoh", f"{_PEER}.zenoh", "zenoh peers, TCP on loopback, express, low latency, "
               "callbacks in the receiving thread", "eclipse-zenoh", peer=True),
    Contestant("cyclonedds", f"{_PEER}.cyclonedds", "DDS on loopback, best effort, newest only",
               "cyclonedds", peer=True),
    Contestant("ray", f"{_PEER}.ray", "Ray actors that call one another", "ray", peer=True),
)  # fmt: skip
NAMES = tuple(each.name for each in ALL)
PEERS = tuple(each.name for each in ALL if each.peer)


@dataclass(frozen=True)
class Cell:
    """One set of conditions under which all contestants run.

    Attributes:
        steps: of each contestant, in `blocks` blocks that take turns.
        graph: a launch file; `arguments` are passed to it.
        affinity: "same": the bare graphs run where the control path does; "free": anywhere.
        witness: "neighbour", "same", "both" or "off": on which CPU the timers watch.
        only: names of contestants.
    """

    rate_hz: float = 500.0
    load: bool = False
    realtime: bool = False
    steps: int = 10_000
    blocks: int = 5
    seed: int = 1
    graph: str = str(GRAPH)
    arguments: tuple[str, ...] = ()
    affinity: str = "same"
    witness: str = "neighbour"
    only: tuple[str, ...] = NAMES
    warmup_s: float = 1.0

    @property
    def block_steps(self) -> int:
        return -(-self.steps // self.blocks)

    @property
    def warmup(self) -> int:
        return max(50, round(self.warmup_s * self.rate_hz))

    @property
    def title(self) -> str:
        load = "all cores busy" if self.load else "idle"
        return f"{self.rate_hz:g} Hz, {load}, realtime {'on' if self.realtime else 'off'}"

    @property
    def launch_arguments(self) -> list[str]:
        realtime = "on" if self.realtime else "off"
        words = [f"rate={self.rate_hz:g}", f"realtime={realtime}", *self.arguments]
        if self.graph == str(GRAPH) and not any(w.startswith("planner_rate=") for w in words):
            # A plan takes longer than a fast period: at most 50 Hz, and a divisor of the rate.
            words.append(f"planner_rate={self.rate_hz / max(1, -(-self.rate_hz // 50)):.9g}")
        return words

    @property
    def contestants(self) -> list[Contestant]:
        return [each for each in ALL if each.name in self.only]


@dataclass(frozen=True)
class Ground:
    """What all contestants share in a cell: taken from the launch file's own plan."""

    cell: Cell
    env: str
    models: dict[str, str]
    eps: float
    dims: dict[str, int]
    schedule: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, cell: Cell) -> Ground:
        """Loads the launch file. Raises LaunchFileError if it is wrong."""
        from safetypilot.launch.graph import load
        from safetypilot.nodes.kernel.interface import Interface

        plan = load(cell.graph, cell.launch_arguments, clock="realtime", duration=1e9).plan()
        configs = {node.name: node.config for node in plan.nodes}
        return cls(
            cell,
            plan.env,
            {"policy": str(configs["task_policy"]["model"]),
             "critic": str(configs["safety_critic"]["model"])},
            float(configs["arbiter"]["eps"]),
            Interface.from_dict(plan.interface).dims,
            _schedule(plan, cell),
        )  # fmt: skip

    def course(self, contestant: Contestant, steps: int, folder: str, ports: list[int]) -> Course:
        """A block of one contestant."""
        cell = self.cell
        options = {
            "graph": cell.graph,
            "arguments": [*cell.launch_arguments, *contestant.arguments],
            "sets": [],
            "observers": contestant.observers,
            **contestant.options,
        }
        return Course(
            contestant.name, cell.rate_hz, steps, cell.warmup, self.env, cell.seed, self.models,
            self.eps, self.dims, message_sizes(self.dims), self.schedule, folder, ports, options,
        )  # fmt: skip


def _schedule(plan: Plan, cell: Cell) -> dict[str, Any]:
    """How the launch file has its task policy scheduled."""
    node = next(node for node in plan.nodes if node.name == "task_policy")
    cpus = list(node.realtime.get("cpus") or node.cpus)
    if cell.affinity == "free":
        cpus = sorted(os.sched_getaffinity(0))
    return {**node.realtime, "cpus": cpus, "nice": node.nice}
