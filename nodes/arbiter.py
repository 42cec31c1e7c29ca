"""The arbiter: feeds the pure `decide()` of policies/shield.py and sends what it chose.

It decides once per observation: at once when the proposal is approved; when the proposal is not, as
soon as a recovery for that observation is there; at its own deadline with whatever has come. It
never waits for a peer beyond that, and a late answer is counted and never used.

Where policy or planner are slower than the plant, it still decides once per observation. It waits
only for an answer that is due for that very one; in between it decides at once, with what it holds.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from safetypilot.nodes.answers_held import HeldAnswers
from safetypilot.nodes.arbiter_config import (
    ArbiterConfig,
    Spacing,
    guard_indices,
    rules,
    spacing,
)
from safetypilot.nodes.arbiter_record import Decisions, Step, Unarmed
from safetypilot.nodes.kernel import messages, trace
from safetypilot.nodes.kernel.errors import RequestRefused
from safetypilot.nodes.kernel.node import Context, Input, Node
from safetypilot.nodes.kernel.process import main
from safetypilot.policies import shield

__all__ = ["Arbiter", "ArbiterConfig"]


class Arbiter(Node):
    # Risk and recovery complete a step, so they wake it; the rest waits until then. Where plans are
    # rare, every step still has its risk to wait for, and to wake before would cost it 50 us.
    inputs = (
        Input("observation", wakes=False),
        Input("proposal", wakes=False),
        Input("recovery", paces=False),
        Input("risk"),
    )
    outputs = ("command", "decision")
    Config = ArbiterConfig

    def __init__(self, config: ArbiterConfig, context: Context) -> None:
        super().__init__(config, context)
        if not config.shield:  # the proposal is all that there is to wait for
            self.ports = tuple(p._replace(wakes=p.topic == "proposal") for p in self.ports)
        self._state = shield.State.initial()
        self._step: Step | None = None
        self._last: tuple[shield.State, Step, int] | None = None  # state before, step, when
        self._decided = -1
        self._armed = False
        self._complete_steps = 0
        self._unarmed = Unarmed(context.period_ns)
        self._book = Decisions()
        self._unknown = np.full(context.interface.action_size, np.nan, np.float32)
        self._latch = context.runtime_dir / "estop"
        self._early: dict[str, Any] = {}
        self._held: HeldAnswers | None = None  # where every answer is for one observation: nothing
        self._spacing = Spacing()

    def configure(self) -> None:
        config = self.config
        self._spacing = spacing(config, self.context)
        self._rules = rules(config, self.context, self._spacing)
        self._guarded = guard_indices(config, self.context)
        if not self._spacing.one_rate:
            self._held = HeldAnswers(judged=config.shield)
        share = config.deadline if config.shield else config.deadline / 2  # who else is to come?
        self._deadline_ns = int(share * self.context.period_ns)
        self._estop = self._latch.exists()  # the latch outlives this process

    def activate(self, now_ns: int) -> None:
        if not self._rules.shield:
            self.next_wake_ns = now_ns  # there may be no risk or recovery to wake it

    def on_message(self, topic: str, message: Any, now_ns: int) -> None:
        if topic == "observation":
            self._begin(message, now_ns)
            return
        step = self._step
        if step is None or message.seq > step.observation.seq:
            self._early[topic] = message  # overtook its observation on another socket
            return
        if self._held is not None:
            self._hold(self._held, topic, message, now_ns)
            return
        if message.seq < step.observation.seq or message.seq <= self._decided:
            if topic == "recovery" and message.seq == step.observation.seq:
                self._keep(message, now_ns)  # too late to fly itself, but its tail may be needed
            else:
                self._book.late(topic, message, now_ns, self._deadline_ns)
            return
        setattr(step, topic, message)
        if topic != "proposal" or not self._rules.shield:
            self._consider(now_ns)

    def _begin(self, observation: messages.Observation, now_ns: int) -> None:
        if observation.seq <= self._decided:
            return
        self._step = step = Step(observation)
        self.next_wake_ns = observation.stamp_ns + self._deadline_ns
        if self._held is None:
            for topic, message in self._early.items():
                if message.seq == observation.seq:
                    setattr(step, topic, message)
            self._early.clear()
            return
        if observation.step == 0:
            self._held.clear()
        for topic in [t for t, message in self._early.items() if message.seq <= observation.seq]:
            self._held.take(topic, self._early.pop(topic))
        self._look(self._held, now_ns)

    def _hold(self, held: HeldAnswers, topic: str, message: Any, now_ns: int) -> None:
        """Several rates: takes an answer in; it may be for an observation long decided."""
        fresh = {"recovery": self._rules.recovery_validity_ns}.get(
            topic, self._rules.proposal_validity_ns
        )
        if not held.take(topic, message) or now_ns - message.stamp_ns > fresh:
            self._book.late(topic, message, now_ns, self._deadline_ns)
        elif topic != "proposal" or not self._rules.shield:
            self._look(held, now_ns)

    def _look(self, held: HeldAnswers, now_ns: int) -> None:
        """Several rates: decides now, unless an answer is due for this very observation."""
        step = self._step
        if step is None or step.observation.seq <= self._decided:
            return
        observation = step.observation
        step.proposal, step.risk, step.recovery = held.proposal, held.risk, held.recovery
        late = now_ns >= observation.stamp_ns + self._deadline_ns
        due = observation.step % self._spacing.policy == 0
        if due and not late and (held.proposal is None or held.proposal.seq != observation.seq):
            return
        state, decision = shield.decide(self._state, self._inputs(step), now_ns, self._rules)
        plan_due = self._spacing.planner == 1 and (
            held.recovery is None or held.recovery.seq != observation.seq
        )
        worst = shield.Source.TAIL if plan_due else shield.Source.FAILSAFE
        flying = self._armed and not self._estop
        if decision.source >= worst and flying and not late:
            return  # something better may still come
        self._send(step, state, decision, now_ns)

    def _keep(self, recovery: messages.Recovery, now_ns: int) -> None:
        step = self._step
        if step is not None and step.recovery is None:
            step.recovery = recovery
            self._state = shield.keep_plan(
                self._state, _observation(step), _recovery(recovery), now_ns, self._rules
            )

    def _consider(self, now_ns: int) -> None:
        """Decides now if nothing that may still come could change the choice for the better."""
        step = self._step
        if step is None or step.proposal is None:
            return
        if not self._rules.shield:
            self._decide(now_ns)
            return
        if step.risk is None:
            return
        complete = step.recovery is not None
        approved = step.risk.risk <= self._rules.exit_risk
        plain = not (self._rules.require_fallback or self._rules.dwell_steps)
        if complete or (approved and plain and self._armed):
            self._decide(now_ns)

    def on_timer(self, now_ns: int) -> None:
        step = self._step
        if step is None or step.observation.seq <= self._decided:
            self.next_wake_ns = now_ns + self.context.period_ns  # no new observation yet
        elif now_ns >= step.observation.stamp_ns + self._deadline_ns:
            self._decide(now_ns)
        else:
            self.next_wake_ns = step.observation.stamp_ns + self._deadline_ns
            if self._held is None:
                self._consider(now_ns)

    def _decide(self, now_ns: int) -> None:
        step = self._step
        if step is None:
            return
        if self._held is not None:
            held = self._held
            step.proposal, step.risk, step.recovery = held.proposal, held.risk, held.recovery
        state, decision = shield.decide(self._state, self._inputs(step), now_ns, self._rules)
        self._send(step, state, decision, now_ns)

    def _inputs(self, step: Step) -> shield.Inputs:
        proposal, risk, recovery = step.proposal, step.risk, step.recovery
        return shield.Inputs(
            _observation(step),
            proposal
            and shield.Proposal(
                proposal.seq, proposal.stamp_ns, proposal.proposal_id, proposal.action
            ),
            risk and shield.Risk(risk.seq, risk.stamp_ns, risk.proposal_id, risk.risk),
            recovery and _recovery(recovery),
            self._armed,
            self._estop,
            step.observation.values[self._guarded] if self._guarded else None,
        )

    def _send(
        self, step: Step, state: shield.State, decision: shield.Decision, now_ns: int
    ) -> None:
        observation = step.observation
        self._last = (self._state, step, now_ns)
        self._state, self._decided = state, observation.seq
        self.context.emit("command", self._command(step, decision, now_ns))
        self.next_wake_ns = observation.stamp_ns + self.context.period_ns + self._deadline_ns
        self.context.emit("decision", self._book.decided(step, decision, self._rules.eps, now_ns))
        if not self._armed:
            self._arm(step)

    def _command(self, step: Step, decision: shield.Decision, now_ns: int) -> messages.Command:
        observation, proposal = step.observation, step.proposal
        return messages.Command(
            observation.seq,
            observation.stamp_ns,
            self.context.clock.now_ns(),
            decision.action,
            decision.source,
            decision.reason,
            proposal.proposal_id if proposal else -1,
            proposal.action if proposal else self._unknown,
            decision.risk,
            decision.valid_until_ns,
            self._state.estop,
            proposal.model if proposal else "",
            trace.of_command(proposal, step.risk, step.recovery, now_ns),
        )

    def rehearse(self) -> None:
        """Decides the last step once more; the command that comes of it goes nowhere."""
        if self._last is not None:
            before, step, then_ns = self._last
            _, decision = shield.decide(before, self._inputs(step), then_ns, self._rules)
            self._command(step, decision, then_ns)

    def _arm(self, step: Step) -> None:
        """Not armed until every input the shield needs has come in time for a few steps."""
        needed = (
            (step.proposal, step.risk, step.recovery) if self._rules.shield else (step.proposal,)
        )
        self._complete_steps = self._complete_steps + 1 if None not in needed else 0
        if self.config.arm == "auto" and self._complete_steps >= self.config.arm_steps:
            self._armed = True
            self.context.event("armed", seq=step.observation.seq)
        elif self.config.arm == "auto" and (news := self._unarmed.add(step)):
            self.context.event("not armed", **news)

    def on_request(self, request: str, arguments: dict[str, Any], now_ns: int) -> dict[str, Any]:
        reason = str(arguments.get("reason", ""))
        if request == "estop":
            self._estop = True
            self._latch.write_text(json.dumps({"reason": reason, "at_ns": now_ns}))
        elif request == "reset":
            self._estop = False
            self._latch.unlink(missing_ok=True)
            self._state = shield.reset(self._state)
        elif request == "arm":
            if self._complete_steps < self.config.arm_steps:
                raise RequestRefused(
                    f"cannot arm: inputs were complete for {self._complete_steps} steps in a row, "
                    f"{self.config.arm_steps} are needed; see `safetypilot nodes`"
                )
            self._armed = True
        elif request == "disarm":
            self._armed = False
            self._complete_steps = 0
        else:
            raise RequestRefused(f"the arbiter knows estop, reset, arm, disarm; not {request!r}")
        self.context.event(request, reason=reason)
        return {"armed": self._armed, "estop": self._estop}

    def status(self) -> dict[str, Any]:
        return {
            "armed": self._armed,
            "estop": self._estop or self._state.estop,
            "eps": self._rules.eps,
            "shield": self._rules.shield,
            **self._book.summary(),
        }


def _observation(step: Step) -> shield.Observation:
    observation = step.observation
    return shield.Observation(observation.seq, observation.stamp_ns, observation.step)


def _recovery(message: messages.Recovery) -> shield.Recovery:
    return shield.Recovery(message.seq, message.stamp_ns, message.plan, float(message.risks.max()))


if __name__ == "__main__":
    main(Arbiter)
