"""Checks of the graph as a whole: who writes what, who waits for whom, and for how long."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from safetypilot.envs.registry import describe
from safetypilot.launch.loader import Document, Place, Problem, did_you_mean, show
from safetypilot.launch.registry import RegistryError, node_type
from safetypilot.launch.resolved import NodeSpec, Port, TopicSpec
from safetypilot.launch.schema import LaunchFile
from safetypilot.nodes.kernel.topics import TOPICS


@dataclass
class Check:
    """What the checks read, and where they put what they find."""

    file: LaunchFile
    document: Document
    nodes: tuple[NodeSpec, ...]
    absent: tuple[str, ...]  # nodes whose `when` is off
    problems: list[Problem]
    warnings: list[str]

    def complain(self, place: Place, message: str, mend: str = "", *, key: bool = False) -> None:
        self.problems.append(Problem(self.document.at(place, key=key), message, mend))


def connect(check: Check) -> tuple[TopicSpec, ...]:
    """The topics of the graph: one writer each, readers in graph order."""
    kinds = _kinds(check)
    writers = _writers(check)
    readers: dict[str, list[str]] = {topic: [] for topic in writers}
    for node in check.nodes:
        for port in node.inputs:
            if port.topic in writers:
                readers[port.topic].append(node.name)
            elif not port.optional and port.name in TOPICS and not _bare(node, port):
                _unwritten(check, node, port, writers)
    for topic in check.file.topics:
        known = [*dict.fromkeys([*writers, *TOPICS])]
        if topic not in known:
            message = f"there is no topic {show(topic)}"
            check.complain(
                ("topics", topic), message, did_you_mean(topic, known, what="topics"), key=True
            )
    topics = []
    for name, writer in writers.items():
        if name not in kinds:
            continue
        info = TOPICS[kinds[name]]
        options = check.file.topics.get(name)
        extra = options.model_dump() if options else {}
        topics.append(
            TopicSpec(
                name,
                kinds[name],
                info.message.__name__,
                info.port,
                writer,
                tuple(readers[name]),
                **extra,
            )
        )
    return tuple(topics)


def _bare(node: NodeSpec, port: Port) -> bool:
    """An arbiter with its shield off asks for no risk, and takes no recovery."""
    return node.config.get("shield") is False and port.name in ("risk", "recovery")


def remapped(check: Check, node: str, names: Iterable[str]) -> dict[str, str]:
    """The node's own topic names -> the graph's; refuses names the node does not have."""
    own = list(names)
    remap = check.file.remap.get(node, {})
    for name in remap:
        if name not in own:
            message = f"node {node!r} has no topic {show(name)}"
            check.complain(
                ("remap", node, name), message, did_you_mean(name, own, what="it has"), key=True
            )
    return {name: remap.get(name, name) for name in own}


def _kinds(check: Check) -> dict[str, str]:
    """Graph topic -> its row in the topic table; all ends of a topic must agree."""
    kinds: dict[str, str] = {}
    for node in check.nodes:
        for port in (*node.inputs, *node.outputs):
            place = ("remap", node.name, port.name)
            if port.name not in TOPICS:
                message = f"node {node.name!r} has the unknown topic {show(port.name)}"
                mend = did_you_mean(port.name, TOPICS, what="topics")
                check.complain(("nodes", node.name, "type"), message, mend)
                continue
            kind = kinds.setdefault(port.topic, port.topic if port.topic in TOPICS else port.name)
            if TOPICS[kind].message is not TOPICS[port.name].message:
                theirs, ours = TOPICS[kind].message.__name__, TOPICS[port.name].message.__name__
                message = f"topic {port.topic!r} carries {theirs}, node {node.name!r} needs {ours}"
                check.complain(place, message, "remap to another name")
    return kinds


def _writers(check: Check) -> dict[str, str]:
    writers: dict[str, str] = {}
    for node in check.nodes:
        for port in node.outputs:
            first = writers.setdefault(port.topic, node.name)
            if first != node.name:
                message = f"topic {port.topic!r} has two writers, nodes {first!r} and {node.name!r}"
                mend = (
                    f"remove one of the two, or rename its topic: "
                    f"remap: {{{node.name}: {{{port.name}: {node.name}_{port.name}}}}}"
                )
                check.complain(("nodes", node.name), message, mend, key=True)
    return writers


def _unwritten(check: Check, node: NodeSpec, port: Port, writers: Mapping[str, str]) -> None:
    message = f"node {node.name!r} reads topic {port.topic!r}, which no node writes"
    off = [name for name in check.absent if port.topic in _would_write(check, name)]
    place: Place = ("nodes", node.name)
    if off:
        mend = f"node {off[0]!r} would, but its `when` is off"
    elif port.topic in TOPICS:
        mend = f"add a node of type {TOPICS[port.topic].owner}"
    else:
        place = ("remap", node.name, port.name)
        mend = did_you_mean(port.topic, writers, what="written are")
    check.complain(place, message, mend, key=place[0] == "nodes")


def _would_write(check: Check, absent: str) -> tuple[str, ...]:
    remap = check.file.remap.get(absent, {})
    try:
        outputs = node_type(check.file.nodes[absent].type).outputs
    except RegistryError:
        return ()
    return tuple(remap.get(topic, topic) for topic in outputs)


def latency(check: Check, topics: tuple[TopicSpec, ...]) -> None:
    """From the plant's stamp on: may a path take longer than its budget or the control period?

    A node may take its config's `budget_ms` after the last of what it waits for.
    """
    period = 1e3 / check.file.rate
    paths = _slowest_paths(check.nodes, {topic.name: topic for topic in topics})
    for topic in topics:
        took, path = paths.get(topic.writer, (0.0, ()))
        place = ("topics", topic.name, "budget_ms")
        if topic.budget_ms is None:
            continue
        budget = f"{topic.budget_ms:g} ms for topic {topic.name!r}"
        own = period * next(node.every for node in check.nodes if node.name == topic.writer)
        if topic.budget_ms > own:
            message = f"a budget of {budget} is longer than the control period, {own:g} ms"
            check.complain(place, message, f"lower it, or the rate of {check.file.rate:g} Hz")
        elif took > topic.budget_ms:
            message = f"of a budget of {budget}, {_sum(check.nodes, path)} may take {took:g} ms"
            check.complain(place, message, "raise it, or lower budget_ms of a node on the way")
    if check.file.clock == "realtime":
        _before_deadlines(check, paths, period)


def _before_deadlines(
    check: Check, paths: Mapping[str, tuple[float, tuple[str, ...]]], period: float
) -> None:
    """Warns of answers that come after the arbiter has decided without them."""
    for node in check.nodes:
        share = node.config.get("deadline")
        if TOPICS["command"].owner != node.type or not isinstance(share, int | float):
            continue
        for port in node.inputs:
            for writer in (n for n in check.nodes if port.topic in {p.topic for p in n.outputs}):
                took, path = paths.get(writer.name, (0.0, ()))
                spare = (node.config.get("validity", 1.0) - 1) * writer.every * period
                if took > (share * period if writer.every == 1 else max(share * period, spare)):
                    check.warnings.append(
                        f"{port.topic}: {_sum(check.nodes, path)} may take {took:g} ms, but "
                        f"{node.name} decides {share * period:g} ms after the observation; lower "
                        f"{writer.name}.budget_ms or the rate"
                    )


def _slowest_paths(
    nodes: tuple[NodeSpec, ...], topics: Mapping[str, TopicSpec]
) -> dict[str, tuple[float, tuple[str, ...]]]:
    """Node -> the longest time from an observation to its answer, and the nodes on that path."""
    by_name = {node.name: node for node in nodes}
    done: dict[str, tuple[float, tuple[str, ...]]] = {}

    def slowest(node: NodeSpec, above: frozenset[str]) -> tuple[float, tuple[str, ...]]:
        if any(topics[p.topic].type == "observation" for p in node.outputs if p.topic in topics):
            return 0.0, ()
        if node.name in done:
            return done[node.name]
        ways: list[tuple[float, tuple[str, ...]]] = [(0.0, ())]
        for port in node.inputs:
            topic = topics.get(port.topic)
            if port.optional or topic is None or topic.port != "latest" or topic.writer in above:
                continue
            ways.append(slowest(by_name[topic.writer], above | {node.name}))
        took, path = max(ways)
        own = node.config.get("budget_ms")
        if isinstance(own, int | float) and not isinstance(own, bool) and own > 0:
            took, path = took + own, (*path, node.name)
        done[node.name] = took, path
        return took, path

    for node in nodes:
        slowest(node, frozenset((node.name,)))
    return done


def _sum(nodes: tuple[NodeSpec, ...], path: tuple[str, ...]) -> str:
    """`task_policy (4) + safety_critic (4)`."""
    budgets = {node.name: node.config.get("budget_ms") for node in nodes}
    return " + ".join(f"{name} ({budgets[name]:g})" for name in path)


def guard(check: Check, env: str) -> None:
    """Every observation that an arbiter guards is one that the plant makes."""
    for node in check.nodes:
        guarded = node.config.get("guard")
        if not guarded or not isinstance(guarded, dict):
            continue
        known = describe(env)["observation_names"]
        for name in guarded:
            if name not in known:
                place: Place = ("nodes", node.name, "config", "guard", name)
                mend = did_you_mean(name, known, what="observations")
                check.complain(place, f"{env} observes no {show(name)}", mend, key=True)


def models(check: Check, env: str) -> None:
    """Every model is for this plant, and for the rate at which its node steps."""
    from safetypilot.launch import contracts

    for misfit in contracts.misfits(check.nodes, env, check.file.rate):
        check.complain(("nodes", misfit.node, "config", misfit.setting), misfit.why)


def robot(check: Check) -> None:
    """Every bridge has a driver that can do the task, at this rate."""
    for node in check.nodes:
        if node.type != "bridge":
            continue
        from safetypilot.bridge import calibration
        from safetypilot.bridge.contract import DriverError
        from safetypilot.launch import robots

        if check.file.clock == "lockstep":
            mend = "lockstep is for plant=simulator"
            check.complain(("nodes", node.name), "a robot keeps its own time", mend, key=True)
        try:
            _, body = robots.robot_of(node.config, round(1e9 / check.file.rate))
            for path in _policies(check):
                robots.check_model(path, body, check.file.env)
            calibration.load_given(node.config.get("calibration"))
        except DriverError as error:
            check.complain(("nodes", node.name, "config"), str(error))


def _policies(check: Check) -> list[str]:
    """The files of the task's policies that are here."""
    files = [node.config.get("model") for node in check.nodes if node.type == "task_policy"]
    return [path for path in files if isinstance(path, str) and os.path.isfile(path)]


def machine(check: Check) -> None:
    """Warns of CPUs that this machine does not have; the node then runs on any."""
    here = os.sched_getaffinity(0)
    for node in check.nodes:
        missing = sorted({*node.cpus, *node.realtime.get("cpus", ())} - here)
        if missing:
            listed = ", ".join(map(str, missing))
            check.warnings.append(
                f"{node.name}: CPU {listed} is not available here (there is "
                f"{', '.join(map(str, sorted(here)))})"
            )
