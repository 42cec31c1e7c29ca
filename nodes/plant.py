"""What every plant does, whether simulated or real: it starts steps and takes commands for them.

A control period: publish the observation on the tick, take the first acceptable command for that
very observation, act on it, wait for the next tick. If none has come by the command deadline the
plant applies its own failsafe action and counts a missed deadline. It trusts nobody: late, foreign,
out-of-limits commands are refused and counted, whatever the arbiter says.

The plant keeps to the ticks of its clock: a step that is late is counted and its cause looked for
(late_steps.py), the next one comes on its tick, though no sooner than half a period later. What
cannot be made up for like that, a period or more, is given up: never a burst, but `drift_ms`.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np

from safetypilot.nodes.episode_log import EpisodeLog
from safetypilot.nodes.kernel import messages, trace
from safetypilot.nodes.kernel.errors import RequestRefused
from safetypilot.nodes.kernel.node import Context, Input, Node
from safetypilot.nodes.late_steps import LateSteps

FAILSAFE = 3  # policies.shield.Source.FAILSAFE; a plant knows the wire, not the shield
_NO_CHAIN = bytes(8 * messages.TRANSITION_STAMPS)
_TOLERANCE = 1e-6  # of the action range: float32 rounding at the limits

Array = np.ndarray[Any, Any]


class Outcome(NamedTuple):
    """What a step came to."""

    after: Array  # (O,)
    reward: float
    cost: float
    success: bool
    terminated: bool
    truncated: bool


class Order(NamedTuple):
    """What a plant is to do for one observation, and who says so.

    Attributes:
        proposed: by the task policy, (A,); NaN where nothing came.
        model: of the task policy.
        latency_us: from the observation to the command, decoded and checked; NaN where none came.
    """

    action: Array  # (A,)
    source: int
    proposed: Array
    model: str
    latency_us: float


class Plant(Node):
    """Base of the simulator and the bridge, which say what is observed and how it is acted.

    Attributes:
        config: has `deadline`: share of the period by which a command must have come.
    """

    inputs = (Input("command"),)
    outputs: ClassVar[tuple[str, ...]] = ("observation", "transition", "episode")

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        interface = context.interface
        self._low = np.array(interface.action_low, np.float32)
        self._high = np.array(interface.action_high, np.float32)
        self._slack = _TOLERANCE * (self._high - self._low)
        unknown = np.full(interface.action_size, np.nan, np.float32)
        failsafe = np.array(interface.failsafe, np.float32)
        self._nothing_came = Order(failsafe, FAILSAFE, unknown, "", float("nan"))
        # A restarted plant must not reuse numbers: seq never repeats within a run.
        self._seq = context.generation << 32
        self._episode = context.generation << 20
        self._epoch = context.generation << 20  # never one that was in force before
        self._epochs = self._epoch
        self._estop = False
        self._awaiting = False
        self._chain = _NO_CHAIN
        self._refused: dict[str, int] = {}
        self._late = LateSteps(type(self).__name__.lower())
        self._step = self._steps = self._drift_ns = self._idle_ns = self._stamp_ns = 0
        self._tick_ns = 0
        self._report = self._new_report()

    def _new_report(self) -> EpisodeLog:
        interface = self.context.interface
        return EpisodeLog(len(interface.observation_names) == interface.observation_size)

    # What a plant is made of.

    def _act(self, order: Order, now_ns: int) -> None:
        """Acts on an order; the last thing in a step."""
        raise NotImplementedError

    def activate(self, now_ns: int) -> None:
        self._tick_ns = now_ns
        self.next_wake_ns = now_ns

    # A step.

    def on_timer(self, now_ns: int) -> None:
        if self._awaiting:  # the command deadline has passed
            self._late.missed(self._seq, self._stamp_ns, now_ns)
            self._report.missed += 1
            self._awaiting, self._chain = False, _NO_CHAIN
            self._act(self._nothing_came, now_ns)
        else:
            self._tick(now_ns)

    def _tick(self, now_ns: int) -> None:
        """Begins a step."""
        raise NotImplementedError

    def _keep_time(self, now_ns: int) -> None:
        """Moves the tick on, and gives up what cannot be made up for."""
        late = now_ns - self._tick_ns
        if late >= self.context.period_ns:
            self._late.overrun(late, self._idle_ns - self._tick_ns)
            self._drift_ns += late
            self._tick_ns = now_ns
        self._tick_ns += self.context.period_ns

    def _skip_time(self) -> None:
        """What has just been done flew nothing and took its time: the next tick is in a period."""
        self._seq += self._awaiting
        self._awaiting = False
        self._idle_ns = self.context.clock.now_ns()
        self._tick_ns = self.next_wake_ns = self._idle_ns + self.context.period_ns

    def _ask(self, observation: Array, now_ns: int) -> None:
        """Publishes an observation and waits for the command that answers it."""
        self._stamp_ns = now_ns
        self.context.emit(
            "observation",
            messages.Observation(
                self._seq, now_ns, now_ns, self._episode, self._step, observation, self._epoch
            ),
        )
        self._awaiting = True
        self.next_wake_ns = now_ns + int(self.context.period_ns * self.config.deadline)

    def on_message(self, topic: str, message: messages.Command, now_ns: int) -> None:
        refusal = self._refusal(message, now_ns)
        if refusal:
            self._refused[refusal] = self._refused.get(refusal, 0) + 1
            self._report.refused += 1
            self._late.came(message, now_ns)
            return
        latency_us = (self.context.clock.now_ns() - self._stamp_ns) / 1e3  # decoded and checked
        self._awaiting, self._chain = False, trace.of_transition(message, now_ns)
        order = Order(message.action, message.source, message.proposed, message.model, latency_us)
        if self._estop:
            order = order._replace(action=self._nothing_came.action, source=FAILSAFE)
        self._act(order, now_ns)

    def _refusal(self, command: messages.Command, now_ns: int) -> str:
        """Why a command may not reach the plant; empty if it may."""
        if not self._awaiting or command.seq != self._seq:
            return "duplicate or late" if command.seq <= self._seq else "unknown observation"
        if command.stamp_ns != self._stamp_ns:
            return "wrong stamp"
        if not now_ns <= command.valid_until_ns:
            return "expired"
        if not 0 <= command.source <= FAILSAFE:
            return "unknown source"
        over = (command.action > self._high + self._slack) | (
            command.action < self._low - self._slack
        )
        return "outside limits" if over.any() else ""

    def _conclude(self, before: Array, order: Order, outcome: Outcome) -> bool:
        """Reports a step; whether the episode ended with it."""
        self._report.add(
            before, order.source, order.latency_us, order.model, outcome.reward, outcome.cost
        )
        now_ns = self.context.clock.now_ns()
        self.context.emit(
            "transition",
            messages.Transition(
                self._seq,
                self._stamp_ns,
                now_ns,
                self._episode,
                self._step,
                before,
                order.proposed,
                order.action,
                order.source,
                outcome.reward,
                outcome.cost,
                outcome.success,
                outcome.after,
                outcome.terminated,
                outcome.truncated,
                self._chain,
            ),
        )
        self._seq += 1
        self._step += 1
        self._steps += 1
        if not (outcome.terminated or outcome.truncated):
            return False
        self.context.emit(
            "episode",
            self._report.message(
                self._seq - 1, self._stamp_ns, now_ns, self._episode, outcome.success
            ),
        )
        if said := self._late.news(self._seq):
            self.context.event("late steps", episode=self._episode, **said)
        self._episode += 1
        self._step = 0
        self._report = self._new_report()
        return True

    def _rest(self) -> None:
        """Until the next tick, though no sooner than half a period after this one."""
        self.next_wake_ns = max(self._tick_ns, self._stamp_ns + self.context.period_ns // 2)
        self._idle_ns = self.context.clock.now_ns()

    # Requests.

    def _set_epoch(self, epoch: Any) -> dict[str, Any]:
        """Puts another set of models in force, from the next observation on.

        Without a number it hands out a new one, for a set that is yet to be staged.
        """
        if epoch is None:
            self._epochs += 1
        elif type(epoch) is int and 0 <= epoch <= self._epochs:
            self._epoch = epoch
            self.context.event("epoch", epoch=epoch, seq=self._seq + self._awaiting)
        else:
            raise RequestRefused(f"epoch is {epoch!r}; it is one that this plant has handed out")
        return {
            "epoch": self._epoch,
            "new": self._epochs,
            "seq": self._seq + self._awaiting,  # of the next observation
        }

    def status(self) -> dict[str, Any]:
        return {
            "episode": self._episode,
            "epoch": self._epoch,
            "steps": self._steps,
            "missed_deadlines": self._late.missed_steps,
            "overruns": self._late.overruns,
            "late_steps": self._late.summary(),
            "drift_ms": round(self._drift_ns / 1e6, 3),
            "refused": dict(self._refused),
            "estop": self._estop,
        }


def parts_of_a_step(control_rate: float | None, period_ns: int) -> int:
    """Observations per control step of the task.

    Raises:
        ValueError: that is no whole number.
    """
    rate = 1e9 / period_ns
    ratio = rate / control_rate if control_rate else 1.0
    parts = round(ratio)
    if parts < 1 or abs(ratio - parts) > 1e-6 * ratio:
        raise ValueError(
            f"control_rate is {control_rate:g} Hz; the graph's rate of {rate:g} Hz is no whole "
            "multiple of it"
        )
    return parts
