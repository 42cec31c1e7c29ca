"""Judges every proposal: the risk of that very action at that very observation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.node import Context, Input, Node
from safetypilot.nodes.kernel.process import main
from safetypilot.nodes.model_slot import ModelSlot
from safetypilot.nodes.model_swap import Last, Role, SwapConfig
from safetypilot.nodes.model_watch import watch
from safetypilot.policies import critic

_RETRY_NS = 100_000  # the observation is on its way over another socket


@dataclass(frozen=True)
class SafetyCriticConfig(SwapConfig):
    """Which critic judges.

    Attributes:
        model: an ONNX file of kind safety_critic.
        budget_ms: what a call may take; a slower model is refused.
    """

    model: str
    budget_ms: float = 4.0


class SafetyCritic(Node):
    # The observation comes from the plant itself, not from the policy that is being judged.
    inputs = (
        Input("observation", wakes=False),
        Input("proposal"),
        Input("model", wakes=False, optional=True),
        Input("command", wakes=False, optional=True, when="rollback_s"),
    )
    outputs = ("risk",)
    Config = SafetyCriticConfig

    def __init__(self, config: SafetyCriticConfig, context: Context) -> None:
        super().__init__(config, context)
        self._observation: messages.Observation | None = None
        self._pending: messages.Proposal | None = None
        role = Role(
            "safety_critic",
            "model",
            critic.SafetyCritic,
            self._install,
            _answer,
            0.0,
            1.0,
            config.budget_ms / 1e3,
        )
        self._slot = ModelSlot(context, config, role)
        self._unmatched = 0

    def _install(self, model: critic.SafetyCritic, up_to_date: bool) -> str:
        self._critic = model
        return ""

    def configure(self) -> None:
        self._slot.load(self.config.model)

    def activate(self, now_ns: int) -> None:
        watch(self.context, self.config.watch, {"safety_critic": self._slot})

    def on_message(self, topic: str, message: Any, now_ns: int) -> None:
        if topic == "observation":
            self._observation = message
        elif topic == "proposal":
            self._pending = message
        elif topic == "command":
            self._slot.note_command(message)
        elif self.config.follow and message.kind == "safety_critic":
            self._slot.follow(message.path)
        self._judge(now_ns)

    def on_timer(self, now_ns: int) -> None:
        self._slot.on_timer(now_ns)
        self.next_wake_ns = self._slot.next_wake_ns
        self._judge(now_ns)

    def _judge(self, now_ns: int) -> None:
        proposal, observation = self._pending, self._observation
        if proposal is None:
            return
        if observation is None or observation.seq < proposal.seq:
            if now_ns - proposal.sent_ns < self.context.period_ns:
                self.next_wake_ns = now_ns + _RETRY_NS
            return
        self._pending = None
        self.next_wake_ns = self._slot.next_wake_ns
        if observation.seq != proposal.seq:
            self._unmatched += 1  # the proposal answers an older observation: not worth judging
            return
        slot = self._slot
        slot.begin(observation, now_ns)
        risk = self._critic.risk(observation.values, proposal.action)
        sent_ns = self.context.clock.now_ns()
        self.context.emit(
            "risk",
            messages.Risk(
                proposal.seq,
                observation.stamp_ns,
                sent_ns,
                proposal.proposal_id,
                risk,
                slot.version,
                now_ns,
                proposal.taken_ns,
                proposal.sent_ns,
            ),
        )
        if slot.attentive:
            inputs = (observation.values, proposal.action)
            slot.answered(observation, Last(risk, inputs, observation.step == 0, sent_ns - now_ns))
            self.next_wake_ns = slot.next_wake_ns

    def rehearse(self) -> None:
        self._critic.rehearse()

    def on_request(self, request: str, arguments: dict[str, Any], now_ns: int) -> dict[str, Any]:
        return self._slot.answer(request, arguments)

    def status(self) -> dict[str, Any]:
        return {**self._slot.status(), "unmatched": self._unmatched}


def _answer(model: critic.SafetyCritic, first: bool, observation: Any, action: Any) -> float:
    """What a candidate would say, for the shadow."""
    return model.risk(observation, action)


if __name__ == "__main__":
    main(SafetyCritic)
