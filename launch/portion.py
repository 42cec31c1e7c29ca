"""What of a graph flies on one of its two hosts: that host's nodes, and the link to the others."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from hashlib import sha256
from math import gcd
from typing import Any

from safetypilot.launch import plan
from safetypilot.launch.resolved import Graph, HostSpec, NodeSpec, TopicSpec
from safetypilot.nodes.kernel.messages import SCHEMAS
from safetypilot.nodes.kernel.topics import TOPICS

LINK, MODEL = "link", "model"
_CLASS = "safetypilot.nodes.kernel.link:Link"


def crossing(nodes: Iterable[NodeSpec], topics: Iterable[TopicSpec]) -> list[TopicSpec]:
    """The topics that one host writes and the other needs.

    Episodes are needed on both: the supervisor without the plant counts by them too. A model's
    announcement names a file, which the other host does not have; sets of models travel by request
    (nodes/kernel/link_relay.py).
    """
    at = {node.name: node.host for node in nodes}
    return [
        topic
        for topic in topics
        if topic.name == plan.EPISODE
        or (topic.type != MODEL and any(at[r] != at[topic.writer] for r in topic.readers))
    ]


def portion(graph: Graph, host: str) -> plan.Plan:
    """What flies on a host; when the run ends is for the host of the plant to say.

    Args:
        graph: with `hosts`, loaded for this one.

    Raises:
        LaunchFileError: as `Graph.plan` does.
    """
    whole = graph.plan()
    here = next(spec for spec in graph.hosts if spec.name == host)
    there = next(spec for spec in graph.hosts if spec.name != host)
    at = {node.name: node.host for node in graph.nodes}
    topics = crossing(graph.nodes, graph.topics)
    sends = [topic for topic in topics if at[topic.writer] == host]
    receives = [topic for topic in topics if at[topic.writer] != host]
    link = _link(graph, here, there, sends, receives)
    local = tuple(node for node in whole.nodes if at[node.name] == host)
    every = {node.name: node.every for node in graph.nodes}
    paces = {topic.name: every[topic.writer] for topic in receives}
    if plan.OBSERVATION in paces:
        paces[plan.OBSERVATION] = link.every
    ends = plan.OBSERVATION not in paces
    return replace(
        whole,
        episodes=whole.episodes if ends else None,
        duration_s=whole.duration_s if ends else None,
        nodes=(*local, link),
        host=host,
        paces=paces,
        elsewhere=tuple(node for node in whole.nodes if at[node.name] != host),
        script=tuple(step for step in whole.script if at.get(step.node) == host),
    )


def _link(
    graph: Graph,
    here: HostSpec,
    there: HostSpec,
    sends: list[TopicSpec],
    receives: list[TopicSpec],
) -> plan.NodePlan:
    listens = here.address or there.address
    config = {
        "host": here.name,
        "peer": there.name,
        "address": f"tcp://{listens}",
        "calls": not here.address,
        "secret": here.secret,
        "peer_key": there.key,
        "sends": [topic.type for topic in sends],
        "receives": [topic.type for topic in receives],
        "graph": digest(graph),
        "nodes": [node.name for node in graph.nodes if node.host == here.name],
        "stoppers": _stoppers(graph, here.name),
        "elsewhere": [node.name for node in graph.nodes if node.host == there.name],
        "uncertainty_ms": _half_budget_ms(graph),
    }
    return plan.NodePlan(
        name=LINK,
        node=_CLASS,
        config=config,
        inputs=tuple(topic.name for topic in sends),
        outputs=tuple(topic.name for topic in receives),
        remap={t.type: t.name for t in (*sends, *receives) if t.type != t.name},
        cpus=here.cpus,
        nice=here.nice,
        realtime=here.realtime,
        every=_every(graph),
        restart=plan.Restart("always"),
    )


def _stoppers(graph: Graph, host: str) -> list[str]:
    """The nodes of a host that know the e-stop: the arbiter first, then the plant."""
    writers = {topic.type: topic.writer for topic in graph.topics}
    at = {node.name: node.host for node in graph.nodes}
    found = [writers[t] for t in (plan.COMMAND, plan.OBSERVATION) if t in writers]
    return [name for name in found if at[name] == host]


def _every(graph: Graph) -> int:
    """Of the observations, those cross that somebody on the other side answers."""
    at = {node.name: node for node in graph.nodes}
    for topic in graph.topics:
        if topic.type == plan.OBSERVATION:
            readers = [at[name] for name in topic.readers]
            return gcd(*(n.every for n in readers if n.host != at[topic.writer].host)) or 1
    return 1


def _half_budget_ms(graph: Graph) -> float:
    """Beyond this, not knowing the other host's clock is worth a word."""
    budgets = [limit for node in graph.nodes for limit in node.budgets_ms.values()]
    budgets += [topic.budget_ms for topic in graph.topics if topic.budget_ms is not None]
    return min(budgets, default=1e3 / graph.rate) / 2


def digest(graph: Graph) -> str:
    """What both hosts must agree on; files and thresholds may differ."""
    plain: dict[str, Any] = {
        "interface": graph.plan().interface,
        "rate": graph.rate,
        "nodes": [
            [node.name, node.type, node.host, node.every, [asdict(p) for p in node.inputs]]
            for node in graph.nodes
        ],
        "topics": [[topic.name, topic.type, topic.writer] for topic in graph.topics],
        "messages": sorted((its.__name__, *SCHEMAS[its]) for its in SCHEMAS),
        "ports": sorted((name, topic.port) for name, topic in TOPICS.items()),
    }
    return sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
