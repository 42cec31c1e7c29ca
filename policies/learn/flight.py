"""Composes actions in training exactly as the graph does in deployment: the shield decides.

Training hands in the networks as they are now (`live`), evaluation the exported ONNX files; who
recovers is the same either way. No torch here. Letters: H plan length, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from safetypilot.models import runtime
from safetypilot.models.contract import Expected
from safetypilot.policies import shield
from safetypilot.policies.critic import Critic, Dynamics
from safetypilot.policies.learn.config import Config
from safetypilot.policies.planning import PlannerConfig
from safetypilot.policies.recovery import Encoder, RecoveryConfig, RecoveryPlanner

Array = NDArray[np.float32]
Method = Literal["random", "cem", "icem", "mppi"]

_PERIOD_NS = 1_000_000_000
_FOREVER_NS = 1_000 * _PERIOD_NS  # every input is fresh in lockstep


class Recovery(Protocol):
    """Whoever takes over."""

    def plan(self, observation: Array, seq: int) -> Array:
        """Actions (H, A), the first for now, from an observation (O,)."""

    def reset(self) -> None:
        """Forget the last episode."""


class PlannedRecovery:
    """Model predictive control on the dynamics and Q_risk."""

    def __init__(
        self,
        config: Config,
        interface: Expected,
        dynamics: Dynamics,
        critic: Critic,
        seed: int,
        encoder: Encoder | None = None,
    ) -> None:
        """Plan for the interface's action box, in the encoder's latents if there is one."""
        self._planner = RecoveryPlanner(
            planner_config(config),
            dynamics,
            critic,
            np.asarray(interface.action_low, np.float32),
            np.asarray(interface.action_high, np.float32),
            seed,
            encoder=encoder,
        )

    def plan(self, observation: Array, seq: int) -> Array:
        return self._planner.plan(observation, seq).actions

    def reset(self) -> None:
        self._planner.reset()


class PolicyRecovery:
    """A policy that descends Q_risk; `act` maps (O,) -> (A,)."""

    def __init__(self, act: Callable[[Array], Array]) -> None:
        self._act = act

    def plan(self, observation: Array, seq: int) -> Array:
        return self._act(observation)[None]

    def reset(self) -> None:
        pass


class SampledRecovery:
    """The least risky of many uniformly random actions."""

    def __init__(self, config: Config, interface: Expected, critic: Critic, seed: int) -> None:
        self._low = np.asarray(interface.action_low, np.float32)
        self._high = np.asarray(interface.action_high, np.float32)
        self._critic, self._count, self._seed = critic, config.recovery_samples, seed

    def plan(self, observation: Array, seq: int) -> Array:
        rng = np.random.default_rng((self._seed, seq))
        drawn = rng.uniform(self._low, self._high, (self._count, len(self._low)))
        actions: Array = drawn.astype(np.float32)
        rows = np.broadcast_to(observation, (self._count, len(observation)))
        risk = self._critic.run(observation=rows, action=actions)["risk"]
        best = int(np.argmin(risk))
        return actions[best : best + 1]

    def reset(self) -> None:
        pass


def exported_recovery(
    files: dict[str, Path], config: Config, interface: Expected, seed: int
) -> Recovery | None:
    """Who recovers in deployment, from the exported files."""
    if config.recovery == "model-based":
        dynamics, critic = (runtime.load(files[kind]) for kind in ("dynamics", "safety_critic"))
        return PlannedRecovery(config, interface, dynamics, critic, seed)
    if config.recovery == "visual":
        kinds = ("dynamics", "latent_critic", "encoder")
        dynamics, critic, encoder = (runtime.load(files[kind]) for kind in kinds)
        return PlannedRecovery(config, interface, dynamics, critic, seed, encoder)
    if config.recovery == "q-sampling":
        critic = runtime.load(files["safety_critic"])
        return SampledRecovery(config, interface, critic, seed)
    if config.recovery == "model-free":
        model = runtime.load(files["recovery_policy"])
        return PolicyRecovery(lambda row: model.run(observation=row[None])["action"][0])
    return None


class Composed(NamedTuple):
    """What the shield made of a proposal."""

    action: Array  # (A,), executed
    risk: float  # of the proposal; nan without a shield
    source: shield.Source


class Pilot:
    """A shield with someone who recovers, fed step by step."""

    def __init__(self, config: Config, interface: Expected, recovery: Recovery | None) -> None:
        """Build.

        Args:
            config: eps.
            interface: the plant's limits.
            recovery: who takes over; None turns the shield off.
        """
        low, high = tuple(interface.action_low), tuple(interface.action_high)
        rest = tuple(np.clip(0.0, low, high).tolist())
        self.rules = shield.Rules(
            eps=config.eps,
            action_low=low,
            action_high=high,
            failsafe=rest,
            shield=recovery is not None,
            observation_validity_ns=_FOREVER_NS,
            proposal_validity_ns=_FOREVER_NS,
            risk_validity_ns=_FOREVER_NS,
            recovery_validity_ns=_FOREVER_NS,
            tail_validity_ns=_FOREVER_NS,
            command_validity_ns=_FOREVER_NS,
        )
        self.recovery = recovery
        self.state = shield.State.initial()
        self.seq = 0
        self.step = 0

    def start_episode(self) -> None:
        """Forget the last episode; numbers go on."""
        self.step = 0
        self.state = shield.State.initial()
        if self.recovery is not None:
            self.recovery.reset()

    def compose(self, observation: Array, proposed: Array, value: float) -> Composed:
        """Let the shield choose between a proposal and recovery.

        Args:
            observation: (O,).
            proposed: by the task policy, (A,).
            value: Q_risk of the proposal.
        """
        seq, now_ns = self.seq, self.seq * _PERIOD_NS
        risk = recovery = None
        if self.recovery is not None:
            risk = shield.Risk(seq, now_ns, seq, value)
            if not value <= self.rules.eps:  # in a graph the planner always answers
                plan = np.ascontiguousarray(self.recovery.plan(observation, seq), np.float32)
                recovery = shield.Recovery(seq, now_ns, plan, float("nan"))
        inputs = shield.Inputs(
            shield.Observation(seq, now_ns, self.step),
            shield.Proposal(seq, now_ns, seq, np.asarray(proposed, np.float32)),
            risk,
            recovery,
        )
        self.state, decision = shield.decide(self.state, inputs, now_ns, self.rules)
        self.seq += 1
        self.step += 1
        return Composed(decision.action, value, decision.source)


def planner_config(config: Config) -> RecoveryConfig:
    """The planner's settings, as the deployed planner should have them."""
    return RecoveryConfig(
        PlannerConfig(
            method=cast(Method, config.planner_method),  # checked by Config
            horizon=config.horizon,
            population=config.planner_population,
            elites=config.planner_elites,
            max_iterations=config.planner_iterations,
        ),
        particles=config.planner_particles,
    )
