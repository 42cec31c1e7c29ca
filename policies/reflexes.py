"""Recovery that does not search: a policy acts, or the least risky of many actions is taken.

Letters: N candidates, H horizon in steps, O observation and A action dimension, E nets of the
dynamics ensemble.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safetypilot.models.runtime import Model
from safetypilot.policies.critic import Critic, Dynamics
from safetypilot.policies.planning import PlannerConfig
from safetypilot.policies.recovery import Plan, RecoveryConfig, start_of

Array = NDArray[np.float32]

_LOT = 125  # samples


class NoDynamics:
    """In place of dynamics where nobody looks ahead: a planner of horizon 1 never asks it."""

    members = 1
    deterministic = True

    def run(self, **inputs: Array) -> dict[str, Array]:
        """Refuse."""
        raise ValueError("a plan of more than one step needs dynamics")


def sampling(samples: int) -> RecoveryConfig:
    """Q-sampling (arXiv 2010.15920, appendix): the least risky of N uniformly random actions.

    They are drawn in lots, so that a critic of images, which is slow, judges as many as there is
    time for.
    """
    lots = -(-samples // _LOT)
    planner = PlannerConfig("random", 1, -(-samples // lots), elites=1, max_iterations=lots)
    return RecoveryConfig(planner, particles=1, action_penalty=0.0)


class PolicyRecovery:
    """Model-free recovery: a policy that was trained to descend Q_risk acts.

    With dynamics its actions are foreseen for H steps (mean of the ensemble, no noise), so that a
    plan outlives a planner that dies; without, the plan is one action long.
    """

    def __init__(
        self, policy: Model, critic: Critic, dynamics: Dynamics | None = None, horizon: int = 1
    ) -> None:
        """Join the models.

        Args:
            policy: of kind ``task_policy``, trained to recover.
            critic: says how risky each step is; its word changes nothing.
            dynamics: predicts.
            horizon: H, with dynamics.
        """
        if horizon < 1:
            raise ValueError(f"horizon={horizon}, at least 1 is needed")
        if policy.contract.recurrent:
            raise ValueError(f"{policy.version} is recurrent; a recovery policy carries no state")
        self._models = (policy, critic, dynamics)
        self._horizon = horizon if dynamics is not None else 1

    def reset(self) -> None:
        """Nothing is remembered."""

    def swap(
        self,
        *,
        policy: Model | None = None,
        critic: Critic | None = None,
        dynamics: Dynamics | None = None,
    ) -> None:
        """Go on with other models from the next call on; None keeps the old."""
        new, old = (policy, critic, dynamics), self._models
        self._models = (new[0] or old[0], new[1] or old[1], new[2] or old[2])

    def warm_up(self, size: int, **models: Model | Critic | Dynamics) -> None:
        """Let new models allocate for every shape that a plan asks of them, before a `swap`.

        Args:
            size: of the observation, O.
            **models: ``policy``, ``critic``, ``dynamics`` to come.
        """
        other = PolicyRecovery(*self._models, self._horizon)
        other.swap(**models)  # type: ignore[arg-type]
        other.plan(np.zeros(size, np.float32), 0)

    def plan(
        self,
        observation: ArrayLike,
        seq: int,
        clock: Callable[[], int] | None = None,
        deadline_ns: int | None = None,
    ) -> Plan:
        """What the policy does now, and would do at the observations that are foreseen.

        Args:
            observation: where the plan starts, (O,), finite.
            seq: of no matter.
            clock: the time in ns.
            deadline_ns: nothing more is foreseen after it.

        Returns:
            A plan of up to H steps; it is shorter where time is up or a prediction not finite.
        """
        policy, critic, dynamics = self._models
        state = start_of(observation)
        states, actions = [state], [policy.run(observation=state[None])["action"][0]]
        while dynamics is not None and len(states) < self._horizon:
            if clock is not None and deadline_ns is not None and clock() >= deadline_ns:
                break
            state = _foresee(dynamics, state, actions[-1])
            if not np.isfinite(state).all():
                break
            states.append(state)
            actions.append(policy.run(observation=state[None])["action"][0])
        risks = [
            critic.run(observation=s[None], action=a[None])["risk"][0]
            for s, a in zip(states, actions, strict=True)
        ]
        return Plan(np.stack(actions), np.array(risks, np.float32), 1)


def _foresee(dynamics: Dynamics, observation: Array, action: Array) -> Array:
    """The next observation, (O,), by the mean of the nets."""
    nets = dynamics.members or 1
    rows, actions = (np.tile(row, (nets, 1, 1)) for row in (observation, action))
    found = dynamics.run(observation=rows, action=actions, noise=np.zeros_like(rows))
    following: Array = found["next_observation"].mean(axis=(0, 1))
    return following
