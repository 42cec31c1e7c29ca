"""A tiny world for tests of learning: a line with a cliff, and settings that train in a second."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safetypilot.policies.learn import catalogue, trainer
from safetypilot.policies.learn.config import with_settings
from safetypilot.policies.learn.learner import Learner
from safetypilot.policies.learn.replay import Transition
from safetypilot.policies.learn.world import World

DESCRIPTION: dict[str, Any] = {
    "observation_names": ["x"],
    "observation_units": ["m"],
    "action_names": ["push"],
    "action_units": ["m"],
    "action_low": [-1.0],
    "action_high": [1.0],
}
INTERFACE = SimpleNamespace(**DESCRIPTION)


class Ledge:
    """A line: the goal is at +2, the cliff at -2, an episode lasts 12 steps."""

    def reset(self, seed: int | None = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        self.rng = np.random.default_rng(seed)
        self.x, self.count = self.rng.uniform(-1, 1), 0
        return np.array([self.x], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.x += 0.5 * float(np.clip(action[0], -1, 1)) + 0.05 * self.rng.standard_normal()
        self.count += 1
        cost, success = float(self.x < -2), self.x > 2
        ended = bool(cost) or success
        info = {"cost": cost, "success": success}
        observation = np.array([self.x], np.float32)
        return observation, -abs(2 - self.x), ended, not ended and self.count >= 12, info

    def close(self) -> None:
        pass


def offline(env: str, size: int, seed: int) -> dict[str, Any]:
    """Random steps anywhere on the line."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, size).astype(np.float32)
    action = rng.uniform(-1, 1, size).astype(np.float32)
    following = x + np.float32(0.5) * action
    return {
        "observation": x[:, None],
        "action": action[:, None],
        "cost": (following < -2).astype(np.float32),
        "reward": -np.abs(2 - following),
        "next_observation": following[:, None],
    }


WORLD = World(lambda env: Ledge(), lambda env: DESCRIPTION, offline)

TINY = {
    "hidden": "8", "layers": "1", "batch": "16", "offline_size": "300", "offline_updates": "30",
    "dynamics_epochs": "2", "dynamics_hidden": "8", "ensemble": "2", "horizon": "3",
    "planner_population": "8", "planner_elites": "2", "planner_iterations": "1",
    "planner_particles": "2", "start_steps": "10", "evaluate_every": "2",
    "evaluate_episodes": "2", "final_episodes": "2", "novice_episodes": "2",
    "checkpoint_every": "3", "dynamics_update_episodes": "2", "automatic_alpha": "true",
}  # fmt: skip


def tiny(
    out: Path,
    episodes: int,
    *,
    algorithm: str = "recovery-rl",
    seeds: tuple[int, ...] = (3,),
    settings: dict[str, str] | None = None,
    world: World = WORLD,
    **options: Any,
) -> list[dict[str, Any]]:
    """Train on the ledge; `resume` and the like are passed on."""
    chosen = settings if "resume" in options else TINY | (settings or {})
    request = trainer.Request(algorithm, "ledge", seeds, settings=chosen, episodes=episodes)
    return trainer.train(request, out, world=world, **options)


def learner(
    algorithm: str = "recovery-rl", seeds: tuple[int, ...] = (0,), **settings: Any
) -> Learner:
    """A small learner for the ledge."""
    small = {"hidden": 8, "layers": 1, "batch": 16, "dynamics_hidden": 8, "ensemble": 2}
    texts = {name: str(value) for name, value in (small | settings).items()}
    config = with_settings(catalogue.settings(algorithm, "ledge"), texts)
    return Learner(algorithm, config, INTERFACE, seeds)


def fill(learner: Learner, count: int = 40, every: int = 5) -> None:
    """Online steps for each seed; each `every`-th violates."""
    rng = np.random.default_rng(0)
    for index in range(count):
        for seed in range(len(learner.seeds)):
            x, action = rng.normal(size=1), rng.uniform(-1, 1, 1)
            cost = float(index % every == 0)
            learner.add(
                Transition(x, action, action, -1.0, cost, x + action, cost > 0, False), seed
            )


def step(cost: float = 0.0, **changes: Any) -> Transition:
    """One step of a plant with two observations and two actions."""
    base = Transition(
        observation=np.array([1.0, 2.0]),
        proposed=np.array([0.5, 0.5]),
        executed=np.array([-0.5, 0.0]),
        reward=-1.0,
        cost=cost,
        next_observation=np.array([1.5, 2.0]),
        terminated=cost > 0,
        truncated=False,
    )
    return base._replace(**changes)


def batch_of(*seeds: list[Transition]) -> Transition:
    """Rows per seed as one batch, (S, B, ...)."""
    columns = zip(*(zip(*rows, strict=True) for rows in seeds), strict=True)
    return Transition(*(np.array(column) for column in columns))
