"""Sampling planners that know no model: CEM as published, and iCEM, within a deadline.

Letters: N candidates, H horizon in steps, A action dimension, K elites.

Candidates are kept step first, (H, N, A), so that the actions of one step lie side by side for
the model that rolls them; a cost function sees the same memory as (N, H, A).

Sources: CEM as in PETS (Chua et al. 2018, arXiv 1805.12114) with the settings of Recovery RL
(arXiv 2010.15920); iCEM is Pinneri et al. 2020, arXiv 2008.06389.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Cost = Callable[[Array], NDArray[np.floating]]  # (N, H, A) -> (N,), NaN counts as the worst

_TRUNCATE = 2.0  # CEM draws within this many standard deviations


@dataclass(frozen=True)
class PlannerConfig:
    """Settings of one planner; lengths in steps, widths as parts of the action box.

    Attributes:
        method: "cem" (truncated normal, independent steps) or "icem" (coloured noise, elites kept
            between iterations and calls, shrinking population).
        horizon: H.
        population: N of the first iteration.
        elites: K.
        max_iterations: iterations without a deadline, and at most with one.
        smoothing: part of the old mean and deviation kept at each refit.
        initial_std: first deviation / box width; 0.25 is the published variance (high - low)^2/16.
        min_std: stop once every deviation / box width is below this; 0 never stops early.
        answer: the final "mean", as published for CEM, unless it is worse than the elites that it
            was made of (two ways round an obstacle); or the "best" candidate seen, which exploits
            the errors of a learned cost more.
        colour: iCEM, noise power falls with frequency^-colour; 0 is white.
        decay: iCEM, the population shrinks by this factor each iteration, never below 2 K.
        kept: iCEM, part of the elites that joins the next population.
    """

    method: Literal["cem", "icem"] = "icem"
    horizon: int = 5
    population: int = 100
    elites: int = 8
    max_iterations: int = 3
    smoothing: float = 0.1
    initial_std: float = 0.25
    min_std: float = 0.0
    answer: Literal["best", "mean"] = "mean"
    colour: float = 2.0
    decay: float = 1.25
    kept: float = 0.3

    def __post_init__(self) -> None:
        """Refuse settings that cannot plan."""
        checks = {
            "method": self.method in ("cem", "icem"),
            "answer": self.answer in ("best", "mean"),
            "horizon": self.horizon >= 1,
            "elites": 1 <= self.elites <= self.population,
            "max_iterations": self.max_iterations >= 1,
            "smoothing": 0 <= self.smoothing < 1,
            "initial_std": self.initial_std > 0,
            "min_std": self.min_std >= 0,
            "colour": self.colour >= 0,
            "decay": self.decay >= 1,
            "kept": 0 <= self.kept <= 1,
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

    def population_of(self, iteration: int) -> int:
        """N of an iteration."""
        if self.method == "cem":
            return self.population
        shrunk = int(self.population * self.decay**-iteration)
        return min(self.population, max(shrunk, 2 * self.elites))


class PlanResult(NamedTuple):
    """Always a plan. If ``cost`` is infinite (no time, or only NaN) it is the previous one."""

    plan: Array  # (H, A), inside the action box
    cost: float
    iterations: int


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


def plan(
    cost: Cost,
    state: PlannerState,
    config: PlannerConfig,
    rng: np.random.Generator,
    *,
    guesses: Array | None = None,
    clock: Callable[[], int] | None = None,
    deadline_ns: int | None = None,
) -> PlanResult:
    """Search for the cheapest plan, and answer by the deadline with the best so far.

    An iteration starts only if, going by those before it, it will end in time. Under a clock that
    stands still every iteration runs, so that the answer depends on the arguments alone.

    Args:
        cost: (N, H, A) -> (N,). It may not keep its argument: the memory is used again.
        state: what the previous call left; the caller shifts or resets it in between.
        config: the settings that ``state`` was made with.
        rng: the only source of chance.
        guesses: plans that iCEM tries beside the sampled ones, (any, H, A).
        clock: the time in ns.
        deadline_ns: when the answer must be there, on ``clock``; None for no deadline.
    """
    now = clock if clock is not None else (lambda: 0)
    mean = state.mean
    std = np.broadcast_to(config.initial_std * state.width, mean.shape).astype(np.float32)
    best, best_cost, worst, done = mean.copy(), math.inf, math.inf, 0
    for iteration in range(config.max_iterations):
        began = now()
        # The first iteration is worth a risk: without it there is no plan.
        expected = state.pace.expected_ns(3 if done else 2) + state.finish.expected_ns()
        if deadline_ns is not None and began + expected > deadline_ns:
            break
        plans = _sample(state, config, rng, std, iteration, guesses)
        costs = np.asarray(cost(plans.transpose(1, 0, 2)), np.float64)  # (N,)
        costs = np.where(np.isnan(costs), math.inf, costs)
        order = np.argsort(costs, kind="stable")[: config.elites]
        order = order[costs[order] < math.inf]
        if order.size:
            if costs[order[0]] < best_cost:
                best_cost = float(costs[order[0]])
                best[:] = plans[:, order[0]]
            worst = costs[order[-1]]
            state.elites = plans[:, order]  # (H, K, A), a copy
            _refit(mean, std, state.elites, config)
            np.clip(mean, state.low, state.high, out=mean)  # rounding
        done += 1
        state.pace.add(now() - began)
        if np.all(std < config.min_std * state.width):
            break
    if not done:
        state.pace.forgive()
        state.finish.forgive()
    if config.answer == "mean" and best_cost < math.inf:
        began = now()
        final = float(cost(mean[None])[0])
        state.finish.add(now() - began)
        if final <= worst:
            return PlanResult(mean.copy(), final, done)
    mean[:] = best  # where the next call begins, once shifted
    return PlanResult(best, best_cost, done)


def _sample(
    state: PlannerState,
    config: PlannerConfig,
    rng: np.random.Generator,
    std: Array,  # (H, A)
    iteration: int,
    guesses: Array | None,
) -> Array:
    """Candidates of one iteration, (H, N, A)."""
    noise, plans = state.buffers(config.population_of(iteration))
    rng.standard_normal(out=noise, dtype=np.float32)
    if config.method == "cem":
        while (outside := np.abs(noise) > _TRUNCATE).any():
            noise[outside] = rng.standard_normal(int(outside.sum()), dtype=np.float32)
        room = np.minimum(state.mean - state.low, state.high - state.mean) / _TRUNCATE
        np.multiply(noise, np.minimum(std, room)[:, None], out=plans)
    else:
        size, used = len(noise), noise.shape[1] * noise.shape[2]
        np.matmul(state.filter, noise.reshape(size, used), out=plans.reshape(size, used))
        plans *= std[:, None]
    plans += state.mean[:, None]
    if config.method == "icem":
        _include(plans, state, config, guesses if iteration == 0 else None)
    return np.clip(plans, state.low, state.high, out=plans)


def _include(
    plans: Array, state: PlannerState, config: PlannerConfig, guesses: Array | None
) -> None:
    """iCEM: overwrite the first of the candidates (H, N, A) with those worth a second look."""
    kept = min(math.ceil(config.kept * state.elites.shape[1]), plans.shape[1] - 1)
    plans[:, :kept] = state.elites[:, :kept]
    plans[:, kept] = state.mean
    if guesses is not None:
        plans = plans[:, kept + 1 :]
        count = min(len(guesses), plans.shape[1])
        plans[:, :count] = guesses[:count].transpose(1, 0, 2)


def _refit(mean: Array, std: Array, elites: Array, config: PlannerConfig) -> None:
    """Move mean and deviation, (H, A) each, towards the elites (H, K, A)."""
    old = config.smoothing
    mean *= old
    mean += (1 - old) * elites.mean(axis=1)
    if config.method == "cem":  # published: variances are mixed; iCEM mixes deviations
        std[:] = np.sqrt(old * np.square(std) + (1 - old) * elites.var(axis=1))
    else:
        std *= old
        std += (1 - old) * elites.std(axis=1)


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
