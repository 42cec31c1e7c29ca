"""What makes a simulated robot as imperfect as a real one: delays, losses and noise."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import numpy as np

from safetypilot.bridge.contract import Vector

T = TypeVar("T")


class Delay(Generic[T]):
    """Hands things over in their order, each so much later than it came."""

    def __init__(self, delay_s: float) -> None:
        self._delay_ns = round(delay_s * 1e9)
        self._waiting: deque[tuple[int, T]] = deque()

    def put(self, thing: T, now_ns: int) -> None:
        self._waiting.append((now_ns + self._delay_ns, thing))

    @property
    def due_ns(self) -> int | None:
        """When the next is due; None: there is nothing."""
        return self._waiting[0][0] if self._waiting else None

    def take(self, now_ns: int) -> tuple[int, T] | None:
        """The next, with the time at which it was due; None: nothing is due yet."""
        if self._waiting and self._waiting[0][0] <= now_ns:
            return self._waiting.popleft()
        return None

    def clear(self) -> None:
        self._waiting.clear()


class Chance:
    """Losses and noise, the same for a seed.

    Attributes:
        lost: how often something was.
    """

    def __init__(self, drop_rate: float, position: float, velocity: float, seed: int) -> None:
        """Prepare.

        Args:
            drop_rate: share that gets lost.
            position, velocity: standard deviations of the noise.
        """
        self._drop_rate, self._noise = drop_rate, (position, velocity)
        self._generator = np.random.default_rng(seed)
        self.lost = 0

    def loses(self) -> bool:
        lost = self._drop_rate > 0.0 and self._generator.random() < self._drop_rate
        self.lost += lost
        return lost

    def blur(self, position: Vector, velocity: Vector) -> tuple[Vector, Vector]:
        """Both, as a sensor sees them."""
        return self._blur(position, self._noise[0]), self._blur(velocity, self._noise[1])

    def _blur(self, numbers: Vector, deviation: float) -> Vector:
        if not deviation:
            return numbers
        noise = self._generator.normal(0.0, deviation, len(numbers)).tolist()
        return tuple([number + its for number, its in zip(numbers, noise, strict=True)])
