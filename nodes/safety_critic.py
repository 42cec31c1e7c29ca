"""Judges every proposal: the risk of that very action at that very observation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.node import Context, Input, Node
from safetypilot.nodes.kernel.process import main
from safetypilot.nodes.model_slot import ModelSlot
from safetypilot.policies import critic

_RETRY_NS = 100_000  # the observation is on its way over another socket


@dataclass(frozen=True)
class SafetyCriticConfig:
    """Which critic judges.

    Attributes:
        model: an ONNX file of kind safety_critic.
        budget_ms: what a call may take; a slower model is refused.
        follow: take what the learner announces.
    """

    model: str
    budget_ms: float = 4.0
    follow: bool = True


class SafetyCritic(Node):
    # The observation comes from the plant itself, not from the policy that is being judged.
    inputs = (
        Input("observation", wakes=False),
        Input("proposal"),
        Input("model", wakes=False, optional=True),
    )
    outputs = ("risk",)
    Config = SafetyCriticConfig

    def __init__(self, config: SafetyCriticConfig, context: Context) -> None:
        super().__init__(config, context)
        self._observation: messages.Observation | None = None
        self._pending: messages.Proposal | None = None
        self._slot = ModelSlot(
            context, "safety_critic", config.budget_ms / 1e3, critic.SafetyCritic, self._install
        )
        self._unmatched = 0

    def _install(self, model: critic.SafetyCritic) -> None:
        self._critic = model

    def configure(self) -> None:
        self._slot.load(self.config.model)

    def on_message(self, topic: str, message: Any, now_ns: int) -> None:
        if topic == "observation":
            self._observation = message
        elif topic == "proposal":
            self._pending = message
        elif self.config.follow and message.kind == "safety_critic":
            self._slot.follow(message.path)
        self._judge(now_ns)

    def on_timer(self, now_ns: int) -> None:
        self.next_wake_ns = None
        self._judge(now_ns)

    def _judge(self, now_ns: int) -> None:
        proposal, observation = self._pending, self._observation
        if proposal is None:
            return
        if observation is None or observation.seq < proposal.seq:
            if now_ns - proposal.sent_ns < self.context.period_ns:
                self.next_wake_ns = now_ns + _RETRY_NS
            return
        self._pending = self.next_wake_ns = None
        if observation.seq != proposal.seq:
            self._unmatched += 1  # the proposal answers an older observation: not worth judging
            return
        self._slot.promote(now_ns)
        risk = self._critic.risk(observation.values, proposal.action)
        self.context.emit(
            "risk",
            messages.Risk(
                proposal.seq,
                observation.stamp_ns,
                self.context.clock.now_ns(),
                proposal.proposal_id,
                risk,
                self._slot.version,
                now_ns,
                proposal.taken_ns,
                proposal.sent_ns,
            ),
        )

    def on_request(self, request: str, arguments: dict[str, Any], now_ns: int) -> dict[str, Any]:
        return self._slot.answer(request, arguments)

    def status(self) -> dict[str, Any]:
        return {**self._slot.status(), "unmatched": self._unmatched}


if __name__ == "__main__":
    main(SafetyCritic)
