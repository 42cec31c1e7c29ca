"""A planner's settings, and what it remembers between calls.

Letters: N candidates, H horizon in steps, A action dimension, K elites.
"""

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

METHODS = ("random", "cem", "icem", "mppi")
ANSWERS = ("best", "last", "mean")


@dataclass(frozen=True)
class PlannerConfig:
    """Settings of one planner; lengths in steps, widths as parts of the action box.

    Attributes:
        method: "random" (uniform over the box, the best so far is kept), "cem" (normal,
            independent steps), "icem" (coloured noise, elites kept between iterations and calls,
            shrinking population) or "mppi" (coloured noise, elites weighed by their cost).
        horizon: H.
        population: N of the first iteration.
        elites: K; for MPPI those that have a weight, N for all.
        max_iterations: iterations without a deadline, and at most with one.
        smoothing: part of the old mean and deviation kept at each refit.
        initial_std: first deviation / box width; 0.25 is the published variance (high - low)^2/16.
        min_std: stop once every deviation / box width is below this; 0 never stops early.
        answer: the final "mean", as published for CEM, unless it is worse than the elites that it
            was made of (two ways round an obstacle); the "best" candidate seen, which exploits
            the errors of a learned cost more; or the "last" population's best, which matters
            where a cost is not the same twice. Random shooting knows no mean: it gives the best.
        colour: iCEM and MPPI, noise power falls with frequency^-colour; 0 is white.
        decay: iCEM, the population shrinks by this factor each iteration, never below 2 K.
        kept: iCEM, part of the elites that joins the next population.
        truncate: CEM draws within so many deviations, and keeps as many inside the box; 0 draws
            from the whole normal and clips.
        uniform_first: CEM, the first population is uniform over the box.
        temperature: MPPI, an elite that is worse than the best by this part of the elites' spread
            of cost weighs 1/e of it; towards 0 the best alone counts. Relative, unlike the
            original's, so that it means the same for every scale of costs.
    """

    method: Literal["random", "cem", "icem", "mppi"] = "icem"
    horizon: int = 5
    population: int = 100
    elites: int = 8
    max_iterations: int = 3
    smoothing: float = 0.1
    initial_std: float = 0.25
    min_std: float = 0.0
    answer: Literal["best", "last", "mean"] = "mean"
    colour: float = 2.0
    decay: float = 1.25
    kept: float = 0.3
    truncate: float = 2.0
    uniform_first: bool = False
    temperature: float = 0.5

    def __post_init__(self) -> None:
        """Refuse settings that cannot plan."""
        checks = {
            "method": self.method in METHODS,
            "answer": self.answer in ANSWERS,
            "horizon": self.horizon >= 1,
            "elites": 1 <= self.elites <= self.population,
            "max_iterations": self.max_iterations >= 1,
            "smoothing": 0 <= self.smoothing < 1,
            "initial_std": self.initial_std > 0,
            "min_std": self.min_std >= 0,
            "colour": self.colour >= 0,
            "decay": self.decay >= 1,
            "kept": 0 <= self.kept <= 1,
            "truncate": self.truncate == 0 or self.truncate >= 0.1,  # below, it never fits
            "temperature": self.temperature > 0,
        }
        wrong = [f"{name}={getattr(self, name)!r}" for name, good in checks.items() if not good]
        if wrong:
            raise ValueError(f"planner settings out of range: {', '.join(wrong)}")

    @classmethod
    def published(cls, horizon: int) -> "PlannerConfig":
        """CEM as Recovery RL ran it: 400 candidates, 40 elites, at most 5 iterations.

        The published early stop, variance <= 0.001, was absolute, so that it cut a box of +-0.1
        short; here it is the same part of any box as it was of Navigation's [-1, 1].
        """
        stop = math.sqrt(0.001) / 2  # of the width of [-1, 1]
        return cls("cem", horizon, 400, 40, 5, min_std=stop)

    @classmethod
    def published_visual(cls, horizon: int = 10) -> "PlannerConfig":
        """CEM as Recovery RL ran it on latents: 400 candidates, 10 elites, 10 iterations.

        Its answer came from the second-last population, by mistake; here from the last.
        """
        plain = cls("cem", horizon, 400, 10, 10, smoothing=0.0, answer="last")
        return replace(plain, truncate=0.0, uniform_first=True)

    def population_of(self, iteration: int) -> int:
        """N of an iteration."""
        if self.method != "icem":
            return self.population
        shrunk = int(self.population * self.decay**-iteration)
        return min(self.population, max(shrunk, 2 * self.elites))


