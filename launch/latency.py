"""Where the time of a step goes, hop by hop, from the chains that transitions carry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from safetypilot.launch.cli_common import InputError
from safetypilot.launch.runtime_dir import Running
from safetypilot.launch.tally import Latencies
from safetypilot.nodes.kernel import trace
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.kernel.messages import Recovery, Transition
from safetypilot.nodes.kernel.taps import Taps
from safetypilot.nodes.kernel.topics import TOPICS
from safetypilot.nodes.kernel.transport import Endpoints
from safetypilot.nodes.kernel.wire import Codec, WireError

# hop -> what it is, in the order of a step
HOPS = {
    "observation_to_policy": "observation -> task policy",
    "policy": "task policy works",
    "proposal_to_critic": "proposal -> safety critic",
    "critic": "safety critic works",
    "observation_to_planner": "observation -> recovery planner",
    "planner": "recovery planner works",
    "proposal_to_arbiter": "proposal -> arbiter (no risk)",
    "risk_to_arbiter": "risk -> arbiter",
    "recovery_to_arbiter": "recovery -> arbiter",
    "arbiter": "arbiter decides",
    "command_to_plant": "command -> plant",
    "plant": "plant steps",
    "total": "observation -> command taken",
}
# datum -> how old the observation behind it is when it is used
AGES = {
    "proposal": "proposal as the arbiter decides",
    "recovery": "recovery as the arbiter decides",
    "command": "command as the plant takes it",
}
_TASK = 0  # policies.shield.Source.TASK


class Breakdown:
    """Durations by hop, and ages at use, since it began to listen.

    Attributes:
        steps: transitions seen. missed: those without a command in time. waited: those in which the
            arbiter decided at its deadline, because a risk or a recovery was missing.
    """

    def __init__(self) -> None:
        self.steps = self.missed = self.waited = 0
        self._hops = {name: Latencies() for name in HOPS}
        self._ages = {name: Latencies() for name in AGES}

    def add(self, messages: Iterable[Any]) -> None:
        """Takes in transitions and recoveries; others are of no interest."""
        hops: dict[str, list[int]] = {name: [] for name in HOPS}
        ages: dict[str, list[int]] = {name: [] for name in AGES}
        for message in messages:
            if isinstance(message, Transition):
                self._add_step(message, hops, ages)
            elif isinstance(message, Recovery):
                hops["observation_to_planner"].append(message.taken_ns - message.stamp_ns)
                hops["planner"].append(message.sent_ns - message.taken_ns)
        for store, found in ((self._hops, hops), (self._ages, ages)):
            for name, values in found.items():
                if values:
                    in_us = np.maximum(np.array(values), 0) / 1e3
                    store[name].add(in_us.astype(np.float32))

    def _add_step(
        self, step: Transition, hops: dict[str, list[int]], ages: dict[str, list[int]]
    ) -> None:
        self.steps += 1
        chain = trace.unpack(step.chain)
        if not chain.plant_taken:
            self.missed += 1
            return
        if chain.policy_observed == step.stamp_ns:  # not one that is held from an earlier step
            hops["observation_to_policy"].append(chain.policy_taken - chain.policy_observed)
            hops["policy"].append(chain.proposal_sent - chain.policy_taken)
            if chain.risk_sent:
                hops["proposal_to_critic"].append(chain.critic_taken - chain.proposal_sent)
                hops["critic"].append(chain.risk_sent - chain.critic_taken)
        last = _last(chain, step)
        if last:
            sent, hop = last
            hops[hop].append(chain.arbiter_taken - sent)
        else:
            self.waited += 1
        hops["arbiter"].append(chain.command_sent - chain.arbiter_taken)
        hops["command_to_plant"].append(chain.plant_taken - chain.command_sent)
        hops["plant"].append(step.sent_ns - chain.plant_taken)
        hops["total"].append(chain.plant_taken - step.stamp_ns)
        ages["command"].append(chain.plant_taken - step.stamp_ns)
        if chain.policy_observed:
            ages["proposal"].append(chain.arbiter_taken - chain.policy_observed)
        if chain.planner_observed:
            ages["recovery"].append(chain.arbiter_taken - chain.planner_observed)

    def figures(self) -> dict[str, Any]:
        """Percentiles in us by hop and by datum; None where the sample does not support them."""
        return {
            "steps": self.steps,
            "missed": self.missed,
            "waited": self.waited,
            "hops_us": {name: x.summary() for name, x in self._hops.items() if x.count},
            "age_at_use_us": {name: x.summary() for name, x in self._ages.items() if x.count},
        }


def _last(chain: trace.Chain, step: Transition) -> tuple[int, str] | None:
    """What the arbiter took last before it decided; None if it decided without, at its deadline."""
    if not chain.risk_sent and not chain.recovery_sent:
        return (chain.proposal_sent, "proposal_to_arbiter") if chain.proposal_sent else None
    if not chain.risk_sent or (step.source != _TASK and not chain.recovery_sent):
        return None
    return max((chain.risk_sent, "risk_to_arbiter"), (chain.recovery_sent, "recovery_to_arbiter"))


class Listener:
    """Transitions and recoveries of a running graph, from taps."""

    def __init__(self, found: Running) -> None:
        dims = Interface.from_dict(found.graph["interface"]).dims
        self._decoders = {
            name: Codec(TOPICS[topic["type"]].message, dims).decode
            for name, topic in found.graph["topics"].items()
            if topic["type"] in ("transition", "recovery") and topic["writer"]
        }
        if not any(t["type"] == "transition" for t in found.graph["topics"].values()):
            raise InputError(f"{found.run_id} has no transitions, so there is no step to time")
        self._taps = Taps(Endpoints(found.path), self._decoders)

    def take(self) -> list[Any]:
        """What has come since."""
        messages = []
        for topic, frame in self._taps.take():
            try:
                messages.append(self._decoders[topic](frame))
            except WireError:
                continue
        return messages

    def close(self) -> None:
        self._taps.close()


def text(figures: dict[str, Any]) -> str:
    """The breakdown as plain lines, us."""
    counts = f"{figures['steps']} steps, {figures['missed']} without a command in time"
    lines = [
        f"{figures['run']}: {counts}",
        f"{figures['waited']} decided at the arbiter's deadline",
        _line(("us", "n", "p50", "p99", "p99.9", "max")),
    ]
    for key, names in (("hops_us", HOPS), ("age_at_use_us", AGES)):
        if key == "age_at_use_us":
            lines.append("age at use:")
        for name, row in figures[key].items():
            cells = (names[name], str(row["n"]), *(_cell(row[k]) for k in _PERCENTILES))
            lines.append(_line(cells))
    return "\n".join(lines)


_PERCENTILES = ("p50", "p99", "p999", "max")


def _line(cells: tuple[str, ...]) -> str:
    return f"{cells[0]:<33}{cells[1]:>8}" + "".join(f"{cell:>9}" for cell in cells[2:])


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
