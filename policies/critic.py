"""The safety critic: how likely an action, or a plan, leads to a violation.

Letters: B rows, O observation and A action dimension; N plans, H horizon in steps, P particles,
E nets of the dynamics ensemble.
"""

from math import isfinite
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safetypilot.models.runtime import Model

Array = NDArray[np.float32]

_FEW = 64


class SafetyCritic:
    """Q_risk of an observation and an action, the larger of the twins, in [0, 1]."""

    def __init__(self, model: Model) -> None:
        """Bind buffers for one row, and run once, so that the first answer is not the slowest.

        Args:
            model: of kind ``safety_critic``.
        """
        self.swap(model)

    def swap(self, model: Model) -> None:
        """Judge with another model from the next call on; one that does not run changes nothing."""
        contract = model.contract
        bound = model.bind(
            observation=(1, contract.observation_size), action=(1, contract.action_size)
        )
        observation: Array = bound.inputs["observation"][0]
        action: Array = bound.inputs["action"][0]
        self._bound = (model, bound, observation, action, bound.outputs["risk"])

    @property
    def model(self) -> Model:
        """The model that judges."""
        return self._bound[0]

    def risk(self, observation: ArrayLike, action: ArrayLike) -> float:
        """Risk of one action, (O,) and (A,); NaN where the input is not finite."""
        _, bound, its_observation, its_action, risk = self._bound
        its_observation[:] = observation
        its_action[:] = action
        bound.run()
        # A network may turn NaN into a number: ReLU does, and the sum of both inputs does not.
        finite = _is_finite(its_observation) and _is_finite(its_action)
        return float(risk[0]) if finite else float("nan")

    def rehearse(self) -> None:
        """Judge the last action once more; nothing comes of it."""
        self._bound[1].run()

    def risks(self, observation: Array, action: Array) -> Array:
        """Risks of many, (B, O) and (B, A) to (B,); NaN where the input is not finite."""
        risk = self.model.run(observation=observation, action=action)["risk"]
        finite = np.isfinite(observation).all(axis=1) & np.isfinite(action).all(axis=1)
        risk[~finite] = np.nan
        return risk


def _is_finite(values: Array) -> bool:
    """Whether all of them are. NumPy's way costs more than a small network when it is cold."""
    if values.size <= _FEW:
        return all(map(isfinite, values.tolist()))
    return bool(np.isfinite(values.sum()))


class Dynamics(Protocol):
    """What predicts the next observation: a `models.runtime.Model`, or `MujocoDynamics`.

    ``run(observation=(E, B, O), action=(E, B, A), noise=(E, B, O))["next_observation"]`` is
    (E, B, O). An attribute ``deterministic`` that is true says that noise does not matter.
    """

    @property
    def members(self) -> int | None:
        """E: particles are divided over so many nets."""

    def run(self, **inputs: Array) -> dict[str, Array]:
        """Predict."""


class Critic(Protocol):
    """What judges an action: a `models.runtime.Model`, or a stand-in.

    ``run(observation=(B, O), action=(B, A))["risk"]`` is (B,), each in [0, 1].
    """

    def run(self, **inputs: Array) -> dict[str, Array]:
        """Judge."""


class PlanRisk:
    """Predicted risk of N plans at once: rolls them out, then judges all their steps in one call.

    Every particle keeps its net for the whole horizon (TS-infinity, arXiv 1805.12114). The memory
    is allocated once.
    """

    def __init__(self, plans: tuple[int, ...], noise: tuple[int, ...]) -> None:
        """Allocate for plans (N, H, A) and noise (H-1, E, P/E, O)."""
        count, self._horizon, actions = plans
        later, nets, each, size = noise
        self._particles = nets * each
        rows = 1 + later * self._particles  # the first step is the same for all particles
        self._states = np.empty((rows, count, size), np.float32)
        self._actions = np.empty((rows, count, actions), np.float32)
        self._start = np.empty((nets, each * count, size), np.float32)
        self._first = np.empty((nets, each, count, actions), np.float32)
        self._first_actions = self._first.reshape(nets, each * count, actions)
        self._later_actions = self._actions[1:].reshape(later, self._particles, count, actions)
        self._noise = np.empty((later, nets, each, count, size), np.float32)
        self._flat_states = self._states.reshape(rows * count, size)
        self._flat_actions = self._actions.reshape(rows * count, actions)
        self._step_states = self._states[1:].reshape(later, nets, each * count, size)
        self._step_actions = self._actions[1:].reshape(later, nets, each * count, actions)
        self._step_noise = self._noise.reshape(later, nets, each * count, size)

    def __call__(
        self, dynamics: Dynamics, critic: Critic, start: Array, plans: Array, noise: Array
    ) -> Array:
        """Predicted risk of each step, mean over particles, (H, N).

        Args:
            dynamics: predicts.
            critic: judges; where the prediction is not finite the risk is NaN.
            start: where all plans start, (O,).
            plans: (N, H, A).
            noise: standard normal, (H-1, E, P/E, O); the same for all plans.
        """
        states, actions = self._states, self._actions
        rows, count, _ = states.shape
        later, particles = self._horizon - 1, self._particles
        states[0] = self._start[:] = start
        by_step = plans.transpose(1, 0, 2)  # (N, H, A) -> (H, N, A)
        actions[0] = self._first[:] = by_step[0]
        self._later_actions[:] = by_step[1:, None]
        self._noise[:] = noise[:, :, :, None]
        state, action = self._start, self._first_actions
        for step in range(later):
            inputs = {"observation": state, "action": action, "noise": self._step_noise[step]}
            self._step_states[step] = dynamics.run(**inputs)["next_observation"]
            state, action = self._step_states[step], self._step_actions[step]
        inputs = {"observation": self._flat_states, "action": self._flat_actions}
        flat = critic.run(**inputs)["risk"]
        risk = np.where(np.isfinite(states).all(axis=2), flat.reshape(rows, count), np.nan)
        mean = risk[1:].reshape(later, particles, count).mean(axis=1)  # (H-1, P, N) -> (H-1, N)
        return np.concatenate((risk[:1], mean))

    def warm_up(self, dynamics: Dynamics | None, critic: Critic | None) -> None:
        """Call each once with the shapes of a plan."""
        shapes = (self._start.shape, self._first_actions.shape, self._start.shape)
        names = ("observation", "action", "noise")
        if dynamics is not None and self._horizon > 1:
            zeros = (np.zeros(shape, np.float32) for shape in shapes)
            dynamics.run(**dict(zip(names, zeros, strict=True)))
        if critic is not None:
            observation, action = (
                np.zeros_like(self._flat_states),
                np.zeros_like(self._flat_actions),
            )
            critic.run(observation=observation, action=action)
