"""The planners on functions whose minimum is known, in real, fake and frozen time."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from safetypilot.policies import planning
from safetypilot.policies.planning import PlannerConfig, PlannerState

Array = NDArray[np.float32]

LOW = np.array([-1.0, -2.0], np.float32)
HIGH = np.array([1.0, 0.5], np.float32)
WIDE = PlannerConfig(horizon=4, population=200, max_iterations=12, initial_std=0.5, colour=0.5)
CEM = replace(WIDE, method="cem", elites=20)
ICEM = replace(WIDE, population=100, elites=8, max_iterations=10, answer="best")
MPPI = replace(WIDE, method="mppi", population=150, elites=20)
EACH = pytest.mark.parametrize("config", [CEM, ICEM, MPPI], ids=["cem", "icem", "mppi"])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def distance_to(target: Array) -> planning.Cost:
    return lambda plans: np.square(plans - target).sum(axis=(1, 2))


def search(config: PlannerConfig, cost: planning.Cost, seed: int = 0) -> planning.PlanResult:
    return planning.plan(cost, PlannerState(config, LOW, HIGH), config, rng(seed))


class FakeClock:
    """Time passes only where a cost says so."""

    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now

    def slow(self, cost: planning.Cost, *durations: int) -> Callable[[Array], NDArray[np.floating]]:
        """The same cost, taking the given times, the last of them for ever."""
        left = list(durations)

        def wrapped(plans: Array) -> NDArray[np.floating]:
            self.now += left.pop(0) if len(left) > 1 else left[0]
            return cost(plans)

        return wrapped


@EACH
def test_finds_a_minimum_inside_the_box(config: PlannerConfig) -> None:
    target = rng(1).uniform(0.8 * LOW, 0.8 * HIGH, (4, 2)).astype(np.float32)
    found = search(config, distance_to(target))
    assert found.iterations == config.max_iterations
    np.testing.assert_allclose(found.plan, target, atol=0.1)
    assert found.cost == pytest.approx(float(distance_to(target)(found.plan[None])[0]), abs=1e-6)


@EACH
def test_finds_a_minimum_in_a_corner_and_stays_in_the_box(config: PlannerConfig) -> None:
    corner = np.tile(np.array([5.0, -5.0], np.float32), (4, 1))
    seen: list[Array] = []

    def cost(plans: Array) -> NDArray[np.floating]:
        seen.append(plans.copy())
        return distance_to(corner)(plans)

    found = search(config, cost)
    np.testing.assert_allclose(found.plan, np.tile([1.0, -2.0], (4, 1)), atol=0.25)
    every = np.concatenate([*seen, found.plan[None]])
    assert (every >= LOW).all() and (every <= HIGH).all()


def test_cem_draws_within_two_deviations_and_half_the_room() -> None:
    config = replace(CEM, initial_std=0.1, max_iterations=1, answer="best")
    state = PlannerState(config, LOW, HIGH)
    seen: list[Array] = []

    def cost(plans: Array) -> NDArray[np.floating]:
        seen.append(plans.copy())
        return np.zeros(len(plans))

    planning.plan(cost, state, config, rng())
    offset = np.abs(seen[0] - state.middle) / state.width
    assert offset.max() <= 0.2 + 1e-6  # two deviations of 0.1
    assert offset.max() > 0.15
    state.mean[:] = HIGH  # no room above, so none on either side
    planning.plan(cost, state, config, rng())
    np.testing.assert_array_equal(seen[1], np.broadcast_to(HIGH, seen[1].shape))


def test_the_early_stop_is_a_part_of_the_box_not_absolute() -> None:
    counts = []
    for scale in (1.0, 0.001, 1000.0):
        config = replace(PlannerConfig.published(4), max_iterations=50)
        state = PlannerState(config, scale * LOW, scale * HIGH)
        target = np.zeros((4, 2), np.float32)
        counts.append(planning.plan(distance_to(target), state, config, rng()).iterations)
    assert counts[0] == counts[1] == counts[2]
    assert 1 < counts[0] < 50


@pytest.mark.parametrize("colour", [0.0, 1.0, 3.0])
def test_colour_keeps_the_variance_and_ties_neighbouring_steps(colour: float) -> None:
    config = replace(ICEM, horizon=16, population=4000, colour=colour, max_iterations=1)
    config = replace(config, initial_std=0.02)  # nothing is clipped
    state = PlannerState(config, LOW, HIGH)
    seen: list[Array] = []

    def cost(plans: Array) -> NDArray[np.floating]:
        seen.append(plans.copy())
        return np.zeros(len(plans))

    planning.plan(cost, state, config, rng())
    noise = (seen[0] - state.middle) / state.width / 0.02  # (N, H, A)
    np.testing.assert_allclose(noise.std(axis=0), 1.0, atol=0.06)
    neighbours = float(np.mean(noise[:, 1:] * noise[:, :-1]))
    low, high = {0.0: (-0.05, 0.05), 1.0: (0.3, 0.7), 3.0: (0.85, 0.99)}[colour]
    assert low < neighbours < high


def test_icem_shrinks_its_population_but_not_below_two_sets_of_elites() -> None:
    config = replace(ICEM, population=60, elites=10, decay=1.5, max_iterations=6)
    sizes: list[int] = []

    def cost(plans: Array) -> NDArray[np.floating]:
        sizes.append(len(plans))
        values: NDArray[np.floating] = plans.sum(axis=(1, 2))
        return values

    search(config, cost)
    assert sizes == [60, 40, 26, 20, 20, 20]


def test_the_mean_is_the_answer_unless_it_is_worse_than_its_elites() -> None:
    mean = replace(ICEM, answer="mean")
    target = np.full((4, 2), -0.5, np.float32)
    found = search(mean, distance_to(target))
    state = PlannerState(mean, LOW, HIGH)
    again = planning.plan(distance_to(target), state, mean, rng())
    np.testing.assert_array_equal(again.plan, state.mean)
    assert found.cost == pytest.approx(float(distance_to(target)(found.plan[None])[0]))

    def two_ways_round(plans: Array) -> NDArray[np.floating]:
        values: NDArray[np.floating] = 1 - np.abs(plans[:, :, 0]).min(axis=1)
        return values

    both = replace(mean, max_iterations=1, elites=50, initial_std=0.5, colour=3.0)
    assert search(both, two_ways_round).cost < 0.2


def test_icem_never_loses_the_best_and_tries_guesses_first() -> None:
    guess = rng(3).uniform(LOW, HIGH, (1, 4, 2)).astype(np.float32)
    state = PlannerState(ICEM, LOW, HIGH)
    bests: list[float] = []

    def cost(plans: Array) -> NDArray[np.floating]:
        values: NDArray[np.floating] = np.abs(plans - guess).max(axis=(1, 2))
        bests.append(float(values.min()))
        return values

    found = planning.plan(cost, state, ICEM, rng(), guesses=guess)
    assert bests == [0.0] * 10 and found.cost == 0.0
    np.testing.assert_array_equal(found.plan, guess[0])


@EACH
def test_the_same_seed_gives_the_same_plan_and_another_another(config: PlannerConfig) -> None:
    cost = distance_to(np.full((4, 2), 0.3, np.float32))
    first, again, other = (search(config, cost, seed).plan for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@EACH
def test_nan_is_the_worst_cost(config: PlannerConfig) -> None:
    target = np.full((4, 2), -0.5, np.float32)

    def cost(plans: Array) -> NDArray[np.floating]:
        values = distance_to(target)(plans)
        values[plans[:, 0, 0] > 0] = np.nan
        values[1::7] = np.inf
        return values

    found = search(config, cost)
    assert math.isfinite(found.cost) and found.plan[0, 0] <= 0
    np.testing.assert_allclose(found.plan, target, atol=0.2)


@EACH
def test_nothing_but_nan_answers_with_the_previous_plan(config: PlannerConfig) -> None:
    state = PlannerState(config, LOW, HIGH)
    planning.plan(distance_to(np.full((4, 2), 0.3, np.float32)), state, config, rng())
    before = state.mean.copy()
    found = planning.plan(lambda plans: np.full(len(plans), np.nan), state, config, rng())
    assert found.cost == math.inf and found.iterations == config.max_iterations
    np.testing.assert_array_equal(found.plan, before)


@EACH
@pytest.mark.parametrize("budget", [0, 5, 10, 19, 25, 99, 1_000])
def test_never_overruns_once_an_iteration_was_measured(config: PlannerConfig, budget: int) -> None:
    clock = FakeClock()
    cost = clock.slow(distance_to(np.zeros((4, 2), np.float32)), 10)
    state = PlannerState(config, LOW, HIGH)
    planning.plan(cost, state, replace(config, max_iterations=1), rng(), clock=clock)
    deadline = clock.now + budget
    found = planning.plan(cost, state, config, rng(), clock=clock, deadline_ns=deadline)
    last = 1 if config.answer == "mean" else 0
    assert clock.now <= deadline
    assert found.iterations == max(0, min(budget // 10 - last, config.max_iterations))
    assert math.isfinite(found.cost) == (found.iterations > 0)
    assert found.plan.shape == (4, 2)


def test_more_time_never_gives_a_worse_plan() -> None:
    costs = []
    for budget in range(0, 110, 10):
        clock = FakeClock()
        cost = clock.slow(distance_to(np.full((4, 2), 0.3, np.float32)), 10)
        state = PlannerState(ICEM, LOW, HIGH)
        state.pace.add(10)
        deadline = clock.now + budget
        found = planning.plan(cost, state, ICEM, rng(), clock=clock, deadline_ns=deadline)
        costs.append(found.cost)
    assert costs[0] == math.inf
    assert costs == sorted(costs, reverse=True) and costs[-1] < costs[1] / 10


def test_one_hiccup_costs_no_later_plan_and_a_slower_machine_is_noticed() -> None:
    clock = FakeClock()
    state = PlannerState(ICEM, LOW, HIGH)
    base = distance_to(np.zeros((4, 2), np.float32))

    def fly(cost: planning.Cost) -> int:
        deadline = clock.now + 35
        return planning.plan(cost, state, ICEM, rng(), clock=clock, deadline_ns=deadline).iterations

    assert [fly(clock.slow(base, 10)) for _ in range(4)] == [3, 3, 3, 3]
    assert fly(clock.slow(base, 10, 500, 10)) == 2
    assert fly(clock.slow(base, 10)) == 3
    slower = clock.slow(base, 30)
    assert [fly(slower) for _ in range(6)][-2:] == [1, 1]


def test_recovers_from_believing_that_nothing_fits() -> None:
    clock = FakeClock()
    state = PlannerState(ICEM, LOW, HIGH)
    for _ in range(16):
        state.pace.add(1_000_000)
    cost = clock.slow(distance_to(np.zeros((4, 2), np.float32)), 10)
    tried = []
    for _ in range(20):
        deadline = clock.now + 100
        found = planning.plan(cost, state, ICEM, rng(), clock=clock, deadline_ns=deadline)
        tried.append(found.iterations)
    assert tried[0] == 0 and tried[-1] > 5


@EACH
def test_a_frozen_clock_runs_every_iteration(config: PlannerConfig) -> None:
    cost = distance_to(np.full((4, 2), 0.3, np.float32))
    state = PlannerState(config, LOW, HIGH)
    found = planning.plan(cost, state, config, rng(), clock=lambda: 7, deadline_ns=7)
    assert found.iterations == config.max_iterations
    np.testing.assert_array_equal(found.plan, search(config, cost).plan)


def test_shift_moves_the_plan_by_the_steps_elapsed() -> None:
    state = PlannerState(ICEM, LOW, HIGH)
    mean = rng().uniform(LOW, HIGH, (4, 2)).astype(np.float32)
    elites = rng().uniform(LOW, HIGH, (4, 3, 2)).astype(np.float32)
    for steps in range(4):
        state.mean[:], state.elites = mean, elites.copy()
        state.shift(steps)
        np.testing.assert_array_equal(state.mean[: 4 - steps], mean[steps:])
        np.testing.assert_array_equal(state.elites[: 4 - steps], elites[steps:])
        for step in range(4 - steps, 4):
            np.testing.assert_array_equal(state.mean[step], state.middle)
            np.testing.assert_array_equal(state.elites[step], elites[-1])


@pytest.mark.parametrize("steps", [4, 400, -1])
def test_shift_beyond_the_horizon_or_back_in_time_forgets(steps: int) -> None:
    state = PlannerState(ICEM, LOW, HIGH)
    planning.plan(distance_to(np.full((4, 2), 0.4, np.float32)), state, ICEM, rng())
    state.shift(steps)
    np.testing.assert_array_equal(state.mean, np.broadcast_to(state.middle, (4, 2)))
    assert state.elites.shape[1] == 0


@EACH
def test_a_warm_start_begins_where_the_last_plan_ended(config: PlannerConfig) -> None:
    target = np.full((4, 2), 0.4, np.float32)
    state = PlannerState(config, LOW, HIGH)
    planning.plan(distance_to(target), state, config, rng())
    one = replace(config, max_iterations=1)
    warm = planning.plan(distance_to(target), state, one, rng(1))
    cold = search(one, distance_to(target), 1)
    assert warm.cost < cold.cost / 3


def test_one_step_and_one_candidate_are_enough() -> None:
    config = PlannerConfig(horizon=1, population=1, elites=1, max_iterations=2)
    found = search(config, distance_to(np.zeros((1, 2), np.float32)))
    assert found.plan.shape == (1, 2) and math.isfinite(found.cost)


@pytest.mark.parametrize(
    "wrong",
    [
        {"horizon": 0},
        {"elites": 0},
        {"elites": 500},
        {"max_iterations": 0},
        {"smoothing": 1.0},
        {"initial_std": 0.0},
        {"decay": 0.5},
        {"kept": 1.5},
        {"truncate": -1.0},
        {"temperature": 0.0},
        {"method": "gradient"},
        {"answer": "worst"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_settings_that_cannot_plan_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(ICEM, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("high", [[1.0], [np.inf, 1.0], [-2.0, 1.0]], ids=["size", "inf", "below"])
def test_what_is_no_action_box_is_refused(high: list[float]) -> None:
    with pytest.raises(ValueError, match="box"):
        PlannerState(ICEM, LOW, np.array(high, np.float32))
