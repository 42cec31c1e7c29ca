"""Filled learners, ours and stable-baselines3's, of the same sizes: what the benchmarks time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from safetypilot.policies.learn import catalogue
from safetypilot.policies.learn.learner import Learner
from safetypilot.policies.learn.replay import Transition

ROWS = 20_000  # in the replay buffers, beyond any cache


@dataclass(frozen=True)
class Interface:
    """A plant without meaning, its actions in [-1, 1]."""

    observations: int
    actions: int

    @property
    def observation_names(self) -> list[str]:
        return [f"o{i}" for i in range(self.observations)]

    @property
    def observation_units(self) -> list[str]:
        return [""] * self.observations

    @property
    def action_names(self) -> list[str]:
        return [f"a{i}" for i in range(self.actions)]

    @property
    def action_units(self) -> list[str]:
        return [""] * self.actions

    @property
    def action_low(self) -> list[float]:
        return [-1.0] * self.actions

    @property
    def action_high(self) -> list[float]:
        return [1.0] * self.actions


def ours(
    algorithm: str,
    observations: int,
    actions: int,
    hidden: int = 256,
    batch: int = 256,
    seeds: tuple[int, ...] = (0,),
    **settings: Any,
) -> Learner:
    """A learner of ours with full buffers; its recovery, if it has one, is a policy.

    Args:
        algorithm: of the catalogue.
        observations: O.
        actions: A.
        hidden: width of both hidden layers.
        batch: rows of an update.
        seeds: that train side by side.
        **settings: others than these.
    """
    entry = catalogue.entry(algorithm)
    own = {"hidden": hidden, "batch": batch, "capacity": ROWS, "offline_size": 1}
    own |= {"automatic_alpha": True, "recovery": "model-free", "scale_observations": False}
    config = entry.kind.Settings(**(own | settings))
    learner = Learner(algorithm, config, Interface(observations, actions), seeds)
    for index, seed in enumerate(seeds):
        rows = random_rows(np.random.default_rng(seed), observations, actions)
        learner.task_replay.extend(rows, index)
        learner.risk_replay.extend(rows, index)
    return learner


def random_rows(rng: np.random.Generator, observations: int, actions: int) -> Transition:
    """Transitions of no plant in particular, a tenth with a cost."""
    cost = (rng.random(ROWS) < 0.1).astype(np.float32)
    return Transition(
        observation=rng.standard_normal((ROWS, observations)),
        proposed=rng.uniform(-1, 1, (ROWS, actions)),
        executed=rng.uniform(-1, 1, (ROWS, actions)),
        reward=rng.standard_normal(ROWS),
        cost=cost,
        next_observation=rng.standard_normal((ROWS, observations)),
        terminated=cost > 0,
        truncated=np.zeros(ROWS, np.bool_),
    )


def sb3(observations: int, actions: int, hidden: int) -> Any:
    """stable-baselines3's SAC with a full buffer; `.train(updates, batch)` updates it."""
    import gymnasium
    from stable_baselines3 import SAC
    from stable_baselines3.common.logger import Logger

    class Plant(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (observations,), np.float32)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (actions,), np.float32)

    nets = {"net_arch": [hidden, hidden]}
    model = SAC("MlpPolicy", Plant(), buffer_size=ROWS, policy_kwargs=nets, device="cpu", seed=0)
    model.set_logger(Logger(None, []))
    rows = random_rows(np.random.default_rng(0), observations, actions)
    buffer: Any = model.replay_buffer
    for index in range(ROWS):
        buffer.add(
            *(rows.observation[index], rows.next_observation[index], rows.proposed[index]),
            *(rows.reward[index], rows.terminated[index], [{}]),
        )
    return model
