"""What the arbiter tells of its decisions: one message for each, and counts over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.health import Histogram
from safetypilot.policies import shield

_OVER_BUDGET = {
    shield.Reason[f"{topic.upper()}_OVER_BUDGET"]: topic
    for topic in ("observation", "proposal", "risk", "recovery")
}
_SOURCES = ("task", "recovery", "tail", "failsafe")
_ROLES = ("task_policy", "safety_critic", "recovery")
_PATIENCE_NS = 3_000_000_000


@dataclass
class Step:
    """What has come for the observation under way."""

    observation: messages.Observation
    proposal: messages.Proposal | None = None
    risk: messages.Risk | None = None
    recovery: messages.Recovery | None = None


class Unarmed:
    """What keeps an arbiter that arms by itself from doing so."""

    def __init__(self, period_ns: int) -> None:
        self._steps, self._last = 0, _PATIENCE_NS // period_ns + 1
        self._absent = {"proposal": 0, "risk": 0, "recovery": 0}

    def add(self, step: Step) -> dict[str, str]:
        """Counts a step; once, after a while, what is to be said."""
        self._steps += 1
        for topic in self._absent:
            self._absent[topic] += getattr(step, topic) is None
        if self._steps != self._last:
            return {}
        shares = {topic: round(100 * n / self._steps) for topic, n in self._absent.items()}
        absent = " and ".join(f"{topic} in {n} %" for topic, n in shares.items() if n)
        return {"absent": f"{absent} of the steps; a node slower than the graph needs a `rate`"}


class Decisions:
    """Counts of what was decided, and of answers that came too late."""

    def __init__(self) -> None:
        self._count = 0
        self._sources = [0, 0, 0, 0]
        self._reasons: dict[str, int] = {}
        self._over_budget: dict[str, int] = {}  # input -> decisions
        self._late: dict[str, int] = {}  # topic -> answers
        self._worst_ns: dict[str, int] = {}  # topic -> how long after the deadline
        self._lateness = Histogram()

    def late(self, topic: str, message: Any, now_ns: int, deadline_ns: int) -> None:
        """An answer came too late to be used; the deadline counts from its observation's stamp."""
        age_ns = now_ns - message.stamp_ns
        self._late[topic] = self._late.get(topic, 0) + 1
        self._worst_ns[topic] = max(self._worst_ns.get(topic, 0), age_ns - deadline_ns)
        self._lateness.add(age_ns)

    def decided(
        self, step: Step, decision: shield.Decision, eps: float, now_ns: int
    ) -> messages.Decision:
        """Counts a decision; the message that tells why."""
        observation = step.observation
        self._count += 1
        self._sources[decision.source] += 1
        name = decision.reason.name
        self._reasons[name] = self._reasons.get(name, 0) + 1
        for reason in {decision.reason, decision.recovery_reason} & _OVER_BUDGET.keys():
            topic = _OVER_BUDGET[reason]
            self._over_budget[topic] = self._over_budget.get(topic, 0) + 1
        inputs = (step.proposal, step.risk, step.recovery)
        ages = [-1 if m is None else now_ns - m.stamp_ns for m in inputs]
        models = ", ".join(
            f"{role}={m.model}" for role, m in zip(_ROLES, inputs, strict=True) if m is not None
        )
        return messages.Decision(
            seq=observation.seq,
            stamp_ns=observation.stamp_ns,
            sent_ns=now_ns,
            source=decision.source,
            reason=decision.reason,
            recovery_reason=decision.recovery_reason,
            alternative=decision.alternative,
            risk=decision.risk,
            eps=eps,
            observation_age_ns=now_ns - observation.stamp_ns,
            proposal_age_ns=ages[0],
            risk_age_ns=ages[1],
            recovery_age_ns=ages[2],
            models=models,
        )

    def summary(self) -> dict[str, Any]:
        """For the node's status; JSON-able."""
        return {
            "decisions": self._count,
            "sources": dict(zip(_SOURCES, self._sources, strict=True)),
            "reasons": dict(self._reasons),
            "over_budget": dict(self._over_budget),
            "late": dict(self._late),
            "late_ms": {topic: round(ns / 1e6, 3) for topic, ns in self._worst_ns.items()},
            "late_us": self._lateness.summary(),
        }
