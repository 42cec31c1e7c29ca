"""The plant in simulation: a Gymnasium environment on the graph's clock.

Observations are float32 rows: an image is flattened and keeps its values, 0 to 255. A plant with
discrete actions takes preferences (envs/discrete.py).

A control period: publish the observation on the tick, take the first acceptable command for that
very observation, step the physics with it, wait for the next tick. If none has come by the command
deadline the plant applies its own failsafe action and counts a missed deadline. It trusts nobody:
late, foreign, out-of-limits commands are refused and counted, whatever the arbiter says.

With a `control_rate` below the graph's rate each control step of the environment is done in equal
parts, one per observation (envs/substeps.py). Reward, cost, success and the end of an episode come
with the last part, as they would without.

The plant keeps to the ticks of its clock: a step that is late is counted and its cause looked for
(late_steps.py), the next one comes on its tick, though no sooner than half a period later. What
cannot be made up for like that, a period or more, is given up: never a burst, but `drift_ms`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from safetypilot.envs import costs, registry
from safetypilot.envs.substeps import SplitStep
from safetypilot.nodes.episode_log import EpisodeLog
from safetypilot.nodes.kernel import messages, trace
from safetypilot.nodes.kernel.errors import NodeError, RequestRefused
from safetypilot.nodes.kernel.node import Context, Input, Node
from safetypilot.nodes.kernel.process import main
from safetypilot.nodes.late_steps import LateSteps

FAILSAFE = 3  # policies.shield.Source.FAILSAFE; a plant knows the wire, not the shield
_NO_CHAIN = bytes(8 * messages.TRANSITION_STAMPS)
_TOLERANCE = 1e-6  # of the action range: float32 rounding at the limits


@dataclass(frozen=True)
class SimulatorConfig:
    """Which environment plays the plant, and how patient it is.

    Attributes:
        env: a Gymnasium id or a short name of envs/registry.py.
        cost: "info" for info["cost"], or a function named in envs/costs.py.
        deadline: share of the period by which a command must have come.
        options: passed to every reset.
        control_rate: Hz of the environment's own control steps, where the graph is faster; None:
            one with every observation.
    """

    env: str
    cost: str = "info"
    deadline: float = 0.85
    options: dict[str, Any] | None = None
    control_rate: float | None = None

    def __post_init__(self) -> None:
        """Says no before anything starts."""
        if self.control_rate is not None and not self.control_rate > 0:
            raise ValueError(f"control_rate is {self.control_rate}; it is a rate in Hz, above 0")


class Simulator(Node):
    inputs = (Input("command"),)
    outputs = ("observation", "transition", "episode")
    Config = SimulatorConfig

    def __init__(self, config: SimulatorConfig, context: Context) -> None:
        super().__init__(config, context)
        interface = context.interface
        self._low = np.array(interface.action_low, np.float32)
        self._high = np.array(interface.action_high, np.float32)
        self._slack = _TOLERANCE * (self._high - self._low)
        self._failsafe = np.array(interface.failsafe, np.float32)
        self._unknown = np.full(interface.action_size, np.nan, np.float32)
        # A restarted plant must not reuse numbers: seq never repeats within a run.
        self._seq = context.generation << 32
        self._episode = context.generation << 20
        self._epoch = context.generation << 20  # never one that was in force before
        self._epochs = self._epoch
        self._estop = False
        self._awaiting = False
        self._chain = _NO_CHAIN
        self._refused: dict[str, int] = {}
        self._late = LateSteps()
        self._steps = self._drift_ns = self._idle_ns = self._stamp_ns = 0

    def configure(self) -> None:
        try:
            self._env = registry.make_flat(self.config.env)
            self._cost = costs.cost_function(self.config.cost)
            self._parts = self._parts_of_a_step()
            self._split = SplitStep(self._env, self._parts) if self._parts > 1 else None
        except ValueError as error:
            raise NodeError(str(error)) from None
        self._estop = (self.context.runtime_dir / "estop").exists()
        seed = self.context.seed + 7919 * self.context.generation
        self._observation = self._reset(seed)

    def _parts_of_a_step(self) -> int:
        """Observations per control step of the environment."""
        wanted, rate = self.config.control_rate, 1e9 / self.context.period_ns
        ratio = rate / wanted if wanted else 1.0
        parts = round(ratio)
        if parts < 1 or abs(ratio - parts) > 1e-6 * ratio:
            raise ValueError(
                f"control_rate is {wanted:g} Hz; the graph's rate of {rate:g} Hz is no whole "
                "multiple of it"
            )
        return parts

    def _reset(self, seed: int | None = None) -> np.ndarray[Any, Any]:
        observation, _ = self._env.reset(seed=seed, options=self.config.options)
        self._step = 0
        names = self.context.interface.observation_names
        self._report = EpisodeLog(len(names) == self.context.interface.observation_size)
        return np.asarray(observation, np.float32)

    def activate(self, now_ns: int) -> None:
        self._tick_ns = now_ns
        self.next_wake_ns = now_ns

    def on_timer(self, now_ns: int) -> None:
        if self._awaiting:  # the command deadline has passed
            self._late.missed(self._seq, self._stamp_ns, now_ns)
            self._report.missed += 1
            self._chain = _NO_CHAIN
            self._apply(self._failsafe, FAILSAFE, self._unknown, "", float("nan"))
            return
        period = self.context.period_ns
        late = now_ns - self._tick_ns
        if late >= period:
            self._late.overrun(late, self._idle_ns - self._tick_ns)
            self._drift_ns += late
            self._tick_ns = now_ns
        self._stamp_ns = now_ns
        self.context.emit(
            "observation",
            messages.Observation(
                self._seq,
                now_ns,
                now_ns,
                self._episode,
                self._step,
                self._observation,
                self._epoch,
            ),
        )
        self._awaiting = True
        self.next_wake_ns = now_ns + int(period * self.config.deadline)
        self._tick_ns += period

    def on_message(self, topic: str, message: messages.Command, now_ns: int) -> None:
        refusal = self._refusal(message, now_ns)
        if refusal:
            self._refused[refusal] = self._refused.get(refusal, 0) + 1
            self._report.refused += 1
            self._late.came(message, now_ns)
            return
        latency_us = (self.context.clock.now_ns() - self._stamp_ns) / 1e3  # decoded and checked
        action, source = message.action, message.source
        if self._estop:
            action, source = self._failsafe, FAILSAFE
        self._chain = trace.of_transition(message, now_ns)
        self._apply(action, source, message.proposed, message.model, latency_us)

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

    def _apply(
        self,
        action: np.ndarray[Any, Any],
        source: int,
        proposed: np.ndarray[Any, Any],
        model: str,
        latency_us: float,
    ) -> None:
        """Steps the physics one control period and reports what came of it."""
        self._awaiting = False
        before = self._observation
        if self._step % self._parts == 0:
            self._began = before
        if self._split is not None and (self._step + 1) % self._parts:
            after = np.asarray(self._split.advance(action), np.float32)
            reward, cost, success, terminated, truncated = 0.0, 0.0, False, False, False
        else:
            raw, reward, terminated, truncated, info = self._env.step(action)
            after = np.asarray(raw, np.float32)
            cost = float(self._cost(self._began, action, after, terminated, info))
            success = bool(info.get("success", False)) and cost == 0
        self._report.add(before, source, latency_us, model, float(reward), cost)
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
                proposed,
                action,
                source,
                float(reward),
                cost,
                success,
                after,
                bool(terminated),
                bool(truncated),
                self._chain,
            ),
        )
        self._seq += 1
        self._step += 1
        self._steps += 1
        self._observation = after
        self.next_wake_ns = max(self._tick_ns, self._stamp_ns + self.context.period_ns // 2)
        if terminated or truncated:
            self.context.emit(
                "episode",
                self._report.message(self._seq - 1, self._stamp_ns, now_ns, self._episode, success),
            )
            if said := self._late.news(self._seq):
                self.context.event("late steps", episode=self._episode, **said)
            self._episode += 1
            self._observation = self._reset()
        self._idle_ns = self.context.clock.now_ns()

    def on_request(self, request: str, arguments: dict[str, Any], now_ns: int) -> dict[str, Any]:
        if request == "epoch":
            return self._set_epoch(arguments.get("epoch"))
        if request not in ("estop", "reset"):
            raise RequestRefused(f"the simulator knows estop, reset and epoch, not {request!r}")
        self._estop = request == "estop"
        self.context.event(request, reason=str(arguments.get("reason", "")))
        return {"estop": self._estop}

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
        seconds = getattr(self._env.unwrapped, "dt", None)
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
            "step_seconds": None if seconds is None else seconds / self._parts,
        }

    def close(self) -> None:
        self._env.close()


if __name__ == "__main__":
    main(Simulator)
