"""A choice among n as n preferences, so that what moves a robot can also play a board."""

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt


class Preferences(gymnasium.ActionWrapper):  # type: ignore[misc]  # gymnasium is not followed
    """Turns a Discrete action space into a Box [0, 1] of as many preferences; the largest wins.

    The first of equals wins, so all zeros, the failsafe, is the first choice. Numbers outside the
    box are compared as they are; what is not finite is refused.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        space = env.action_space
        if not isinstance(space, gymnasium.spaces.Discrete):
            raise ValueError(f"the action space is {space}; preferences are for a Discrete one")
        self._start = int(space.start)
        self._n = int(space.n)
        self.action_space = gymnasium.spaces.Box(0.0, 1.0, (self._n,), np.float32)

    def action(self, action: npt.ArrayLike) -> np.int64:
        """The choice that preferences (n,) make."""
        preferences = np.asarray(action, dtype=np.float64)
        if preferences.shape != (self._n,) or not np.isfinite(preferences).all():
            raise ValueError(f"the action is {action!r}; {self._n} finite preferences are needed")
        return np.int64(self._start + int(np.argmax(preferences)))