class Pace:
    """How long a thing takes that is done over and over, going by the last 16 times.

    One hiccup of the machine changes nothing, and a slower machine is known after four times.
    """

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=16)

    def expected_ns(self, quarters: int = 3) -> int:
        """What it takes at most in so many quarters of all cases; 0 before the first."""
        return sorted(self._recent)[quarters * len(self._recent) // 4] if self._recent else 0

    def add(self, took_ns: int) -> None:
        """Measured once more."""
        self._recent.append(took_ns)

    def forgive(self) -> None:
        """Forget the slowest, after it was not tried because it seemed too slow."""
        if self._recent:
            self._recent.remove(max(self._recent))


class PlannerState:
    """What a planner remembers between calls, and the memory it works in."""

    def __init__(self, config: PlannerConfig, low: Array, high: Array) -> None:
        """Start with nothing remembered.

        Args:
            config: the planner's settings.
            low: smallest action, (A,).
            high: largest action, (A,).
        """
        self.low = np.asarray(low, np.float32)
        self.high = np.asarray(high, np.float32)
        same = self.low.ndim == 1 and self.low.shape == self.high.shape
        if not same or not np.isfinite(self.high - self.low).all() or (self.low > self.high).any():
            raise ValueError(f"no action box: {self.low} to {self.high}")
        size, actions = config.horizon, self.low.size
        self.width = self.high - self.low  # (A,)
        self.middle = self.low + self.width / 2  # (A,)
        self.mean = np.empty((size, actions), np.float32)
        self.elites = np.empty((size, 0, actions), np.float32)
        self.pace, self.finish = Pace(), Pace()  # of iterations, and of judging the mean
        self.filter = _colour_filter(size, config.colour)  # (H, H)
        self._noise = np.empty(size * config.population * actions, np.float32)
        self._plans = np.empty_like(self._noise)
        self.reset()

    def reset(self) -> None:
        """Forget the previous plan, as at the start of an episode."""
        self.mean[:] = self.middle
        self.elites = self.elites[:, :0]

    def shift(self, steps: int) -> None:
        """Move what is remembered ``steps`` control steps on; beyond the horizon it is forgotten.

        The mean ends in mid-range, as published; elites repeat their last action, as in iCEM.
        """
        if steps < 0 or steps >= len(self.mean):
            self.reset()
        elif steps:
            self.mean[:-steps] = self.mean[steps:].copy()
            self.mean[-steps:] = self.middle
            self.elites[:-steps] = self.elites[steps:].copy()
            self.elites[-steps:] = self.elites[-1 - steps]

    def buffers(self, count: int) -> tuple[Array, Array]:
        """Noise and candidates, each (H, count, A), over the same memory every time."""
        size, actions = self.mean.shape
        shape, used = (size, count, actions), size * count * actions
        return self._noise[:used].reshape(shape), self._plans[:used].reshape(shape)


def _colour_filter(size: int, colour: float) -> Array:
    """Matrix (H, H) that turns white noise into noise of power frequency^-colour, variance 1.

    The same distribution as the Fourier synthesis of iCEM, which fills a spectrum with normal
    numbers and transforms back: a circular filter of white noise.
    """
    frequency = np.fft.rfftfreq(size)
    frequency[0] = frequency[1] if size > 1 else 1.0
    spectrum = np.fft.rfft(np.eye(size), axis=0) * (frequency ** (-colour / 2))[:, None]
    matrix = np.fft.irfft(spectrum, n=size, axis=0)
    matrix /= np.sqrt(np.square(matrix).sum(axis=1, keepdims=True))
    return matrix.astype(np.float32)
