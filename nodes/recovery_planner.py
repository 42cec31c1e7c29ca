"""Always has a way out ready: plans from every observation, by a deadline, the whole plan.

Who finds the way out follows from the models it is given: a planner over the dynamics (where the
observation is an image, in the latents of an encoder), a recovery policy, or the critic alone,
which chooses the least risky of many random actions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from safetypilot.models import contract as contracts
from safetypilot.models.runtime import Accelerated, Model
from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.errors import NodeError, RequestRefused
from safetypilot.nodes.kernel.health import Histogram
from safetypilot.nodes.kernel.node import Context, Input, Node
from safetypilot.nodes.kernel.process import main
from safetypilot.nodes.model_slot import ModelSlot
from safetypilot.nodes.model_swap import Last, Role, SwapConfig
from safetypilot.nodes.model_watch import watch
from safetypilot.policies import answers, planning, recovery, reflexes

# kind of model -> what policies/ and the config call it
_PARTS = {
    "encoder": "encoder",  # before the models of its latents
    "safety_critic": "critic",
    "latent_critic": "critic",
    "dynamics": "dynamics",
    "recovery_policy": "policy",
}


@dataclass(frozen=True)
class RecoveryPlannerConfig(SwapConfig):
    """How to recover, and for how long to search.

    One of dynamics, policy and samples says how; dynamics may also go with a policy.

    Attributes:
        critic: an ONNX file of kind safety_critic.
        dynamics: plan: an ONNX file of kind dynamics, or an MJCF file (.xml): the true model, for
            plants whose observation is all of qpos at rest.
        policy: act: an ONNX file of kind task_policy, trained to recover. A plan is one action
            long, or foreseen for the horizon where there are dynamics.
        samples: take the least risky of so many random actions.
        encoder, latent_critic: plan in the latents that this ONNX file of kind encoder makes of an
            image; dynamics and latent_critic, which stands in for critic, are models of latents.
        step_s, timestep_s: with an MJCF file: seconds per step, physics step (0: its own).
        budget_ms: from the observation's stamp to the plan; iterations stop before it. 0 is half
            the control period.
        horizon, population, elites, iterations, method: see policies/planning.py.
        particles: trajectories per candidate, divided over the ensemble.
        warm_start: start from the shifted previous plan; off, a plan depends on no other.
        engine: who multiplies for the planner: onnxruntime, or openvino, in bf16 where the cores
            have units for it (models/accelerated.py).
    """

    critic: str
    dynamics: str | None = None
    policy: str | None = None
    samples: int = 0
    encoder: str | None = None
    latent_critic: str | None = None
    budget_ms: float = 0.0
    step_s: float = 1.0
    timestep_s: float = 0.0
    method: str = "icem"
    horizon: int = 5
    population: int = 100
    elites: int = 8
    iterations: int = 3
    particles: int = 5
    warm_start: bool = False
    engine: str = "onnxruntime"

    def __post_init__(self) -> None:
        """Says no before anything starts, unless there is exactly one way to recover."""
        super().__post_init__()
        if self.engine not in ("onnxruntime", "openvino"):
            raise ValueError(f"engine is {self.engine!r}; it can be onnxruntime or openvino")
        others = [name for name in ("dynamics", "policy") if getattr(self, name)]
        if self.samples < 0:
            raise ValueError(f"samples is {self.samples}; it is a number of actions")
        if self.samples and others:
            raise ValueError(
                f"samples and {' and '.join(others)} are two ways to recover; leave out one"
            )
        if not self.samples and not others:
            raise ValueError(
                "does not say how to recover: name dynamics (to plan), policy (to act) or samples "
                "(to take the least risky of so many actions)"
            )
        if bool(self.encoder) != bool(self.latent_critic):
            raise ValueError("encoder and latent_critic belong together; name both or none")
        if self.encoder and others != ["dynamics"]:
            raise ValueError("an encoder is to plan with: it needs dynamics, and no policy")

    @property
    def models(self) -> dict[str, str]:
        """Files by kind, as far as they are used."""
        critic = {"safety_critic": self.critic}
        if self.encoder and self.latent_critic:
            critic = {"encoder": self.encoder, "latent_critic": self.latent_critic}
        others = {"dynamics": self.dynamics, "recovery_policy": self.policy}
        return critic | {kind: path for kind, path in others.items() if path}


class RecoveryPlanner(Node):
    inputs = (
        Input("observation"),
        Input("model", wakes=False, optional=True),
        Input("command", wakes=False, optional=True, when="rollback_s"),
    )
    outputs = ("recovery",)
    Config = RecoveryPlannerConfig

    def __init__(self, config: RecoveryPlannerConfig, context: Context) -> None:
        super().__init__(config, context)
        self._planner: recovery.RecoveryPlanner | reflexes.PolicyRecovery | None = None
        self._parts: dict[str, Any] = {}
        self._slots = {
            kind: ModelSlot(context, config, self._role(kind, part))
            for kind, part in _PARTS.items()
            if kind in config.models
        }
        self._episode = -1
        self._planning = Histogram()
        self._in_time = self._too_late = self._iterations = 0

    def _role(self, kind: str, part: str) -> Role:
        setting = {"safety_critic": "critic", "recovery_policy": "policy"}.get(kind, kind)
        low: Any = {"critic": 0.0, "policy": self.context.interface.action_low}
        high: Any = {"critic": 1.0, "policy": self.context.interface.action_high}

        def answer(engine: Any, first: bool, observation: Any, action: Any) -> Any:
            """In the idle time of a step, for the shadow."""
            encoder, start = self._parts.get("encoder"), observation
            if encoder is not None:
                start = encoder.run(observation=observation[None])["latent"][0]
            return answers.answer(part, engine, start, action)

        return Role(
            kind,
            setting,
            self._warm(part),
            self._installer(part),
            answer,
            low.get(part, -np.inf),
            high.get(part, np.inf),
        )

    def _warm(self, part: str) -> Callable[[Model], Model | Accelerated]:
        fast = self.config.engine == "openvino" and part in ("dynamics", "critic")

        def prepare(model: Model) -> Model | Accelerated:
            engine = Accelerated(model) if fast and not self.config.policy else model
            if self._planner is not None:  # allocates beside the running planner, not within it
                models: dict[str, Any] = {part: engine}
                self._planner.warm_up(self.context.interface.observation_size, **models)
            return engine

        return prepare

    def _installer(self, part: str) -> Callable[[Model | Accelerated, bool], str]:
        def install(model: Model | Accelerated, up_to_date: bool) -> str:
            self._parts[part] = model
            if self._planner is not None:
                models: dict[str, Any] = {part: model}
                self._planner.swap(**models)
            return ""

        return install

    def configure(self) -> None:
        for kind, slot in self._slots.items():
            path = self.config.models[kind]
            if "encoder" in self._parts:
                slot.expected = _of_latents(self._parts["encoder"])
            if kind == "dynamics" and path.endswith(".xml"):
                self._parts["dynamics"] = self._true_dynamics(path)
            else:
                slot.load(path)
        try:
            self._planner = self._build()
        except ValueError as error:
            raise NodeError(f"{self.context.name}: {error}") from None
        self._warm_up()

    def _build(self) -> recovery.RecoveryPlanner | reflexes.PolicyRecovery:
        config, interface, parts = self.config, self.context.interface, self._parts
        critic, dynamics = parts["critic"], parts.get("dynamics")
        if "policy" in parts:
            return reflexes.PolicyRecovery(parts["policy"], critic, dynamics, config.horizon)
        settings = reflexes.sampling(config.samples) if config.samples else self._settings()
        return recovery.RecoveryPlanner(
            settings,
            reflexes.NoDynamics() if dynamics is None else dynamics,
            critic,
            interface.action_low,
            interface.action_high,
            self.context.seed,
            encoder=parts.get("encoder"),
        )

    def _settings(self) -> recovery.RecoveryConfig:
        config = self.config
        return recovery.RecoveryConfig(
            planner=planning.PlannerConfig(
                method=config.method,
                horizon=config.horizon,
                population=config.population,
                elites=config.elites,
                max_iterations=config.iterations,
            ),
            particles=config.particles,
            warm_start=config.warm_start,
            rest_action=self.context.interface.failsafe,
        )

    def _true_dynamics(self, path: str) -> recovery.MujocoDynamics:
        config = self.config
        try:
            return recovery.MujocoDynamics(path, config.step_s, config.timestep_s or None)
        except ValueError as error:
            raise NodeError(f"dynamics {path}: {error}") from None

    def _warm_up(self) -> None:
        """Sizes the buffers and the expected duration of an iteration before they matter."""
        if self._planner is None:
            return
        clock = self.context.clock.now_ns
        size = self.context.interface.observation_size
        for seq in range(3):
            self._planner.plan([0.0] * size, seq, clock, None)
        self._planner.reset()

    def activate(self, now_ns: int) -> None:
        watch(self.context, self.config.watch, self._slots)

    def on_message(self, topic: str, message: Any, now_ns: int) -> None:
        if topic == "model":
            if self.config.follow and message.kind in self._slots:
                self._slots[message.kind].follow(message.path)
        elif topic == "command":
            for slot in self._slots.values():
                slot.note_command(message)
        else:
            for slot in self._slots.values():
                slot.begin(message, now_ns)
            self._plan(message, now_ns)

    def on_timer(self, now_ns: int) -> None:
        for slot in self._slots.values():
            slot.on_timer(now_ns)
        self._set_timer()

    def _set_timer(self) -> None:
        wakes = [s.next_wake_ns for s in self._slots.values() if s.next_wake_ns is not None]
        self.next_wake_ns = min(wakes, default=None)

    def _plan(self, observation: messages.Observation, now_ns: int) -> None:
        if self._planner is None:
            return
        if observation.episode != self._episode:
            self._episode = observation.episode
            self._planner.reset()
        clock = self.context.clock.now_ns
        budget_ns = int(self.config.budget_ms * 1e6) or self.context.period_ns // 2
        deadline_ns = observation.stamp_ns + budget_ns
        plan = self._planner.plan(observation.values, observation.seq, clock, deadline_ns)
        done_ns = clock()
        self._planning.add(done_ns - now_ns)
        if not plan.iterations:
            self._too_late += 1  # not even one iteration fitted: such a plan is not vetted
            return
        self._in_time += 1
        self._iterations += plan.iterations
        self.context.emit(
            "recovery",
            messages.Recovery(
                observation.seq,
                observation.stamp_ns,
                done_ns,
                plan.actions,
                plan.risks,
                plan.iterations,
                self._version(),
                now_ns,
            ),
        )
        attentive = [slot for slot in self._slots.values() if slot.attentive]
        if attentive:
            last = Last(None, (observation.values, plan.actions[0]), False, done_ns - now_ns)
            for slot in attentive:
                slot.answered(observation, last)
            self._set_timer()

    def _version(self) -> str:
        return "+".join(slot.version or "mujoco" for slot in self._slots.values())

    def on_request(self, request: str, arguments: dict[str, Any], now_ns: int) -> dict[str, Any]:
        if request == "swaps":
            return {k: v for s in self._slots.values() for k, v in s.answer(request, {}).items()}
        kind = str(arguments.get("kind", next(k for k in self._slots if "critic" in k)))
        if kind == "encoder" and request == "swap":
            raise RequestRefused("an encoder comes with models of its own latents; launch again")
        if kind not in self._slots:
            raise RequestRefused(f"kind {kind!r}: the planner holds {' and '.join(self._slots)}")
        return {"kind": kind, **self._slots[kind].answer(request, arguments)}

    def status(self) -> dict[str, Any]:
        plans = self._in_time
        return {
            "models": {kind: slot.version for kind, slot in self._slots.items()},
            "swaps": {kind: slot.status() for kind, slot in self._slots.items()},
            "plans": plans,
            "too_late": self._too_late,
            "iterations_mean": round(self._iterations / plans, 2) if plans else 0.0,
            "planning_us": self._planning.summary(),
        }


def _of_latents(encoder: Model) -> contracts.Contract:
    """What models of an encoder's latents must promise."""
    size = encoder.output_shapes["latent"][-1]
    return contracts.of_latents(encoder.contract, size if isinstance(size, int) else 0)


if __name__ == "__main__":
    main(RecoveryPlanner)
