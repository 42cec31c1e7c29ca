"""What a plant's report of an episode is made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from safetypilot.nodes.kernel import messages


class EpisodeLog:
    """What one episode's report is made of.

    Observations are for pictures of the way taken; images would be megabytes that show none.
    """

    def __init__(self, keeps_observations: bool = True) -> None:
        self._keeps = keeps_observations
        self.missed = self.refused = 0
        self._observations: list[np.ndarray[Any, Any]] = []
        self._sources: list[int] = []
        self._latency_us: list[float] = []
        self._models: dict[str, None] = {}
        self._reward = self._cost = 0.0

    def add(
        self,
        observation: np.ndarray[Any, Any],
        source: int,
        latency_us: float,
        model: str,
        reward: float,
        cost: float,
    ) -> None:
        if self._keeps or not self._observations:
            self._observations.append(observation)
        self._sources.append(source)
        self._latency_us.append(latency_us)
        if model:
            self._models[model] = None
        self._reward += reward
        self._cost += cost

    def message(
        self, seq: int, stamp_ns: int, now_ns: int, episode: int, success: bool
    ) -> messages.EpisodeReport:
        return messages.EpisodeReport(
            seq=seq,
            stamp_ns=stamp_ns,
            sent_ns=now_ns,
            episode=episode,
            steps=len(self._sources),
            success=success,
            violation=self._cost > 0,
            total_reward=self._reward,
            missed=self.missed,
            models=",".join(self._models),
            observations=np.stack(self._observations)[: None if self._keeps else 0],
            sources=np.array(self._sources, np.uint8),
            latency_us=np.array(self._latency_us, np.float32),
            dropped=self.refused,
        )
