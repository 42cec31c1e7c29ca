"""A control step in parts gives, with the action held, what the whole one gives: bit by bit."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv

from safetypilot.envs import registry
from safetypilot.envs.substeps import SplitStep

Steps = list[tuple[Any, float, bool, bool, dict[str, Any]]]


def fly(env: Any, step: Any, seed: int, count: int = 12) -> Steps:
    """Random actions from one start, over the end of episodes."""
    actions = np.random.default_rng(seed)
    env.reset(seed=seed)
    results: Steps = []
    for _ in range(count):
        low, high = env.action_space.low, env.action_space.high
        results.append(step(actions.uniform(low, high).astype(np.float32)))
        if results[-1][2] or results[-1][3]:
            env.reset()
    return results


def in_parts(split: SplitStep, parts: int) -> Any:
    def step(action: Any) -> Any:
        for _ in range(parts - 1):
            split.advance(action)
        return split.step(action)

    return step


@pytest.mark.parametrize(
    ("name", "parts", "count"),
    [
        ("maze", 10, 30),
        ("maze", 500, 3),
        ("image-maze", 5, 4),
        ("hopper-no-bonus", 4, 60),
        ("cheetah-no-flip", 5, 20),
        ("ant-no-bonus", 5, 20),
        ("humanoid-no-bonus", 5, 30),
        ("Reacher-v5", 2, 60),
        ("InvertedPendulum-v5", 2, 60),
    ],
)
def test_with_the_action_held_the_parts_are_the_whole(name: str, parts: int, count: int) -> None:
    whole, divided = registry.make_flat(name), registry.make_flat(name)
    split = SplitStep(divided, parts)
    expected = fly(whole, whole.step, 3, count)
    found = fly(divided, in_parts(split, parts), 3, count)
    for one, other in zip(expected, found, strict=True):
        assert np.array_equal(one[0], other[0])
        assert one[1:4] == other[1:4]
        assert one[4].keys() == other[4].keys()
        for key in one[4]:
            assert np.array_equal(one[4][key], other[4][key]), key
    whole.close()
    divided.close()


@pytest.mark.parametrize("name", ["maze", "hopper-no-bonus"])
def test_the_state_moves_with_every_part_and_each_may_have_an_action_of_its_own(name: str) -> None:
    env = registry.make_flat(name)
    split = SplitStep(env, 4)
    before, _ = env.reset(seed=1)
    action = np.full(env.action_space.shape, 0.1, np.float32)
    seen = [before, split.advance(action), split.advance(action), split.advance(-action)]
    last = split.step(action)
    seen.append(last[0])
    for one, other in pairwise(seen):
        assert other.dtype == np.float32 and other.shape == before.shape
        assert not np.array_equal(one, other)
    held = registry.make_flat(name)
    held.reset(seed=1)
    assert not np.array_equal(held.step(action)[0], last[0])
    env.close()
    held.close()


@pytest.mark.parametrize("name", ["maze", "hopper-no-bonus"])
def test_a_reset_in_the_middle_of_a_control_step_begins_a_new_one(name: str) -> None:
    env, fresh = registry.make_flat(name), registry.make_flat(name)
    split = SplitStep(env, 2)
    action = np.full(env.action_space.shape, 0.1, np.float32)
    env.reset(seed=1)
    split.advance(action)
    env.reset(seed=2)
    fresh.reset(seed=2)
    assert np.array_equal(in_parts(split, 2)(action)[0], fresh.step(action)[0])
    env.close()
    fresh.close()


def test_the_time_limit_counts_control_steps() -> None:
    env = registry.make_flat("maze")
    env.reset(seed=0, options={"position": (-0.25, 0.2)})
    step = in_parts(SplitStep(env, 5), 5)
    still = np.zeros(2, np.float32)
    limit = registry.TASKS[registry.resolve("maze")].episode_steps
    ends = [step(still)[3] for _ in range(limit)]
    assert ends == [False] * (limit - 1) + [True]
    env.close()


def test_a_number_of_parts_that_does_not_divide_the_physics_is_refused_with_those_that_do() -> None:
    with pytest.raises(ValueError, match=r"4 physics steps.* in 3 equal parts; it can in 1, 2, 4"):
        SplitStep(registry.make_flat("hopper-no-bonus"), 3)
    with pytest.raises(ValueError, match=r"500 physics steps.*1, 2, 4, 5, .*, \.\.\., 500"):
        SplitStep(registry.make_flat("maze"), 7)
    with pytest.raises(ValueError, match="in 0 equal parts"):
        SplitStep(registry.make_flat("maze"), 0)


class Foreign(HopperEnv):  # type: ignore[misc]
    """Somebody's own: what it does to its actions cannot be known."""


def test_an_environment_whose_physics_is_out_of_reach_is_refused() -> None:
    for env in (registry.make_flat("navigation1"), registry.make_flat("CartPole-v1"), Foreign()):
        with pytest.raises(ValueError, match=r"cannot be divided.*without control_rate"):
            SplitStep(env, 2)
        env.close()
