"""The topic table: each topic is spelled once, with its message, owner and port.

`latest` topics carry state, of which only the newest matters; `stream` topics carry facts, none of
which may be lost unnoticed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from safetypilot.nodes.kernel import messages


class Topic(NamedTuple):
    message: type[Any]
    owner: str  # the node type that writes it
    port: str  # "latest" or "stream"
    stale_after_periods: float  # older than this many control periods: not alive


TOPICS: dict[str, Topic] = {
    "observation": Topic(messages.Observation, "simulator", "latest", 2.0),
    "proposal": Topic(messages.Proposal, "task_policy", "latest", 2.0),
    "risk": Topic(messages.Risk, "safety_critic", "latest", 2.0),
    "recovery": Topic(messages.Recovery, "recovery_planner", "latest", 3.0),
    "command": Topic(messages.Command, "arbiter", "latest", 2.0),
    "decision": Topic(messages.Decision, "arbiter", "stream", 2.0),
    "transition": Topic(messages.Transition, "simulator", "stream", 2.0),
    "episode": Topic(messages.EpisodeReport, "simulator", "stream", float("inf")),
    "actuation": Topic(messages.Actuation, "bridge", "stream", 2.0),
    "model": Topic(messages.ModelAnnouncement, "learner", "stream", float("inf")),
}
