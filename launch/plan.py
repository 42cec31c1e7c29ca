"""What a run is made of, ready to start: the graph with every choice made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetypilot.nodes.kernel.node import Spec
from safetypilot.nodes.kernel.topics import TOPICS

SUPERVISOR = "supervisor"  # the name under which the supervisor reads streams
BRIDGE = "safetypilot.nodes.bridge:Bridge"
EPISODE, OBSERVATION, COMMAND = "episode", "observation", "command"


@dataclass(frozen=True)
class Restart:
    """What becomes of a node whose process ends by itself.

    Attributes:
        when: "never", "on-failure" (not after exit code 0) or "always".
        first_s: pause before the first restart; it doubles with each failure in a row.
        longest_s: the pause never grows beyond this.
        limit: restarts in one run, after which the run is given up.
    """

    when: str = "on-failure"
    first_s: float = 0.2
    longest_s: float = 5.0
    limit: int = 100

    def pause_s(self, failures: int) -> float:
        """How long to wait before the restart after this many failures in a row."""
        return float(min(self.first_s * 2 ** min(failures - 1, 30), self.longest_s))


@dataclass(frozen=True)
class NodePlan:
    """One node: what runs, how it is wired and what happens when it dies.

    Attributes:
        node: "module:Class".
        inputs, outputs: topics by the graph's names.
        remap: the node's own topic names -> the graph's.
        realtime: see nodes/kernel/schedule.py, Settings.
        every: it acts on every so many-th observation (nodes/kernel/rates.py).
        budgets_ns: its own names of inputs -> how old the observation behind may be when used.
        process: nodes of the same process name share a process; empty: its own.
        host: where it flies, if the graph can be split over two.
    """

    name: str
    node: str
    config: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    remap: dict[str, str] = field(default_factory=dict)
    cpus: tuple[int, ...] = ()
    nice: int = 0
    realtime: dict[str, Any] = field(default_factory=dict)
    every: int = 1
    budgets_ns: dict[str, int] = field(default_factory=dict)
    process: str = ""
    restart: Restart = Restart()
    host: str = ""

    @property
    def crew(self) -> str:
        """Names the process that it runs in: a shared one, or its own."""
        return f"process {self.process}" if self.process else self.name


@dataclass(frozen=True)
class Step:
    """A line of the launch file's script: after so many episodes or seconds, ask a node something.

    Attributes:
        request: "swap" waits until the model in arguments["path"] flies.
    """

    node: str
    request: str
    arguments: dict[str, Any]
    after_episodes: int | None = None
    after_s: float | None = None

    @property
    def text(self) -> str:
        if self.request == "swap":
            return f"swap {self.node} to {Path(str(self.arguments.get('path', ''))).name}"
        return f"{self.request} {self.node}"

    def due(self, episodes: int, seconds: float) -> bool:
        by_episodes = self.after_episodes is not None and episodes >= self.after_episodes
        return by_episodes or (self.after_s is not None and seconds >= self.after_s)


@dataclass(frozen=True)
class Plan:
    """A run, ready to start.

    Attributes:
        nodes: in graph order.
        episodes, duration_s: the run ends at whichever comes first; both None: when told to.
        step_s: simulated seconds per control period, where the plant is a simulation.
        host: which of two hosts this is (launch/portion.py); empty: there is one.
        paces: topics from the other host -> they come for every so many-th observation.
        elsewhere: the nodes of the other host; they can be asked as if they were here.
    """

    name: str
    env: str
    interface: dict[str, Any]
    period_ns: int
    seed: int
    nodes: tuple[NodePlan, ...]
    clock: str = "realtime"
    episodes: int | None = None
    duration_s: float | None = None
    script: tuple[Step, ...] = ()
    step_s: float | None = None
    host: str = ""
    paces: dict[str, int] = field(default_factory=dict)
    elsewhere: tuple[NodePlan, ...] = ()

    @property
    def rate_hz(self) -> float:
        return 1e9 / self.period_ns

    @property
    def real_time_factor(self) -> float | None:
        """Simulated seconds per second of the run's clock."""
        return None if self.step_s is None else self.step_s * self.rate_hz

    def writer(self, topic: str) -> str | None:
        """The node that writes a topic."""
        return next((node.name for node in self.nodes if topic in node.outputs), None)

    @property
    def plant(self) -> str | None:
        return self.writer(OBSERVATION)

    @property
    def pacemaker(self) -> str | None:
        """The plant itself, on whichever host it is: who puts a set of models in force."""
        away = (node.name for node in self.elsewhere if OBSERVATION in node.outputs)
        return next(away, self.plant)

    def readers(self) -> dict[str, list[str]]:
        """topic -> the nodes that read it, in graph order."""
        topics: dict[str, list[str]] = {topic: [] for node in self.nodes for topic in node.outputs}
        for node in self.nodes:
            for topic in node.inputs:
                topics.setdefault(topic, []).append(node.name)
        return topics

    def spec(self, node: NodePlan, run_dir: Path, runtime_dir: Path, pid: int) -> Spec:
        """What the node's process is started with."""
        readers = self.readers()
        local = {graph: own for own, graph in node.remap.items()}
        beside: set[str] = set()  # who gets messages in memory; in lockstep nobody does
        if node.process and self.clock != "lockstep":
            beside = {other.name for other in self.nodes if other.process == node.process}
        streams = {
            topic: [name for name in readers[topic] if name not in beside]
            + ([SUPERVISOR] if topic == EPISODE else [])
            for topic in node.outputs
            if TOPICS[local.get(topic, topic)].port == "stream"
        }
        return Spec(
            name=node.name,
            node=node.node,
            config=node.config,
            interface=self.interface,
            period_ns=self.period_ns * node.every,
            seed=self.seed,
            run_dir=str(run_dir),
            runtime_dir=str(runtime_dir),
            clock=self.clock,
            readers=streams,
            remap=node.remap,
            absent=[local.get(topic, topic) for topic in node.inputs if not self.writer(topic)],
            cpus=list(node.cpus),
            nice=node.nice,
            realtime=node.realtime,
            supervisor_pid=pid,
            **self._rates(node),
        )

    def _rates(self, node: NodePlan) -> dict[str, Any]:
        """How often the node's inputs come, and which observations are thinned out, for its spec.

        Only observations are thinned out for a slow reader: they say which of them it answers.
        """
        every = {other.name: other.every for other in self.nodes}
        local = {graph: own for own, graph in node.remap.items()}
        rates, thinned = {}, []
        for topic in node.inputs:
            own = local.get(topic, topic)
            rates[own] = self.paces.get(topic) or every.get(self.writer(topic) or "", 1)
            if own == OBSERVATION and node.every > rates[own]:
                rates[own] = node.every
                thinned.append(own)
        slow = {
            own: sorted({n.every for n in self.nodes if topic in n.inputs and n.every > node.every})
            for topic in node.outputs
            if (own := local.get(topic, topic)) == OBSERVATION
        }
        return {
            "every": node.every,
            "budgets_ns": node.budgets_ns,
            "rates": {own: rate for own, rate in rates.items() if rate > 1},
            "thinned": thinned,
            "slow": {own: found for own, found in slow.items() if found},
        }

    def describe(self) -> dict[str, Any]:
        """What `graph.json` says, for those who attach to the run."""
        readers = self.readers()
        local = {graph: own for node in self.nodes for own, graph in node.remap.items()}
        return {
            "name": self.name,
            "env": self.env,
            "host": self.host,
            "clock": self.clock,
            "seed": self.seed,
            "rate_hz": self.rate_hz,
            "interface": self.interface,
            "nodes": {
                node.name: {
                    "node": node.node,
                    "inputs": node.inputs,
                    "outputs": node.outputs,
                    "rate_hz": self.rate_hz / node.every,
                    "process": node.process or node.name,
                }
                for node in (*self.nodes, *self.elsewhere)
            },
            "topics": {
                topic: {
                    "type": local.get(topic, topic),
                    "message": TOPICS[local.get(topic, topic)].message.__name__,
                    "port": TOPICS[local.get(topic, topic)].port,
                    "writer": self.writer(topic) if topic != OBSERVATION else self.pacemaker,
                    "readers": names,
                }
                for topic, names in readers.items()
            },
        }
