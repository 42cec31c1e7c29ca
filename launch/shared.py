"""Shared memory of a run: a board per topic that carries a value, a bell per process.

The supervisor makes them and hands the file descriptors down, so that a restarted node finds them
again, and nothing of them is left when the last process of the run has ended, however it did.
"""

from __future__ import annotations

import os
from dataclasses import replace

from safetypilot.launch.plan import NodePlan, Plan
from safetypilot.nodes.kernel import board, rates
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.kernel.node import Spec
from safetypilot.nodes.kernel.topics import TOPICS

_TEXTS = 1 << 18  # bytes of a frame beside observations and actions: plans, names, stamps
_NUMBERS = 16  # times the size of an observation and an action that a frame may hold


class Shared:
    """What the processes of a run share.

    Args:
        specs: node name -> what its process is started with, in the order of the plan.
    """

    def __init__(self, plan: Plan, specs: dict[str, Spec]) -> None:
        self._plan = plan
        self._specs = specs
        dims = Interface.from_dict(plan.interface).dims
        self._frame_bytes = _TEXTS + 4 * _NUMBERS * sum(dims.values())
        self._bells = {node.crew: board.create_bell() for node in plan.nodes}
        self._readers: dict[str, list[NodePlan]] = {}
        for node in plan.nodes:
            for topic in self._read_by(node):
                self._readers.setdefault(topic, []).append(node)
        self._boards = {
            topic: board.create(topic, self._frame_bytes)
            for node in plan.nodes
            for topic in self._written_by(node)
            if len(self._outside(topic, node)) <= board.MOST_READERS
        }

    def _own(self, node: NodePlan, topic: str) -> str:
        return {graph: own for own, graph in node.remap.items()}.get(topic, topic)

    def _read_by(self, node: NodePlan) -> list[str]:
        """Topics that carry values, thinned out where the node is slow."""
        spec, found = self._specs[node.name], []
        for topic in node.inputs:
            own = self._own(node, topic)
            if TOPICS[own].port == "latest":
                every = spec.every if own in spec.thinned else 1
                found.append(rates.thinned(topic, every))
        return found

    def _written_by(self, node: NodePlan) -> list[str]:
        spec, found = self._specs[node.name], []
        for topic in node.outputs:
            own = self._own(node, topic)
            if TOPICS[own].port == "latest":
                found += [rates.thinned(topic, n) for n in (1, *spec.slow.get(own, ()))]
        return found

    def _outside(self, topic: str, writer: NodePlan) -> list[NodePlan]:
        """The readers of a topic that live in another process than its writer."""
        return [node for node in self._readers.get(topic, []) if node.crew != writer.crew]

    def equip(self, node: NodePlan) -> Spec:
        """The spec of a node, with its share."""
        boards: dict[str, int] = {}
        places: dict[str, int] = {}
        bells: dict[str, list[int]] = {}
        for topic in self._written_by(node):
            if topic in self._boards:
                boards[topic] = self._boards[topic]
                bells[topic] = [self._bells[n.crew] for n in self._outside(topic, node)]
        for writer in self._plan.nodes:
            for topic in set(self._written_by(writer)) & set(self._read_by(node)):
                outside = [n.name for n in self._outside(topic, writer)]
                if topic in self._boards and node.name in outside:
                    boards[topic] = self._boards[topic]
                    places[topic] = outside.index(node.name)
        bell = self._bells[node.crew]
        spec = self._specs[node.name]
        return replace(spec, boards=boards, places=places, bells=bells, bell=bell)

    def close(self) -> None:
        for fd in (*self._boards.values(), *self._bells.values()):
            os.close(fd)
