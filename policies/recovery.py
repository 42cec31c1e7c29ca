"""The recovery policy: a plan that keeps the predicted risk low, by model predictive control.

Letters: N candidates, H horizon in steps, P particles, E nets of the ensemble, O observation and
A action dimension, L size of a latent.

The cost of a plan is the published one (Recovery RL, arXiv 2010.15920; PETS, arXiv 1805.12114):
sum over i < H of Q_risk(s_{t+i}, a_{t+i}), mean over particles that each keep their net for the
whole horizon (TS-infinity). All candidates of one call meet the same noise, so that they differ by
their actions and not by luck.

Where the observation is an image, an encoder turns it into a latent once per call, and dynamics and
critic are those of latents (the visual variant).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safetypilot.policies import planning
from safetypilot.policies.critic import Critic, Dynamics, PlanRisk
from safetypilot.policies.mujoco_dynamics import MujocoDynamics

__all__ = ["Encoder", "MujocoDynamics", "Plan", "RecoveryConfig", "RecoveryPlanner"]

Array = NDArray[np.float32]


class Encoder(Protocol):
    """What turns an image into a latent: a `models.runtime.Model` of kind ``encoder``.

    ``run(observation=(B, O))["latent"]`` is (B, L).
    """

    def run(self, **inputs: Array) -> dict[str, Array]:
        """Encode."""


@dataclass(frozen=True)
class RecoveryConfig:
    """How to search for a recovery plan.

    Attributes:
        planner: method, horizon, population, iterations.
        particles: P, rounded up to a multiple of the ensemble size; one per net where the
            dynamics is deterministic, as it is in latents.
        action_penalty: cost of a full action per step and dimension. Tiny: it decides only where
            the risk is flat (all plans safe, or none), and there for resting. 0: never mind.
        warm_start: begin from the previous plan. Off, the answer depends on this observation and
            ``seq`` alone, so that a restarted planner continues identically; in the maze the
            plans are as good (predicted risk within 10 %).
        rest_action: the action that moves nothing; None for zero. iCEM always tries it, and the
            full actions along each axis, throughout the horizon.
    """

    planner: planning.PlannerConfig = field(default_factory=planning.PlannerConfig)
    particles: int = 5
    action_penalty: float = 1e-3
    warm_start: bool = False
    rest_action: tuple[float, ...] | None = None

    @classmethod
    def published(cls, horizon: int) -> "RecoveryConfig":
        """The settings of Recovery RL: CEM 400/40/5, 20 particles, warm, no action penalty."""
        planner = planning.PlannerConfig.published(horizon)
        return cls(planner, particles=20, action_penalty=0.0, warm_start=True)

    @classmethod
    def published_visual(cls, horizon: int = 10) -> "RecoveryConfig":
        """The visual settings of Recovery RL: plain CEM 400/10/10, cold, no action penalty."""
        planner = planning.PlannerConfig.published_visual(horizon)
        return cls(planner, particles=1, action_penalty=0.0)


class Plan(NamedTuple):
    """A recovery plan; ``actions[i]`` is for observation ``seq + i``.

    ``risks`` are NaN and ``iterations`` is 0 when there was no time to evaluate the plan, or
    nothing finite was predicted: such a plan is not vetted and not for control.
    """

    actions: Array  # (H, A), inside the action box
    risks: Array  # (H,), predicted Q_risk of each step, mean over particles
    iterations: int


class RecoveryPlanner:
    """Plans the actions that keep the predicted risk low."""

    def __init__(
        self,
        config: RecoveryConfig,
        dynamics: Dynamics,
        critic: Critic,
        action_low: ArrayLike,
        action_high: ArrayLike,
        seed: int = 0,
        *,
        encoder: Encoder | None = None,
    ) -> None:
        """Allocate for the action box.

        Args:
            config: how to search.
            dynamics: predicts.
            critic: judges.
            action_low: smallest action, (A,).
            action_high: largest action, (A,).
            seed: with ``seq`` the only source of chance.
            encoder: where dynamics and critic are of latents: makes them from observations.
        """
        if config.particles < 1:
            raise ValueError(f"particles={config.particles}, at least 1 is needed")
        self.config = config
        low, high = np.asarray(action_low, np.float32), np.asarray(action_high, np.float32)
        self._state = planning.PlannerState(config.planner, low, high)
        rest = np.zeros_like(low) if config.rest_action is None else config.rest_action
        self._rest = np.clip(np.asarray(rest, np.float32).reshape(low.shape), low, high)  # (A,)
        half = np.maximum(self._state.width / 2, np.finfo(np.float32).tiny)
        self._weight = config.action_penalty / np.square(half)  # (A,)
        self._guesses = _guesses(self._rest, low, high, config.planner)
        self._seed = seed
        self._last_seq: int | None = None
        self._finish = planning.Pace()  # of the last evaluation
        self._models = (dynamics, critic)
        self._encoder = encoder
        self._latent_size = 0  # L, known after the first plan
        self._judges: dict[int, PlanRisk] = {}

    def reset(self) -> None:
        """Forget the previous plan, as at the start of an episode."""
        self._last_seq = None
        self._state.reset()

    def swap(
        self,
        *,
        dynamics: Dynamics | None = None,
        critic: Critic | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        """Plan with other models from the next call on; the previous plan stays a starting point.

        Args:
            dynamics: the new dynamics, or None to keep the old.
            critic: the new critic, or None to keep the old.
            encoder: the new encoder, or None to keep the old. Its latents mean nothing to the
                dynamics and critic of another, so it comes with new ones.
        """
        if encoder is not None and (dynamics is None or critic is None):
            raise ValueError("a new encoder needs the dynamics and critic of its own latents")
        old_dynamics, old_critic = self._models
        self._models = (
            old_dynamics if dynamics is None else dynamics,
            old_critic if critic is None else critic,
        )
        self._encoder = self._encoder if encoder is None else encoder
        self._judges = {}

    def warm_up(
        self,
        size: int,
        *,
        dynamics: Dynamics | None = None,
        critic: Critic | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        """Let new models allocate for every shape that a plan asks of them, before a `swap`.

        Touches nothing that `plan` uses, so it may run beside it, in another thread.

        Args:
            size: of the observation, O.
            dynamics: the dynamics to come, if any.
            critic: the critic to come, if any.
            encoder: the encoder to come, if any.
        """
        if encoder is not None:
            size = _encode(encoder, np.zeros(size, np.float32)).size
        elif self._encoder is not None:  # the flying one is busy, but its size is known
            size = self._latent_size or _encode(self._encoder, np.zeros(size, np.float32)).size
        settings, actions = self.config.planner, self._rest.size
        noise = self._noise_shape(self._models[0] if dynamics is None else dynamics, size)
        counts = {settings.population_of(i) for i in range(settings.max_iterations)}
        for count in sorted(counts | {1, 2}):
            PlanRisk((count, settings.horizon, actions), noise).warm_up(dynamics, critic)

    def plan(
        self,
        observation: ArrayLike,
        seq: int,
        clock: Callable[[], int] | None = None,
        deadline_ns: int | None = None,
    ) -> Plan:
        """Search for the plan of least predicted risk and answer by the deadline.

        Args:
            observation: where the plan starts, (O,), finite.
            seq: number of the observation; plans of the same episode are ``seq`` apart in steps.
            clock: the time in ns.
            deadline_ns: when the answer must be there, on ``clock``; None for no deadline.
        """
        start = start_of(observation)
        if self._encoder is not None:
            start = _encode(self._encoder, start)
            self._latent_size = start.size
        self._advance(seq)
        rng = np.random.default_rng((self._seed, seq))
        noise = self._noise(rng, start.size)

        def risks(plans: Array) -> Array:
            return self._risks(start, plans, noise)

        found = planning.plan(
            lambda plans: self._total(plans, risks(plans)),
            self._state,
            self.config.planner,
            rng,
            guesses=self._guesses,
            clock=clock,
            deadline_ns=None if deadline_ns is None else deadline_ns - self._finish.expected_ns(),
        )
        if not math.isfinite(found.cost):
            if not found.iterations:
                self._finish.forgive()  # it too may have kept the first iteration from being tried
            unknown = np.full(len(found.plan), np.nan, np.float32)
            return Plan(found.plan, unknown, 0)
        began = clock() if clock is not None else 0
        last = np.stack((found.plan, self._guesses[0]))  # resting is the guess to beat
        by_step = risks(last)  # (H, 2)
        answer, rest = self._total(last, by_step)
        chosen = int(self.config.action_penalty > 0 and rest <= answer)
        if clock is not None:
            self._finish.add(clock() - began)
        return Plan(last[chosen], by_step[:, chosen].copy(), found.iterations)

    def _total(self, plans: Array, risks: Array) -> Array:
        """Cost of plans (N, H, A) of such risks (H, N), (N,)."""
        effort = np.square(plans - self._rest).sum(axis=1) @ self._weight
        total: Array = risks.sum(axis=0) + effort
        return total

    def _advance(self, seq: int) -> None:
        """Shift the previous plan by the steps since, or forget it."""
        last, self._last_seq = self._last_seq, seq
        if last is None or not self.config.warm_start:
            self._state.reset()
        else:
            self._state.shift(seq - last)

    def _noise(self, rng: np.random.Generator, size: int) -> Array:
        """Normal numbers for all particles and steps, (H-1, E, P/E, O), the same for all plans."""
        return rng.standard_normal(self._noise_shape(self._models[0], size), dtype=np.float32)

    def _noise_shape(self, dynamics: Dynamics, size: int) -> tuple[int, int, int, int]:
        nets = dynamics.members or 1
        deterministic = self._encoder is not None or getattr(dynamics, "deterministic", False)
        each = 1 if deterministic else -(-self.config.particles // nets)
        return self.config.planner.horizon - 1, nets, each, size

    def _risks(self, start: Array, plans: Array, noise: Array) -> Array:
        """Predicted risk of each step: (O,), (N, H, A), (H-1, E, P/E, O) -> (H, N)."""
        count = len(plans)
        if count not in self._judges:
            self._judges[count] = PlanRisk(plans.shape, noise.shape)
        return self._judges[count](*self._models, start, plans, noise)


def start_of(observation: ArrayLike) -> Array:
    """Where a plan starts, (O,).

    Raises:
        ValueError: it is not a finite vector.
    """
    start = np.asarray(observation, np.float32)
    if start.ndim != 1 or not np.isfinite(start).all():
        raise ValueError(f"a finite observation of shape (O,) is needed, not {start!r}")
    return start


def _encode(encoder: Encoder, observation: Array) -> Array:
    """The latent (L,) of one observation (O,)."""
    latent: Array = encoder.run(observation=observation[None])["latent"][0]
    return latent


def _guesses(rest: Array, low: Array, high: Array, config: planning.PlannerConfig) -> Array:
    """Rest, and a full action along each axis either way, held throughout: (1 + 2 A, H, A).

    Cut to a quarter of the population where A is large.
    """
    actions = np.tile(rest, (1 + 2 * rest.size, 1))
    for axis in range(rest.size):
        actions[1 + 2 * axis, axis] = low[axis]
        actions[2 + 2 * axis, axis] = high[axis]
    held = np.repeat(actions[:, None], config.horizon, axis=1)
    return held[: max(1, config.population // 4)]
