"""The four ways to search: how each draws its candidates, and what it learns from their costs.

Letters: N candidates, H horizon in steps, A action dimension, K elites. Sources: CEM as in PETS
(Chua et al. 2018, arXiv 1805.12114); iCEM is Pinneri et al. 2020, arXiv 2008.06389; MPPI is
Williams et al. 2017, with the elites and the refitted deviation of TD-MPC (Hansen et al. 2022,
arXiv 2203.04955).
"""

import math

import numpy as np
from numpy.typing import NDArray

from safetypilot.policies.planning_state import Array, PlannerConfig, PlannerState


def draw(
    state: PlannerState,
    config: PlannerConfig,
    rng: np.random.Generator,
    std: Array,  # (H, A)
    iteration: int,
    guesses: Array | None,
) -> Array:
    """Candidates of one iteration, (H, N, A), inside the action box."""
    noise, plans = state.buffers(config.population_of(iteration))
    if config.method == "random" or (
        config.method == "cem" and config.uniform_first and iteration == 0
    ):
        rng.random(out=noise, dtype=np.float32)
        np.multiply(noise, state.width, out=plans)
        plans += state.low
    else:
        rng.standard_normal(out=noise, dtype=np.float32)
        if config.method == "cem":
            _independent(noise, plans, state, std, config.truncate, rng)
        else:
            size, used = len(noise), noise.shape[1] * noise.shape[2]
            np.matmul(state.filter, noise.reshape(size, used), out=plans.reshape(size, used))
            plans *= std[:, None]
        plans += state.mean[:, None]
    if config.method != "cem":
        kept = math.ceil(config.kept * state.elites.shape[1]) if config.method == "icem" else 0
        guesses = guesses if iteration == 0 else None
        _include(plans, state.elites[:, :kept], state.mean, guesses)
    return np.clip(plans, state.low, state.high, out=plans)


def _independent(
    noise: Array,
    plans: Array,
    state: PlannerState,
    std: Array,
    truncate: float,
    rng: np.random.Generator,
) -> None:
    """CEM: normal numbers, without those far out and with room for them in the box."""
    if not truncate:
        np.multiply(noise, std[:, None], out=plans)
        return
    while (outside := np.abs(noise) > truncate).any():
        noise[outside] = rng.standard_normal(int(outside.sum()), dtype=np.float32)
    room = np.minimum(state.mean - state.low, state.high - state.mean) / truncate
    np.multiply(noise, np.minimum(std, room)[:, None], out=plans)


def _include(plans: Array, kept: Array, mean: Array, guesses: Array | None) -> None:
    """Overwrite the first of the candidates (H, N, A) with those worth a second look."""
    count = min(kept.shape[1], plans.shape[1] - 1)
    plans[:, :count] = kept[:, :count]
    plans[:, count] = mean
    if guesses is not None:
        plans = plans[:, count + 1 :]
        count = min(len(guesses), plans.shape[1])
        plans[:, :count] = guesses[:count].transpose(1, 0, 2)


def refit(
    mean: Array, std: Array, elites: Array, costs: NDArray[np.float64], config: PlannerConfig
) -> None:
    """Learn from the elites, in place.

    Args:
        mean: of the next candidates, (H, A).
        std: their deviation, (H, A).
        elites: best first, (H, K, A).
        costs: theirs, finite, (K,).
        config: settings.
    """
    old = config.smoothing
    if config.method == "mppi":
        weights = _weights(costs, config.temperature)  # (K,)
        middle = np.einsum("k,hka->ha", weights, elites)
        variance = np.einsum("k,hka->ha", weights, np.square(elites - middle[:, None]))
    else:
        middle, variance = elites.mean(axis=1), elites.var(axis=1)
    mean *= old
    mean += (1 - old) * middle
    if config.method == "cem":  # published: variances are mixed; the others mix deviations
        std[:] = np.sqrt(old * np.square(std) + (1 - old) * variance)
    else:
        std *= old
        std += (1 - old) * np.sqrt(variance)


def _weights(costs: NDArray[np.float64], temperature: float) -> Array:
    """Softmin of costs (K,), best first; all the same where the costs are."""
    scale = temperature * (costs[-1] - costs[0])
    raw = np.exp((costs[0] - costs) / scale) if scale > 0 else np.ones_like(costs)
    weights: Array = (raw / raw.sum()).astype(np.float32)
    return weights
