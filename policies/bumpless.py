"""Bumpless transfer: after a change of model the action drifts to the new one's, without a jump.

Letters: A action dimension.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]


class Bumpless:
    """Adds what the new model's first action lacked, less with every step, until nothing is left.

    The first action after the change equals the last one before it; each is clipped to the limits.

    Attributes:
        left: steps until the new model is on its own.
    """

    def __init__(self, steps: int, low: ArrayLike, high: ArrayLike) -> None:
        """Take `steps` steps, within limits (A,)."""
        self._steps = steps
        self._low, self._high = np.asarray(low, np.float32), np.asarray(high, np.float32)
        self._last: Array | None = None
        self._gap: Array | None = None
        self.left = 0

    def forget(self) -> None:
        """At the start of an episode: what went before has nothing to do with what comes."""
        self._last = self._gap = None
        self.left = 0

    def begin(self) -> None:
        """Another model answers from the next action on."""
        self.left = self._steps if self._last is not None else 0
        self._gap = None

    def __call__(self, action: Array) -> Array:
        """What to propose in place of the model's own action, (A,)."""
        if self.left and self._last is not None:
            if self._gap is None:
                self._gap = self._last - action
            wanted = action + self._gap * (self.left / self._steps)
            action = np.minimum(np.maximum(wanted, self._low), self._high).astype(np.float32)
            self.left -= 1
        self._last = action
        return action
