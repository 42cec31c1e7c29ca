"""Proposes an action for every observation; the proposal is not yet approved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.node import Context, Input, Node
from safetypilot.nodes.kernel.process import main
from safetypilot.nodes.model_slot import ModelSlot
from safetypilot.policies import task


@dataclass(frozen=True)
class TaskPolicyConfig:
    """Which policy flies.

    Attributes:
        model: an ONNX file of kind task_policy.
        budget_ms: what a call may take; a slower model is refused.
        follow: take what the learner announces.
    """

    model: str
    budget_ms: float = 4.0
    follow: bool = True


class TaskPolicy(Node):
    inputs = (Input("observation"), Input("model", wakes=False, optional=True))
    outputs = ("proposal",)
    Config = TaskPolicyConfig

    def __init__(self, config: TaskPolicyConfig, context: Context) -> None:
        super().__init__(config, context)
        self._proposal_id = context.generation << 32  # never repeats, also not after a restart
        self._slot = ModelSlot(
            context, "task_policy", config.budget_ms / 1e3, task.TaskPolicy, self._install
        )

    def _install(self, policy: task.TaskPolicy) -> None:
        self._policy = policy

    def configure(self) -> None:
        self._slot.load(self.config.model)

    def on_message(self, topic: str, message: Any, now_ns: int) -> None:
        if topic == "model":
            if self.config.follow and message.kind == "task_policy":
                self._slot.follow(message.path)
            return
        self._slot.promote(now_ns)
        action = self._policy.act(message.values)
        self._proposal_id += 1
        self.context.emit(
            "proposal",
            messages.Proposal(
                message.seq,
                message.stamp_ns,
                self.context.clock.now_ns(),
                self._proposal_id,
                action,
                self._slot.version,
                now_ns,
            ),
        )

    def on_request(self, request: str, arguments: dict[str, Any], now_ns: int) -> dict[str, Any]:
        return self._slot.answer(request, arguments)

    def status(self) -> dict[str, Any]:
        return self._slot.status()


if __name__ == "__main__":
    main(TaskPolicy)
