"""Proposes an action for every observation; the proposal is not yet approved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.errors import NodeError
from safetypilot.nodes.kernel.node import Context, Input, Node
from safetypilot.nodes.kernel.process import main
from safetypilot.nodes.model_slot import ModelSlot
from safetypilot.nodes.model_swap import Last, Role, SwapConfig
from safetypilot.nodes.model_watch import watch
from safetypilot.policies import task
from safetypilot.policies.bumpless import Bumpless


@dataclass(frozen=True)
class TaskPolicyConfig(SwapConfig):
    """Which policy flies.

    Attributes:
        model: an ONNX file of kind task_policy.
        budget_ms: what a call may take; a slower model is refused.
        bumpless_steps: after a change of model the action drifts to the new one's over so many
            steps; 0: at once.
    """

    model: str
    budget_ms: float = 4.0
    bumpless_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bumpless_steps < 0:
            raise ValueError(f"bumpless_steps is {self.bumpless_steps}; it cannot be below 0")


class TaskPolicy(Node):
    inputs = (
        Input("observation"),
        Input("model", wakes=False, optional=True),
        Input("command", wakes=False, optional=True, when="rollback_s"),
    )
    outputs = ("proposal",)
    Config = TaskPolicyConfig

    def __init__(self, config: TaskPolicyConfig, context: Context) -> None:
        super().__init__(config, context)
        self._proposal_id = context.generation << 32  # never repeats, also not after a restart
        self._policy: task.TaskPolicy | None = None
        self._episode = -1
        low, high = context.interface.action_low, context.interface.action_high
        self._bumpless = Bumpless(config.bumpless_steps, low, high)
        role = Role(
            "task_policy",
            "model",
            task.TaskPolicy,
            self._install,
            _answer,
            low,
            high,
            config.budget_ms / 1e3,
        )
        self._slot = ModelSlot(context, config, role)

    def _install(self, policy: task.TaskPolicy, up_to_date: bool) -> str:
        before, self._policy = self._policy, policy
        if before is None or (up_to_date and policy.recurrent):
            return "its own, from the shadow" if before else ""
        return policy.carry(before)

    def configure(self) -> None:
        self._slot.load(self.config.model)

    def activate(self, now_ns: int) -> None:
        watch(self.context, self.config.watch, {"task_policy": self._slot})

    def on_message(self, topic: str, message: Any, now_ns: int) -> None:
        if topic == "observation":
            self._propose(message, now_ns)
        elif topic == "command":
            self._slot.note_command(message)
        elif self.config.follow and message.kind == "task_policy":
            self._slot.follow(message.path)

    def _propose(self, observation: messages.Observation, now_ns: int) -> None:
        changed = self._slot.begin(observation, now_ns)
        policy, bumpless = self._policy, self._bumpless
        if policy is None:
            raise NodeError(f"{self.context.name} has not been configured")
        if observation.episode != self._episode:
            self._episode = observation.episode
            policy.reset()
            bumpless.forget()
        if changed:
            bumpless.begin()
        action = own = policy.act(observation.values)
        if self.config.bumpless_steps:
            action = bumpless(own)
        self._proposal_id += 1
        sent_ns = self.context.clock.now_ns()
        self.context.emit(
            "proposal",
            messages.Proposal(
                observation.seq,
                observation.stamp_ns,
                sent_ns,
                self._proposal_id,
                action,
                self._slot.version,
                now_ns,
            ),
        )
        slot = self._slot
        if slot.attentive:
            first = observation.step == 0
            last = Last(own, (observation.values,), first, sent_ns - now_ns)
            slot.answered(observation, last)
            self.next_wake_ns = slot.next_wake_ns

    def on_timer(self, now_ns: int) -> None:
        self._slot.on_timer(now_ns)
        self.next_wake_ns = self._slot.next_wake_ns

    def rehearse(self) -> None:
        if self._policy is not None:
            self._policy.rehearse()

    def on_request(self, request: str, arguments: dict[str, Any], now_ns: int) -> dict[str, Any]:
        return self._slot.answer(request, arguments)

    def status(self) -> dict[str, Any]:
        return self._slot.status()


def _answer(policy: task.TaskPolicy, first: bool, observation: Any) -> Any:
    """What a candidate would do, for the shadow."""
    if first:
        policy.reset()
    return policy.act(observation)


if __name__ == "__main__":
    main(TaskPolicy)
