"""Composes actions in training exactly as the graph does in deployment: the shield decides.

Critic, dynamics and recovery policy are the exported ONNX files, so what training meets is what
will fly.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from safetypilot.models import runtime
from safetypilot.models.contract import Expected
from safetypilot.policies import shield
from safetypilot.policies.learn.config import Config
from safetypilot.policies.planning import PlannerConfig
from safetypilot.policies.recovery import RecoveryConfig, RecoveryPlanner

Array = NDArray[np.float32]

_PERIOD_NS = 1_000_000_000
_FOREVER_NS = 1_000 * _PERIOD_NS  # every input is fresh in lockstep


class Composed(NamedTuple):
    """What the shield made of a proposal."""

    action: Array  # (A,), executed
    risk: float  # of the proposal; nan without a shield
    source: shield.Source


class Pilot:
    """A shield with its critic and recovery, fed step by step."""

    def __init__(self, config: Config, interface: Expected, seed: int = 0) -> None:
        """Build; models come with `use`.

        Args:
            config: eps, kind of recovery, planner settings.
            interface: the plant's limits.
            seed: of the planner, and of random recovery actions while there is no model.
        """
        self.config = config
        low, high = tuple(interface.action_low), tuple(interface.action_high)
        self._low, self._high = np.array(low, np.float32), np.array(high, np.float32)
        rest = tuple(np.clip(0.0, low, high).tolist())
        self.rules = shield.Rules(
            eps=config.eps,
            action_low=low,
            action_high=high,
            failsafe=rest,
            shield=config.recovery != "none",
            observation_validity_ns=_FOREVER_NS,
            proposal_validity_ns=_FOREVER_NS,
            risk_validity_ns=_FOREVER_NS,
            recovery_validity_ns=_FOREVER_NS,
            tail_validity_ns=_FOREVER_NS,
            command_validity_ns=_FOREVER_NS,
        )
        self.state = shield.State.initial()
        self.seq = 0
        self.step = 0
        self._seed = seed
        self._critic: runtime.Model | None = None
        self._dynamics: runtime.Model | None = None
        self._recovery: runtime.Model | None = None
        self._planner: RecoveryPlanner | None = None

    def use(self, files: dict[str, Path]) -> None:
        """Fly with these exported files: safety_critic, and dynamics or recovery_policy."""
        if self.config.recovery == "none":
            return
        self._critic = runtime.load(files["safety_critic"])
        if "recovery_policy" in files:
            self._recovery = runtime.load(files["recovery_policy"])
        if "dynamics" in files and self.config.recovery == "model-based":
            self._dynamics = runtime.load(files["dynamics"])
            if self._planner is None:
                self._planner = RecoveryPlanner(
                    planner_config(self.config),
                    self._dynamics,
                    self._critic,
                    self._low,
                    self._high,
                    self._seed,
                )
        if self._planner is not None:
            self._planner.swap(dynamics=self._dynamics, critic=self._critic)

    def start_episode(self) -> None:
        """Forget the last episode."""
        self.step = 0
        if self._planner is not None:
            self._planner.reset()

    def compose(self, observation: Array, proposed: Array) -> Composed:
        """Let the shield choose between a proposal (A,) and recovery for observation (O,)."""
        seq, now_ns = self.seq, self.seq * _PERIOD_NS
        risk = recovery = None
        value = float("nan")
        if self.rules.shield and self._critic is not None:
            rows = {"observation": observation[None], "action": proposed[None]}
            value = float(self._critic.run(**rows)["risk"][0])
            risk = shield.Risk(seq, now_ns, seq, value)
            if value > self.rules.eps:  # in a graph the planner always answers; here on demand
                recovery = shield.Recovery(seq, now_ns, self._plan(observation), float("nan"))
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

    def _plan(self, observation: Array) -> Array:
        """Recovery actions (H, A), the first for now."""
        if self.config.recovery == "model-free" and self._recovery is not None:
            return self._recovery.run(observation=observation[None])["action"]
        if self._planner is not None:
            return self._planner.plan(observation, self.seq).actions
        # As published: until its model is trained the recovery policy is uniformly random.
        rng = np.random.default_rng((self._seed, self.seq))
        return rng.uniform(self._low, self._high, (1, len(self._low))).astype(np.float32)


def planner_config(config: Config) -> RecoveryConfig:
    """The planner's settings, as the deployed planner should have them."""
    return RecoveryConfig(
        PlannerConfig(
            horizon=config.horizon,
            population=config.planner_population,
            elites=config.planner_elites,
            max_iterations=config.planner_iterations,
        ),
        particles=config.planner_particles,
    )
