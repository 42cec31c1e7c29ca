"""Observations as float32 vectors, whatever the environment's own shape and type."""

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt


class Flat(gymnasium.ObservationWrapper):  # type: ignore[misc]  # gymnasium is not followed
    """Flattens a Box in row-major order and casts it to float32; images keep values 0 to 255."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, gymnasium.spaces.Box):
            raise ValueError(f"the observation space is {space}; only a Box can be flattened")
        low, high = (np.ravel(bound).astype(np.float32) for bound in (space.low, space.high))
        self.observation_space = gymnasium.spaces.Box(low, high, dtype=np.float32)

    def observation(self, observation: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """One observation (...) as (size,) float32."""
        return np.ravel(np.asarray(observation)).astype(np.float32)
