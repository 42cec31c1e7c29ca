"""Environments whose observation says which episode and step it is of, to see where rows lead."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Counting(gymnasium.Env[Any, Any]):
    """Observation (who, episode, step); ends by the task or by the clock, by turns."""

    observation_space = spaces.Box(-1.0, 1000.0, (3,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, who: int, length: int) -> None:
        self.who, self.length = who, length
        self.episode, self.count = -1, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.count = self.episode + 1, 0
        return self._observation(), {"cost": 77.0, "success": True}  # nobody may believe this

    def step(self, action: Any) -> Any:
        self.count += 1
        over = self.count == self.length + self.episode % 2
        terminated = over and self.episode % 2 == 0
        info = {"cost": float(terminated), "success": over and not terminated}
        reward = 100.0 * self.episode + self.count
        return self._observation(), reward, terminated, over and not terminated, info

    def _observation(self) -> Any:
        return np.array([self.who, self.episode, self.count], np.float32)


class Silent(Counting):
    """Says nothing of cost."""

    def step(self, action: Any) -> Any:
        return *super().step(action)[:4], {}


class Pictures(Counting):
    """Sees a small image."""

    observation_space = spaces.Box(0, 255, (2, 2, 3), np.uint8)

    def _observation(self) -> Any:
        return np.full((2, 2, 3), 10 * self.episode + self.count, np.uint8)
