"""The graph as a launch file resolves to it: plain, frozen data with every choice made."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from safetypilot.launch import plan
from safetypilot.launch.loader import LaunchFileError, Mark, Problem

SCHEMA = 1  # of to_dict()


@dataclass(frozen=True)
class Port:
    """One end of a topic at a node: the node's own name for it, and the graph's."""

    name: str
    topic: str
    wakes: bool = True
    optional: bool = False


@dataclass(frozen=True)
class Restart:
    """What happens when a node's process ends by itself; pauses in seconds."""

    policy: str = "on-failure"
    backoff: float = 0.2
    backoff_max: float = 5.0
    max: int = 100


@dataclass(frozen=True)
class NodeSpec:
    """One node. `module` is "module:Class"; `config` holds every field, defaults included.

    It acts on every so many-th observation (`every`), and takes nothing for use whose observation
    is older than `budgets_ms` allows (by its own names of its inputs).
    """

    name: str
    type: str
    module: str
    config: dict[str, Any]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    restart: Restart = Restart()
    cpus: tuple[int, ...] = ()
    nice: int = 0
    realtime: dict[str, Any] = field(default_factory=dict)
    process: str = ""
    every: int = 1
    budgets_ms: dict[str, float] = field(default_factory=dict)
    host: str = ""

    @property
    def remap(self) -> dict[str, str]:
        """The node's own topic names -> the graph's, where they differ."""
        ports = (*self.inputs, *self.outputs)
        return {port.name: port.topic for port in ports if port.name != port.topic}


@dataclass(frozen=True)
class TopicSpec:
    """One topic of the graph. `type` is its row in nodes/kernel/topics.py."""

    name: str
    type: str
    message: str
    port: str
    writer: str
    readers: tuple[str, ...]
    rate: float | None = None
    transport: str = "ipc"
    budget_ms: float | None = None


@dataclass(frozen=True)
class HostSpec:
    """One of the two computers of a graph that is split; the rest is of its link's process.

    Attributes:
        address: where it listens for the other one; empty: it calls.
        key: its public key in hexadecimal; empty where the file is not on this machine.
        secret: the file with its secret key.
    """

    name: str
    address: str
    key: str
    secret: str
    cpus: tuple[int, ...] = ()
    nice: int = 0
    realtime: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """Something the script does: after so many episodes or seconds, ask a node something."""

    node: str
    request: str
    arguments: dict[str, Any] = field(default_factory=dict)
    after_episodes: int | None = None
    after_s: float | None = None


@dataclass(frozen=True)
class Graph:
    """A launch file, resolved and checked whole.

    Attributes:
        source: the launch file it came from.
        rate: control rate in Hz.
        episodes, duration: the run ends at whichever comes first; both None: when told to.
        arguments: what each argument of the launch file became.
        hosts: none, or the two that share the nodes.
        warnings: what is odd but not wrong.
    """

    name: str
    description: str
    source: str
    env: str
    seed: int
    rate: float
    clock: str
    episodes: int | None
    duration: float | None
    arguments: dict[str, Any]
    nodes: tuple[NodeSpec, ...]
    topics: tuple[TopicSpec, ...]
    script: tuple[Step, ...] = ()
    hosts: tuple[HostSpec, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def period_ns(self) -> int:
        return round(1e9 / self.rate)

    def node(self, name: str) -> NodeSpec:
        """The node of that name. Raises KeyError if there is none."""
        return {node.name: node for node in self.nodes}[name]

    def topic(self, name: str) -> TopicSpec:
        """The topic of that name. Raises KeyError if there is none."""
        return {topic.name: topic for topic in self.topics}[name]

    def to_dict(self) -> dict[str, Any]:
        """The resolved launch file, JSON-able; `from_dict` undoes it."""
        listed = asdict(self)
        nodes = {node.pop("name"): node for node in listed["nodes"]}
        topics = {topic.pop("name"): topic for topic in listed["topics"]}
        whole = {"schema": SCHEMA, **listed, "nodes": nodes, "topics": topics}
        plain = _plain(whole)
        return plain if isinstance(plain, dict) else {}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Graph:
        """The graph that `to_dict` wrote.

        Raises:
            ValueError: it was written by another version.
        """
        if data.get("schema") != SCHEMA:
            found = data.get("schema")
            raise ValueError(f"a resolved launch file of schema {SCHEMA} is needed, got {found}")
        values = {key: value for key, value in data.items() if key != "schema"}
        values["nodes"] = tuple(_node(name, node) for name, node in data["nodes"].items())
        values["topics"] = tuple(
            TopicSpec(name=name, **{**topic, "readers": tuple(topic["readers"])})
            for name, topic in data["topics"].items()
        )
        values["script"] = tuple(Step(**step) for step in data["script"])
        values["hosts"] = tuple(
            HostSpec(**{**host, "cpus": tuple(host["cpus"])}) for host in data.get("hosts", ())
        )
        values["warnings"] = tuple(data["warnings"])
        return cls(**values)

    def plan(self) -> plan.Plan:
        """What the supervisor carries out.

        Raises:
            LaunchFileError: the environment's spaces cannot be carried.
        """
        from safetypilot.envs import registry
        from safetypilot.nodes.kernel.errors import KernelError
        from safetypilot.nodes.kernel.interface import Interface

        try:
            interface = Interface.from_dict(registry.describe(self.env)).to_dict()
        except (ValueError, KernelError) as error:
            raise LaunchFileError([Problem(Mark(self.source, 1, 1), f"env: {error}")]) from None
        return plan.Plan(
            name=self.name,
            env=self.env,
            interface=interface,
            period_ns=self.period_ns,
            seed=self.seed,
            nodes=tuple(_node_plan(node) for node in self.nodes),
            clock=self.clock,
            episodes=self.episodes,
            duration_s=self.duration,
            script=tuple(
                plan.Step(s.node, s.request, s.arguments, s.after_episodes, s.after_s)
                for s in self.script
            ),
        )


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    return [_plain(child) for child in value] if isinstance(value, list | tuple) else value


def _node(name: str, data: dict[str, Any]) -> NodeSpec:
    values = dict(data)
    for end in ("inputs", "outputs"):
        values[end] = tuple(Port(**port) for port in data[end])
    values["restart"] = Restart(**data["restart"])
    values["cpus"] = tuple(data["cpus"])
    return NodeSpec(name=name, **values)


def _node_plan(node: NodeSpec) -> plan.NodePlan:
    restart = node.restart
    return plan.NodePlan(
        name=node.name,
        node=node.module,
        config=node.config,
        inputs=tuple(port.topic for port in node.inputs),
        outputs=tuple(port.topic for port in node.outputs),
        remap=node.remap,
        cpus=node.cpus,
        nice=node.nice,
        realtime=node.realtime,
        process=node.process,
        every=node.every,
        budgets_ns={topic: int(limit * 1e6) for topic, limit in node.budgets_ms.items()},
        restart=plan.Restart(restart.policy, restart.backoff, restart.backoff_max, restart.max),
        host=node.host,
    )
