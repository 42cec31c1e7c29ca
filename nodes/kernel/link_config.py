"""What one end of the link between two hosts is told; launch/portion.py makes it."""

from __future__ import annotations

from dataclasses import dataclass

from safetypilot.nodes.kernel.topics import TOPICS


@dataclass(frozen=True)
class LinkConfig:
    """One end of the link between two hosts.

    Attributes:
        host, peer: names of this host and of the other one.
        address: tcp://ADDRESS:PORT of the host that listens.
        calls: whether this host calls; else it listens.
        secret: file of this host's secret key.
        peer_key: the other host's public key, in hexadecimal.
        sends, receives: topics by their names in topics.py.
        graph: digest of what both hosts must agree on.
        nodes, stoppers, elsewhere: see link_relay.py.
        silence_s: after so long without a word the other host is gone.
        uncertainty_ms: a difference of clocks known no better than this is worth a word.
    """

    host: str
    peer: str
    address: str
    calls: bool
    secret: str
    peer_key: str
    sends: tuple[str, ...]
    receives: tuple[str, ...]
    graph: str
    nodes: tuple[str, ...] = ()
    stoppers: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    silence_s: float = 1.0
    uncertainty_ms: float = 10.0


def is_value(topic: str) -> bool:
    """Whether of a topic only the newest counts."""
    return TOPICS[topic].port == "latest"
