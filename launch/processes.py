"""Checks of nodes that a launch file puts into one process."""

from __future__ import annotations

from typing import Any

from safetypilot.launch.checks import Check
from safetypilot.launch.resolved import NodeSpec

_ALONE = {
    "learner": "it computes for long and loads torch",
    "recorder": "it writes to disk",
}


def check(check: Check) -> None:
    """Refuses what cannot be shared: a process has one schedule and one fate."""
    groups: dict[str, list[NodeSpec]] = {}
    for node in check.nodes:
        if node.process:
            groups.setdefault(node.process, []).append(node)
    for name, nodes in groups.items():
        if name in {node.name for node in check.nodes}:
            place = ("nodes", nodes[0].name, "process")
            check.complain(place, f"process {name!r} has the name of a node", "call it otherwise")
        for node in nodes:
            if len(nodes) > 1 and node.type in _ALONE:
                place = ("nodes", node.name, "process")
                message = f"a {node.type} cannot share a process: {_ALONE[node.type]}"
                check.complain(place, message, "leave out its process")
            for what, ours in _shared(node).items():
                first = _shared(nodes[0])[what]
                if ours != first:
                    place = ("nodes", node.name, "process")
                    message = (
                        f"nodes of process {name!r} differ in {what}: {nodes[0].name!r} has "
                        f"{first}, {node.name!r} has {ours}"
                    )
                    check.complain(place, message, "say the same for both")


def _shared(node: NodeSpec) -> dict[str, Any]:
    """What the nodes of a process must agree on; of the rest the highest counts."""
    own = ("priority", "rehearse_us")
    realtime = {key: value for key, value in node.realtime.items() if key not in own}
    return {
        "cpus": list(node.cpus),
        "nice": node.nice,
        "realtime": realtime or "none",
        "restart": node.restart.policy,
    }
