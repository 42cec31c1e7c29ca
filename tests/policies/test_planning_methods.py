"""What is peculiar to each way of searching, and what holds for all in any box."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from safetypilot.policies import planning
from safetypilot.policies.planning import PlannerConfig, PlannerState
from safetypilot.policies.planning_state import METHODS

Array = NDArray[np.float32]

LOW = np.array([-1.0, -2.0], np.float32)
HIGH = np.array([1.0, 0.5], np.float32)
SMALL = PlannerConfig(horizon=3, population=60, elites=6, max_iterations=6)
RANDOM = replace(SMALL, method="random", population=500)
VISUAL = PlannerConfig.published_visual(3)


class Seen:
    """A cost that remembers what it was asked."""

    def __init__(self, cost: planning.Cost) -> None:
        self.cost = cost
        self.plans: list[Array] = []
        self.costs: list[NDArray[np.floating]] = []

    def __call__(self, plans: Array) -> NDArray[np.floating]:
        self.plans.append(plans.copy())
        self.costs.append(np.asarray(self.cost(plans)))
        return self.costs[-1]


def distance_to(target: Array | float) -> planning.Cost:
    return lambda plans: np.square(plans - target).sum(axis=(1, 2))


def nothing(plans: Array) -> NDArray[np.floating]:
    return np.zeros(len(plans))


def search(config: PlannerConfig, cost: planning.Cost, seed: int = 0) -> planning.PlanResult:
    state = PlannerState(config, LOW, HIGH)
    return planning.plan(cost, state, config, np.random.default_rng(seed))


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    answer=st.sampled_from(["best", "mean", "last"]),
    middle=st.floats(-100, 100),
    width=st.floats(1e-4, 100),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 20), st.integers(1, 3)),
    visual=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_candidate_and_answer_is_inside_the_box_and_the_budget_is_kept(
    method, answer, middle, width, sizes, visual, seed
) -> None:
    horizon, population, iterations = sizes
    config = PlannerConfig(method, horizon, population, -(-population // 3), iterations)
    config = replace(config, answer=answer, truncate=0.0 if visual else 2.0, uniform_first=visual)
    low = np.array([middle - width / 2, -1.0], np.float32)
    high = np.array([middle + width / 2, 1.0], np.float32)
    rng = np.random.default_rng(seed)
    cost = Seen(lambda plans: rng.choice([np.nan, np.inf, -1.0, 2.0], len(plans)))
    state = PlannerState(config, low, high)
    for _ in range(2):
        guesses = np.tile(high, (2, horizon, 1))
        found = planning.plan(cost, state, config, np.random.default_rng(seed), guesses=guesses)
        for plans in (*cost.plans, found.plan[None], state.mean[None]):
            assert np.isfinite(plans).all() and (plans >= low).all() and (plans <= high).all()
        asked = sum(map(len, cost.plans))
        last = 1 if answer == "mean" and method != "random" else 0
        assert asked <= population * iterations + last
        assert found.iterations == iterations and not math.isnan(found.cost)
        cost.plans.clear()
        state.shift(1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_plan_scales_with_the_box_and_with_the_cost(method, scale) -> None:
    config = replace(SMALL, method=method, min_std=0.03, max_iterations=30)
    target = np.full((3, 2), -0.3, np.float32)
    plain = search(config, distance_to(target))
    state = PlannerState(config, scale * LOW, scale * HIGH)
    scaled = planning.plan(distance_to(scale * target), state, config, np.random.default_rng(0))
    assert scaled.iterations == plain.iterations
    np.testing.assert_allclose(scaled.plan / scale, plain.plan, atol=2e-3)


def test_random_shooting_covers_the_box_and_keeps_the_best() -> None:
    seen = Seen(distance_to(0.25))
    found = search(RANDOM, seen)
    every = np.concatenate(seen.plans)
    assert len(every) == 500 * 6
    np.testing.assert_allclose(every.min(axis=(0, 1)), LOW, atol=0.01)
    np.testing.assert_allclose(every.max(axis=(0, 1)), HIGH, atol=0.01)
    np.testing.assert_allclose(every.mean(axis=(0, 1)), (LOW + HIGH) / 2, atol=0.05)
    assert found.cost == np.concatenate(seen.costs).min()
    lonely = replace(RANDOM, max_iterations=1, population=20, elites=1)
    assert found.cost < search(lonely, distance_to(0.25)).cost / 2


def test_random_shooting_starts_warm() -> None:
    state = PlannerState(RANDOM, LOW, HIGH)
    first = planning.plan(distance_to(0.25), state, RANDOM, np.random.default_rng(0))
    one = replace(RANDOM, max_iterations=1)
    again = planning.plan(distance_to(0.25), state, one, np.random.default_rng(1))
    assert again.cost <= first.cost


@pytest.mark.parametrize("temperature, share", [(1e-3, 1.0), (0.5, 0.4), (1e6, 0.1)])
def test_mppi_weighs_its_elites_by_cost(temperature: float, share: float) -> None:
    config = replace(SMALL, method="mppi", population=10, elites=10, max_iterations=1)
    config = replace(config, temperature=temperature, smoothing=0.0, answer="mean")
    costs = np.arange(10.0)
    seen = Seen(lambda plans: costs if len(plans) == 10 else -np.ones(1))
    plans = search(config, seen).plan
    weights = np.exp(-costs / (9 * temperature))
    weights /= weights.sum()
    assert weights[0] == pytest.approx(share, abs=0.25)
    np.testing.assert_allclose(plans, np.tensordot(weights, seen.plans[0], 1), atol=1e-5)


def test_mppi_with_costs_all_alike_averages() -> None:
    config = replace(SMALL, method="mppi", max_iterations=1, elites=60, smoothing=0.0)
    seen = Seen(nothing)
    found = search(config, seen)
    np.testing.assert_allclose(found.plan, seen.plans[0].mean(axis=0), atol=1e-5)


def test_mppi_tries_guesses_and_the_previous_mean() -> None:
    config = replace(SMALL, method="mppi", answer="best", max_iterations=2)
    state = PlannerState(config, LOW, HIGH)
    state.mean[:] = 0.11
    guess = np.full((1, 3, 2), 0.37, np.float32)
    seen = Seen(distance_to(0.37))
    found = planning.plan(seen, state, config, np.random.default_rng(0), guesses=guess)
    assert found.cost == 0.0
    np.testing.assert_array_equal(seen.plans[0][0], np.full((3, 2), 0.11, np.float32))
    assert not (seen.plans[1] == guess).all(axis=(1, 2)).any()


def test_the_visual_cem_starts_uniform_then_refits_plainly() -> None:
    seen = Seen(distance_to(0.25))
    found = search(VISUAL, seen)
    assert [len(plans) for plans in seen.plans] == [400] * 10
    first = seen.plans[0]
    np.testing.assert_allclose(first.mean(axis=(0, 1)), (LOW + HIGH) / 2, atol=0.06)
    np.testing.assert_allclose(first.std(axis=(0, 1)), (HIGH - LOW) / math.sqrt(12), rtol=0.05)
    elites = first[np.argsort(seen.costs[0])[:10]]
    np.testing.assert_allclose(seen.plans[1].mean(axis=0), elites.mean(axis=0), atol=0.1)
    np.testing.assert_allclose(seen.plans[1].std(axis=0), elites.std(axis=0), rtol=0.25)
    np.testing.assert_allclose(found.plan, np.full((3, 2), 0.25), atol=0.05)


def test_last_answers_from_the_last_population_best_from_all() -> None:
    worse_and_worse = iter(range(100))

    def cost(plans: Array) -> NDArray[np.floating]:
        return next(worse_and_worse) + np.linspace(0.5, 0, len(plans))

    seen = Seen(cost)
    found = search(VISUAL, seen)
    np.testing.assert_array_equal(found.plan, seen.plans[-1][-1])
    assert found.cost == 9.0
    worse_and_worse = iter(range(100))
    best = Seen(cost)
    found = search(replace(VISUAL, answer="best"), best)
    np.testing.assert_array_equal(found.plan, best.plans[0][-1])
    assert found.cost == 0.0


def test_the_published_cem_is_a_matter_of_settings() -> None:
    config = PlannerConfig.published(5)
    assert (config.method, config.population, config.elites) == ("cem", 400, 40)
    assert (config.max_iterations, config.smoothing, config.truncate) == (5, 0.1, 2.0)
    width = HIGH - LOW
    assert (config.initial_std * width) ** 2 == pytest.approx(width**2 / 16)
    assert (2 * config.min_std) ** 2 == pytest.approx(0.001)  # on [-1, 1]
    state = PlannerState(config, LOW, HIGH)
    seen = Seen(distance_to(0.2))
    planning.plan(seen, state, replace(config, max_iterations=2), np.random.default_rng(0))
    elites = seen.plans[0][np.argsort(seen.costs[0], kind="stable")[:40]]
    mean = 0.1 * (LOW + HIGH) / 2 + 0.9 * elites.mean(axis=0)
    variance = 0.1 * width**2 / 16 + 0.9 * elites.var(axis=0)
    second = seen.plans[1]
    room = np.minimum(mean - LOW, HIGH - mean)
    reach = np.minimum(2 * np.sqrt(variance), room)  # two deviations, none above half the room
    assert (np.abs(second - mean) <= reach + 1e-5).all()
    assert (np.abs(second - mean).max(axis=0) > 0.9 * reach).all()
