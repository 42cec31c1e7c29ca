"""The demonstrator of Object Extraction and the data that it makes."""

import numpy as np
import pytest

from safetypilot.envs import extraction_names as names
from safetypilot.envs.extraction import Extraction
from safetypilot.envs.extraction_data import constraint_data, task_data
from safetypilot.envs.extraction_expert import ExtractionExpert

PUBLISHED_SHARE = {False: 363 / 20000, True: 896 / 20000}

both = pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])


def silent(done, total):
    pass


def make(recipe, dynamic, size, seed=0):
    return recipe(dynamic, size, np.random.default_rng(seed), silent)


def play(dynamic, expert, episodes, seed=0):
    """Successes without violation, and violations."""
    env = Extraction(dynamic)
    observation, _ = env.reset(seed=seed)
    successes = violations = 0
    for _ in range(episodes):
        expert.reset()
        for _ in range(names.EPISODE_STEPS):
            observation, _, terminated, _, info = env.step(expert(observation))
            if terminated:
                break
        successes += info["success"] and not info["cost"]
        violations += int(info["cost"])
        observation, _ = env.reset()
    return successes, violations


@both
def test_the_expert_succeeds(dynamic):
    successes, violations = play(dynamic, ExtractionExpert(dynamic), 8)
    assert successes >= 7
    assert violations == 0


@pytest.mark.slow
@both
@pytest.mark.parametrize("seed", [0, 1])
def test_the_expert_succeeds_in_at_least_90_of_100(dynamic, seed):
    successes, violations = play(dynamic, ExtractionExpert(dynamic), 100, seed)
    assert successes >= 90
    assert violations <= 5


def test_hurry_runs_into_the_distractor():
    _, violations = play(True, ExtractionExpert(True, hasty=True), 6)
    assert violations >= 4


def test_low_quality_goes_in_before_it_is_aligned():
    env = Extraction()
    observation, _ = env.reset(seed=0)
    box = observation[-14:-12]
    observation[0] = box[0] + 0.02
    observation[1] = box[1] + 0.05 + 0.18 - 0.2  # at the guard line
    low = ExtractionExpert(False, quality="low")(observation)
    high = ExtractionExpert(False)(observation)
    assert low[1] < -0.01
    assert high[1] == pytest.approx(0.0, abs=1e-6)


@both
def test_actions_stay_in_the_box(dynamic):
    env = Extraction(dynamic)
    expert = ExtractionExpert(dynamic, np.random.default_rng(0), noise=1.0)
    observation, _ = env.reset(seed=0)
    actions = [expert(observation) for _ in range(50)]
    assert all(env.action_space.contains(action) for action in actions)


def test_noise_may_follow_the_step_and_reset_begins_again():
    observation, _ = Extraction().reset(seed=0)
    rng = np.random.default_rng(0)
    expert = ExtractionExpert(False, rng, lambda step: 0.0 if step < 2 else 0.2)
    calm = ExtractionExpert(False)(observation)
    for _ in range(2):
        expert.reset()
        for equal in (True, True, False):
            assert np.array_equal(expert(observation), calm) == equal


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="quality is 'best'"):
        ExtractionExpert(False, quality="best")
    with pytest.raises(ValueError, match="noise needs a generator"):
        ExtractionExpert(False, noise=0.1)
    with pytest.raises(ValueError, match="size is 0"):
        make(task_data, False, 0)


@both
@pytest.mark.parametrize("recipe", [constraint_data, task_data])
def test_shapes_and_ends(dynamic, recipe):
    data = make(recipe, dynamic, 130)
    width = 33 if dynamic else 27
    assert data["observation"].shape == data["next_observation"].shape == (130, width)
    assert data["action"].shape == (130, 4)
    assert data["terminated"].dtype == data["truncated"].dtype == bool
    for field in ("observation", "action", "cost", "reward", "next_observation"):
        assert data[field].dtype == np.float32
        assert np.isfinite(data[field]).all()
    ends = data["terminated"] | data["truncated"]
    assert ends[-1]
    assert not (data["terminated"] & data["truncated"]).any()
    continued = np.flatnonzero(~ends)
    np.testing.assert_array_equal(
        data["next_observation"][continued], data["observation"][continued + 1]
    )
    np.testing.assert_array_equal(data["terminated"], (data["cost"] > 0) | (data["reward"] == 0))
    assert (np.diff(np.flatnonzero(ends)) <= names.EPISODE_STEPS).all()


@both
def test_task_data_is_exemplary(dynamic):
    data = make(task_data, dynamic, 60)
    assert data["cost"].sum() == 0
    ends = np.flatnonzero(data["terminated"] | data["truncated"])
    assert (data["reward"][ends[:-1]] == 0).all()  # the last one may be cut


def test_a_generator_fixes_the_data():
    first, again, other = (make(constraint_data, False, 60, seed) for seed in (1, 1, 2))
    for field, values in first.items():
        np.testing.assert_array_equal(values, again[field])
    assert not np.array_equal(first["observation"], other["observation"])


def test_progress_is_reported():
    calls = []
    task_data(False, 30, np.random.default_rng(0), lambda *call: calls.append(call))
    assert calls[-1] == (30, 30)
    assert len(calls) > 1


@pytest.mark.slow
@both
def test_the_share_of_violations_is_the_published_one(dynamic):
    share = make(constraint_data, dynamic, 8_000)["cost"].mean()
    assert PUBLISHED_SHARE[dynamic] / 1.5 < share < PUBLISHED_SHARE[dynamic] * 1.5
