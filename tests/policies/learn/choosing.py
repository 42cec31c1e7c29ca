"""The ledge of `ledge`, for whoever can only choose: left, stay or right."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ledge import TINY, Ledge, offline

from safetypilot.policies.learn import catalogue, trainer
from safetypilot.policies.learn.config import with_settings
from safetypilot.policies.learn.learner import Learner
from safetypilot.policies.learn.replay import Transition
from safetypilot.policies.learn.world import World

N = 3
DESCRIPTION: dict[str, Any] = {
    "observation_names": ["x"],
    "observation_units": ["m"],
    "action_names": [f"choice_{index}" for index in range(N)],
    "action_units": [""] * N,
    "action_low": [0.0] * N,
    "action_high": [1.0] * N,
}
INTERFACE = SimpleNamespace(**DESCRIPTION)


class ChoosingLedge(Ledge):
    """The largest of three preferences decides."""

    def step(self, action: Any) -> Any:
        return super().step(np.array([np.argmax(action) - 1.0]))


def offline_choices(env: str, size: int, seed: int) -> dict[str, Any]:
    """As `ledge.offline`, its actions as preferences."""
    data = offline(env, size, seed)
    choice = np.rint(data["action"][:, 0]).astype(int) + 1
    following = data["observation"] + np.float32(0.5) * (choice[:, None] - 1)
    return {
        "observation": data["observation"],
        "action": (0.4 * np.eye(N)[choice] + 0.3).astype(np.float32),
        "cost": (following[:, 0] < -2).astype(np.float32),
        "reward": -np.abs(2 - following[:, 0]),
        "next_observation": following.astype(np.float32),
    }


WORLD = World(lambda env: ChoosingLedge(), lambda env: DESCRIPTION, offline_choices)


def choosing(
    algorithm: str = "recovery-rl", seeds: tuple[int, ...] = (0,), **settings: Any
) -> Learner:
    """A small learner that chooses."""
    small = {"hidden": 8, "layers": 1, "batch": 16, "dynamics_hidden": 8, "ensemble": 2}
    texts = {name: str(value) for name, value in (small | settings).items()}
    config = with_settings(catalogue.settings(algorithm, "ledge"), texts)
    return Learner(algorithm, config, INTERFACE, seeds)


def fill_choices(learner: Learner, count: int = 40, every: int = 5) -> None:
    """Online steps for each seed; each `every`-th violates, by the first choice alone."""
    rng = np.random.default_rng(0)
    for index in range(count):
        for seed in range(len(learner.seeds)):
            x, preferences = rng.normal(size=1), rng.random(N)
            cost = float(index % every == 0)
            preferences[0] = 2.0 if cost else 0.0
            rows = (x, preferences, preferences, -1.0, cost, x + 0.1)
            learner.add(Transition(*rows, cost > 0, False), seed)


def train(out: Path, episodes: int, algorithm: str, **options: Any) -> list[dict[str, Any]]:
    """Train on the ledge of choices; `resume` and the like are passed on."""
    settings = None if "resume" in options else TINY | options.pop("settings", {})
    request = trainer.Request(algorithm, "ledge", (3,), settings=settings, episodes=episodes)
    return trainer.train(request, out, world=WORLD, **options)
