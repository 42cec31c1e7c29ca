"""The replay buffer against a list that remembers everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledge import step

from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.replay import Replay, Transition


def filled(capacity, count, costly=()):
    replay = Replay(capacity, 2, 2)
    for index in range(count):
        replay.add(step(cost=float(index in costly), reward=float(index)))
    return replay


def test_fields_are_kept_apart_and_the_oldest_make_room():
    replay = filled(5, 8, costly=(1, 6))
    rows = replay.rows()
    assert sorted(rows.reward.tolist()) == [3, 4, 5, 6, 7]
    assert rows.proposed[0].tolist() == [0.5, 0.5]
    assert rows.executed[0].tolist() == [-0.5, 0.0]
    assert replay.violations == 1
    assert int(rows.terminated.sum()) == 1
    assert not rows.truncated.any()


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
def test_a_stratified_batch_has_exactly_its_share_of_violations(fraction):
    replay = filled(1000, 1000, costly=(3, 500))
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = replay.sample(rng, 100, fraction)
        assert int((rows.cost > 0).sum()) == int(100 * fraction)
    assert int((replay.sample(rng, 2000).cost > 0).sum()) < 20


def test_stratifying_without_violations_or_without_anything_else():
    rng = np.random.default_rng(0)
    assert filled(10, 10).sample(rng, 8, 0.5).cost.shape == (1, 8)
    assert filled(3, 3, costly=(0, 1, 2)).sample(rng, 8, 0.5).cost.shape == (1, 8)
    with pytest.raises(LearnError, match="empty"):
        Replay(3, 2, 2).sample(rng, 1)


def test_a_seed_that_has_nothing_keeps_the_others_waiting():
    replay = Replay(3, 2, 2, seeds=2)
    replay.add(step(cost=1.0), 1)
    assert replay.size == replay.violations == 0
    with pytest.raises(LearnError, match="empty"):
        replay.sample(np.random.default_rng(0), 1)


def test_save_and_restore_continue_the_same_samples():
    for count in (7, 13):
        replay = filled(10, count, costly=(2, 5, 11))
        other = Replay(10, 2, 2)
        other.restore(replay.state())
        for one in (replay, other):
            one.add(step(cost=1.0, reward=99.0))
        first = replay.sample(np.random.default_rng(1), 50, 0.4)
        second = other.sample(np.random.default_rng(1), 50, 0.4)
        for a, b in zip(first, second, strict=True):
            assert np.array_equal(a, b)


def test_what_does_not_fit_is_not_restored():
    state = filled(10, 10).state()
    with pytest.raises(LearnError, match="10 transitions do not fit a replay buffer of 3"):
        Replay(3, 2, 2).restore(state)
    with pytest.raises(LearnError, match="has 1 seeds, this run 2"):
        Replay(10, 2, 2, seeds=2).restore(state)
    with pytest.raises(LearnError, match=r"columns, not \d+; the checkpoint is of another env"):
        Replay(10, 3, 2).restore(state)
    with pytest.raises(LearnError, match="of another environment"):
        Replay(10, 2, 2, pixels=True).restore(state)


def test_pixels_are_kept_in_bytes_and_come_out_as_they_were():
    replay = Replay(50, 300, 2, pixels=True)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 60, 300)).astype(np.float32)
    for index, (before, after) in enumerate(zip(*images, strict=True)):
        reward = float(index)
        replay.add(step(observation=before, next_observation=after, reward=reward))
    assert sum(array.nbytes for array in replay.state().values()) < 50 * (2 * 300 + 100)
    rows = replay.sample(rng, 200)
    assert rows.observation.dtype == rows.next_observation.dtype == np.uint8
    which = rows.reward[0].astype(int)
    assert which.min() >= 10
    assert np.array_equal(rows.observation[0], images[0, which])
    assert np.array_equal(rows.next_observation[0], images[1, which])
    other = Replay(50, 300, 2, pixels=True)
    other.restore(replay.state())
    assert np.array_equal(other.rows().observation, replay.rows().observation)


# --- against a list that remembers everything ---

added = st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=40)


def kept(history, seed, capacity):
    """What a seed's buffer should hold: the newest rewards, and which of them cost."""
    mine = [(float(index), costs) for index, (who, costs) in enumerate(history) if who == seed]
    return mine[-capacity:]


def replayed(history, capacity):
    replay = Replay(capacity, 2, 2, seeds=3)
    for index, (seed, costs) in enumerate(history):
        replay.add(step(cost=float(costs), reward=float(index)), seed)
    return replay


@settings(deadline=None)
@given(history=added, capacity=st.integers(1, 12))
def test_each_seed_has_its_own_newest_transitions(history, capacity):
    replay = replayed(history, capacity)
    wanted = [kept(history, seed, capacity) for seed in range(3)]
    for seed in range(3):
        rows = replay.rows(seed)
        assert sorted(rows.reward.tolist()) == [reward for reward, _ in wanted[seed]]
        assert rows.cost.sum() == sum(costs for _, costs in wanted[seed])
    assert replay.size == min(map(len, wanted))
    assert replay.violations == min(sum(costs for _, costs in mine) for mine in wanted)


@settings(deadline=None)
@given(
    history=added, capacity=st.integers(1, 12), fraction=st.floats(0.0, 0.9), chance=st.integers(0)
)
def test_a_batch_is_of_each_seeds_own_rows_and_stratified(history, capacity, fraction, chance):
    replay = replayed(history, capacity)
    wanted = [dict(kept(history, seed, capacity)) for seed in range(3)]
    if not all(wanted):
        return
    rows = replay.sample(np.random.default_rng(chance), 20, fraction)
    assert rows.observation.shape == (3, 20, 2)
    for seed, mine in enumerate(wanted):
        rewards, costs = rows.reward[seed].tolist(), rows.cost[seed] > 0
        assert [mine[reward] for reward in rewards] == costs.tolist()
        if fraction > 0 and len(set(mine.values())) == 2:
            assert costs.sum() == int(20 * fraction)


@settings(deadline=None)
@given(history=added, more=added, capacity=st.integers(1, 12), chance=st.integers(0))
def test_a_restored_buffer_goes_on_as_the_old_one(history, more, capacity, chance):
    replay = replayed(history, capacity)
    other = Replay(capacity, 2, 2, seeds=3)
    other.restore(replay.state())
    for index, (seed, costs) in enumerate(more):
        for one in (replay, other):
            one.add(step(cost=float(costs), reward=1000.0 + index), seed)
    assert replay.violations == other.violations
    if replay.size:
        first, second = (r.sample(np.random.default_rng(chance), 9, 0.5) for r in (replay, other))
        assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_extend_is_many_times_add():
    one, many = Replay(4, 2, 2), Replay(4, 2, 2)
    steps = [step(reward=float(i), cost=float(i == 5)) for i in range(7)]
    for each in steps:
        one.add(each)
    many.extend(Transition(*(np.array(column) for column in zip(*steps, strict=True))))
    assert all(np.array_equal(one.state()[key], many.state()[key]) for key in one.state())
