"""Several environments at once: no row crosses an episode, whoever resets, and however."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from vectors import Counting, Pictures, Silent

from safetypilot.policies.learn.collect import Collector, store
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.replay import Replay
from safetypilot.policies.learn.rollout import Rollout

LENGTHS = (1, 2, 5)
MODES = list(AutoresetMode)


def vector(
    mode: AutoresetMode, kind: Any = Counting, asynchronous: bool = False, **options: Any
) -> Any:
    makers = [partial(kind, who, length) for who, length in enumerate(LENGTHS)]
    made = AsyncVectorEnv if asynchronous else SyncVectorEnv
    return made(makers, autoreset_mode=mode, **options)


def act(count: int = 3) -> Any:
    return np.zeros((count, 1), np.float32)


def check(steps: Any) -> None:
    """Every valid row is of one episode, of its environment, and one step long."""
    for index in np.flatnonzero(steps.valid):
        before, after = steps.observation[index], steps.next_observation[index]
        assert before[0] == after[0] == index
        assert before[1] == after[1], "the row crosses an episode"
        assert after[2] == before[2] + 1
        episode, count = int(after[1]), int(after[2])
        assert steps.reward[index] == 100 * episode + count
        over = count == LENGTHS[index] + episode % 2
        assert bool(steps.terminated[index]) == (over and episode % 2 == 0)
        assert bool(steps.truncated[index]) == (over and episode % 2 == 1)
        assert steps.cost[index] == float(steps.terminated[index])
        assert bool(steps.success[index]) == bool(steps.truncated[index])


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_no_row_crosses_an_episode(mode: AutoresetMode, copy: bool) -> None:
    envs = vector(mode, copy=copy)
    collector, seen = Collector(envs, 0), []
    for _ in range(40):
        steps = collector.step(act())
        check(steps)
        seen.append(steps)
    for steps in seen:  # nothing is written over later
        check(steps)
    wasted = sum(int((~steps.valid).sum()) for steps in seen)
    assert (wasted > 0) == (mode is AutoresetMode.NEXT_STEP)
    last = [steps.next_observation[0, 1] for steps in seen if steps.valid[0]]
    assert last == sorted(last)
    assert last[-1] > 10  # episodes of one and two steps, by turns
    envs.close()


@pytest.mark.parametrize("mode", MODES)
def test_environments_in_processes_of_their_own(mode: AutoresetMode) -> None:
    envs = vector(mode, asynchronous=True)
    collector = Collector(envs, 0)
    for _ in range(12):
        check(collector.step(act()))
    envs.close()


@pytest.mark.parametrize("mode", MODES)
def test_what_is_stored_are_transitions(mode: AutoresetMode) -> None:
    envs = vector(mode)
    collector, replay, valid = Collector(envs, 0), Replay(100, 3, 1), 0
    for _ in range(20):
        steps = collector.step(act())
        valid += int(steps.valid.sum())
        store(replay, steps, proposed=act() + 0.5)
    rows = replay.rows()
    assert replay.size == valid
    assert (rows.observation[:, :2] == rows.next_observation[:, :2]).all()
    assert (rows.next_observation[:, 2] == rows.observation[:, 2] + 1).all()
    assert (rows.proposed == 0.5).all()
    assert (rows.executed == 0.0).all()
    assert replay.violations == int(rows.terminated.sum()) > 0
    envs.close()


def test_a_rollout_takes_the_same_steps() -> None:
    envs = vector(AutoresetMode.NEXT_STEP)
    collector = Collector(envs, 0)
    names = ("observation", "next_observation", "reward", "terminated", "truncated", "valid")
    shapes = {name: (3,) if "observation" in name else () for name in names}
    rollout = Rollout(10, 3, shapes)
    while not rollout.full:
        steps = collector.step(act())
        rollout.add(**{name: getattr(steps, name) for name in names})
    rows = rollout.rows(rollout.held("valid"))
    assert (rows["observation"][:, 1] == rows["next_observation"][:, 1]).all()
    assert len(rows["reward"]) == int(rollout.held("valid").sum()) < 30
    envs.close()


@pytest.mark.parametrize("mode", MODES)
def test_images_are_rows_of_bytes(mode: AutoresetMode) -> None:
    envs = vector(mode, Pictures)
    collector = Collector(envs, 0)
    for _ in range(10):
        steps = collector.step(act())
        assert steps.observation.dtype == steps.next_observation.dtype == np.uint8
        assert steps.next_observation.shape == (3, 12)
        rows = steps.next_observation[steps.valid], steps.observation[steps.valid]
        assert (rows[0] == rows[1] + 1).all()
    envs.close()


@pytest.mark.parametrize("mode", MODES)
def test_environments_without_costs_are_refused(mode: AutoresetMode) -> None:
    envs = vector(mode, Silent)
    collector = Collector(envs, 0)
    with pytest.raises(LearnError, match=r'environment 0 reports no info\["cost"\]'):
        for _ in range(3):
            collector.step(act())
    envs.close()


def test_one_that_is_silent_among_others_is_named() -> None:
    makers = [partial(Counting, 0, 9), partial(Silent, 1, 9)]
    envs = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(LearnError, match="environment 1 reports no"):
        Collector(envs, 0).step(act(2))
    envs.close()


def test_environments_that_do_not_say_how_they_reset_are_refused() -> None:
    envs = vector(AutoresetMode.NEXT_STEP)
    envs.metadata = {**envs.metadata, "autoreset_mode": None}
    with pytest.raises(LearnError, match=r"is None; its metadata must say one of AutoresetMode\."):
        Collector(envs, 0)
    envs.close()


def test_the_environments_of_this_project() -> None:
    from safetypilot.envs import registry

    makers = [partial(registry.make, "navigation1") for _ in range(2)]
    envs = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    collector, rng = Collector(envs, 3), np.random.default_rng(0)
    assert not np.array_equal(*collector.observation)
    for _ in range(120):
        steps = collector.step(rng.uniform(-1, 1, (2, 2)).astype(np.float32))
        assert set(steps.cost.tolist()) <= {0.0, 1.0}
    envs.close()
