"""Preferences instead of a choice."""

import gymnasium
import numpy as np
import pytest

from safetypilot.envs import registry
from safetypilot.envs.discrete import Preferences


class Echo(gymnasium.Env):
    """Tells in its info what it was told."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, space):
        self.action_space = space

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        info = {"action": action, "cost": 1.0}
        return np.zeros(1, np.float32), 0.0, False, False, info


@pytest.mark.parametrize(
    ("preferences", "choice"),
    [([0.1, 0.9, 0.3], 1), ([0, 0, 0], 0), ([0.2, 0.5, 0.5], 1), ([-3.0, -2.0, 4.0], 2)],
)
@pytest.mark.parametrize("start", [0, 5])
def test_the_largest_wins_and_the_first_of_equals(preferences, choice, start):
    env = Preferences(Echo(gymnasium.spaces.Discrete(3, start=start)))
    env.reset()
    info = env.step(np.float32(preferences))[4]
    assert info["action"] == start + choice
    assert env.env.action_space.contains(info["action"])
    assert info["cost"] == 1.0


@pytest.mark.parametrize("preferences", [[0.5, 0.5], 1, [0.1, np.nan, 0.2]])
def test_broken_preferences_are_refused(preferences):
    env = Preferences(Echo(gymnasium.spaces.Discrete(3)))
    env.reset()
    with pytest.raises(ValueError, match="3 finite preferences"):
        env.step(preferences)


def test_only_for_discrete_spaces():
    with pytest.raises(ValueError, match="for a Discrete one"):
        Preferences(Echo(gymnasium.spaces.Box(-1, 1, (2,))))


def test_a_discrete_environment_in_the_stack():
    env = registry.make_flat("CartPole-v1")
    assert env.action_space == gymnasium.spaces.Box(0.0, 1.0, (2,), np.float32)
    env.reset(seed=0)
    pushed_right, *_ = env.step([0.0, 1.0])
    assert pushed_right[1] > 0
