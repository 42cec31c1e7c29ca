"""Sampling planners that know no model: random shooting, CEM, iCEM and MPPI, within a deadline.

Letters: N candidates, H horizon in steps, A action dimension, K elites.

Candidates are kept step first, (H, N, A), so that the actions of one step lie side by side for
the model that rolls them; a cost function sees the same memory as (N, H, A).

The settings of CEM as published are those of Recovery RL (arXiv 2010.15920).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from safetypilot.policies import planning_methods
from safetypilot.policies.planning_state import Array, Pace, PlannerConfig, PlannerState

__all__ = ["Array", "Cost", "Pace", "PlanResult", "PlannerConfig", "PlannerState", "plan"]

Cost = Callable[[Array], NDArray[np.floating]]  # (N, H, A) -> (N,), NaN counts as the worst


class PlanResult(NamedTuple):
    """Always a plan. If ``cost`` is infinite (no time, or only NaN) it is the previous one."""

    plan: Array  # (H, A), inside the action box
    cost: float
    iterations: int


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
        guesses: plans that all but CEM try beside the sampled ones, (any, H, A).
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
        plans = planning_methods.draw(state, config, rng, std, iteration, guesses)
        costs = np.asarray(cost(plans.transpose(1, 0, 2)), np.float64)  # (N,)
        costs = np.where(np.isnan(costs), math.inf, costs)
        order = np.argsort(costs, kind="stable")[: config.elites]
        order = order[costs[order] < math.inf]
        if order.size:
            if costs[order[0]] < best_cost or config.answer == "last":
                best_cost = float(costs[order[0]])
                best[:] = plans[:, order[0]]
            worst = costs[order[-1]]
            state.elites = plans[:, order]  # (H, K, A), a copy
            _learn(state, std, costs[order], best, config)
        done += 1
        state.pace.add(now() - began)
        if np.all(std < config.min_std * state.width):
            break
    if not done:
        state.pace.forgive()
        state.finish.forgive()
    if config.answer == "mean" and config.method != "random" and best_cost < math.inf:
        began = now()
        final = float(cost(mean[None])[0])
        state.finish.add(now() - began)
        if final <= worst:
            return PlanResult(mean.copy(), final, done)
    mean[:] = best  # where the next call begins, once shifted
    return PlanResult(best, best_cost, done)


def _learn(
    state: PlannerState,
    std: Array,  # (H, A)
    costs: NDArray[np.float64],  # of the elites, (K,)
    best: Array,  # seen so far, (H, A)
    config: PlannerConfig,
) -> None:
    """Where to look next."""
    if config.method == "random":
        state.mean[:] = best
        return
    planning_methods.refit(state.mean, std, state.elites, costs, config)
    np.clip(state.mean, state.low, state.high, out=state.mean)  # rounding
