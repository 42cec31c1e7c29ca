"""On-policy storage, and advantages by hand and against a slow reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.rollout import Rollout, advantages, batches

SHAPES = {"observation": (3,), "reward": ()}


def filled(steps, envs, count):
    rollout = Rollout(steps, envs, SHAPES)
    for step in range(count):
        reward = np.arange(envs) + 10.0 * step
        rollout.add(observation=np.repeat(reward[:, None], 3, axis=1), reward=reward)
    return rollout


def test_what_is_added_stands_where_it_was_added():
    rollout = filled(4, 2, 3)
    assert not rollout.full
    assert rollout.held("reward").tolist() == [[0, 1], [10, 11], [20, 21]]
    assert rollout.held("observation").shape == (3, 2, 3)
    rows = rollout.rows()
    assert rows["reward"].tolist() == [0, 1, 10, 11, 20, 21]
    assert rows["observation"][:, 2].tolist() == rows["reward"].tolist()


def test_steps_that_are_none_are_left_out_and_more_goes_along():
    valid = np.array([[1, 0], [1, 1], [0, 1]])
    rows = filled(3, 2, 3).rows(valid, advantage=np.arange(6.0).reshape(3, 2))
    assert rows["reward"].tolist() == [0, 10, 11, 21]
    assert rows["advantage"].tolist() == [0, 2, 3, 5]


def test_it_is_filled_once_and_cleared():
    rollout = filled(2, 2, 2)
    assert rollout.full
    with pytest.raises(LearnError, match="holds 2 steps already"):
        rollout.add(observation=np.zeros((2, 3)), reward=np.zeros(2))
    rollout.clear()
    rollout.add(observation=np.ones((2, 3)), reward=np.ones(2))
    assert rollout.held("reward").tolist() == [[1, 1]]


def test_a_step_has_exactly_its_fields():
    with pytest.raises(LearnError, match=r"\['reward'\], wanted \['observation', 'reward'\]"):
        Rollout(2, 2, SHAPES).add(reward=np.zeros(2))
    with pytest.raises(LearnError, match="wanted"):
        Rollout(2, 2, {"reward": ()}).add(reward=np.zeros(2), cost=np.zeros(2))


@given(count=st.integers(1, 30), size=st.integers(1, 40), seed=st.integers(0, 99))
def test_a_pass_sees_every_row_once(count, size, seed):
    rows = {"a": np.arange(count), "b": np.arange(count)[:, None] * 2.0}
    seen = list(batches(rows, size, np.random.default_rng(seed)))
    assert sorted(np.concatenate([batch["a"] for batch in seen]).tolist()) == list(range(count))
    assert all((batch["b"][:, 0] == 2 * batch["a"]).all() for batch in seen)
    assert all(len(batch["a"]) == size for batch in seen[:-1])


# --- advantages ---


def column(*values):
    return np.array(values, np.float64)[:, None]


def test_advantages_by_hand():
    """Three steps; the second ends an episode by the clock, the third starts another."""
    found = advantages(
        reward=column(1.0, 2.0, 3.0),
        value=column(10.0, 20.0, 30.0),
        next_value=column(20.0, 25.0, 40.0),
        terminated=column(0, 0, 0),
        truncated=column(0, 1, 0),
        gamma=0.5,
        lambda_=0.8,
    )
    second = 2.0 + 0.5 * 25.0 - 20.0  # what would have followed counts, what follows does not
    first = 1.0 + 0.5 * 20.0 - 10.0 + 0.5 * 0.8 * second
    third = 3.0 + 0.5 * 40.0 - 30.0
    assert found[:, 0].tolist() == pytest.approx([first, second, third])


def test_nothing_follows_where_the_task_ended():
    both = [
        advantages(
            *(column(1.0, 1.0), column(0.0, 0.0), column(9.0, 9.0)),
            *(column(1, 0), column(clock, 0)),
            gamma=1.0,
            lambda_=1.0,
        )[:, 0].tolist()
        for clock in (0, 1)  # that the clock ran out as well changes nothing
    ]
    assert both[0] == both[1] == [1.0, 10.0]


numbers = st.floats(-10, 10, width=32)


@settings(deadline=None)
@given(data=st.data(), gamma=st.floats(0, 1), lambda_=st.floats(0, 1))
def test_advantages_are_those_of_a_slow_reference(data, gamma, lambda_):
    count = data.draw(st.integers(1, 8))

    def draw(kind):
        return np.array(data.draw(st.lists(kind, min_size=count, max_size=count)), np.float64)

    reward, value, next_value = (draw(numbers) for _ in range(3))
    terminated, truncated = (draw(st.booleans()) for _ in range(2))
    found = advantages(
        *(each[:, None] for each in (reward, value, next_value, terminated, truncated)),
        gamma=gamma, lambda_=lambda_,
    )[:, 0]  # fmt: skip
    for start in range(count):
        wanted = 0.0
        for step in range(start, count):
            bootstrap = 0.0 if terminated[step] else gamma * next_value[step]
            surprise = reward[step] + bootstrap - value[step]
            wanted += (gamma * lambda_) ** (step - start) * surprise
            if terminated[step] or truncated[step]:
                break
        assert found[start] == pytest.approx(wanted, abs=1e-4, rel=1e-4)


@settings(deadline=None)
@given(rewards=st.lists(numbers, min_size=1, max_size=8), gamma=st.floats(0, 1))
def test_with_all_trust_in_rewards_the_value_cancels_out(rewards, gamma):
    """lambda = 1 in one episode: advantage + value is the discounted return, whatever V says."""
    count = len(rewards)
    value = np.linspace(-3, 5, count)
    ends = np.arange(count) == count - 1
    found = advantages(
        *(np.array(rewards)[:, None], value[:, None], np.append(value[1:], 7.0)[:, None]),
        *(ends[:, None], np.zeros((count, 1))),
        gamma=gamma,
        lambda_=1.0,
    )
    returns = sum(reward * gamma**step for step, reward in enumerate(rewards))
    assert found[0, 0] + value[0] == pytest.approx(returns, abs=1e-3)


def test_environments_are_apart():
    rng = np.random.default_rng(0)
    arrays = [rng.random((6, 3)) for _ in range(3)] + [rng.random((6, 3)) < 0.3 for _ in range(2)]
    together = advantages(*arrays, gamma=0.9, lambda_=0.7)
    for env in range(3):
        alone = advantages(*(each[:, env : env + 1] for each in arrays), gamma=0.9, lambda_=0.7)
        assert np.array_equal(together[:, env : env + 1], alone)
