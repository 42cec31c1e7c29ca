"""What holds for every environment of ours."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from safetypilot.envs import registry

GOALLESS = ["ant-no-bonus", "cheetah-no-flip", "hopper-no-bonus", "humanoid-no-bonus"]


@pytest.mark.filterwarnings("ignore:.*A Box observation space m.*infinity:UserWarning")
@pytest.mark.parametrize("name", registry.IDS)
def test_gymnasium_checker(name):
    env = registry.make(name)
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


def trajectory(name, seed):
    """Observations, rewards and costs of a few random steps."""
    env = registry.make_flat(name)
    env.action_space.seed(seed)
    rows = [(*env.reset(seed=seed)[0], 0.0, 0.0)]
    for _ in range(3):
        observation, reward, _, _, info = env.step(env.action_space.sample())
        rows.append((*observation, reward, info["cost"]))
    env.close()
    return np.array(rows)


@pytest.mark.parametrize("name", registry.IDS)
def test_a_seed_fixes_the_episode(name):
    np.testing.assert_array_equal(trajectory(name, 1), trajectory(name, 1))
    assert not np.array_equal(trajectory(name, 1), trajectory(name, 2))


@pytest.mark.parametrize("name", registry.IDS)
def test_every_step_says_what_it_cost(name):
    env = registry.make(name)
    _, info = env.reset(seed=0)
    assert info["cost"] == 0.0
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert env.observation_space.contains(observation)
    assert info["cost"] in (0.0, 1.0)
    assert type(info["cost"]) is float
    assert type(terminated) is type(truncated) is bool
    assert isinstance(reward, float)
    assert ("success" in info) == (name not in GOALLESS)
    env.close()


@pytest.mark.parametrize("name", [name for name in registry.IDS if "extraction" not in name])
@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_a_broken_action_is_refused(name, fault):
    env = registry.make(name).unwrapped
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape)
    action[-1] = fault
    with pytest.raises(ValueError, match="finite"):
        env.step(action)
    with pytest.raises(ValueError, match="finite"):
        env.step(np.zeros(len(action) + 1))


@pytest.mark.parametrize("name", registry.IDS)
def test_the_time_limit_is_the_published_one(name):
    limits = {"image-maze": 50, "reach": 20, "image-reach": 20, "quadruped": 400}
    limits |= {"extraction": 25, "extraction-dynamic": 25, **dict.fromkeys(GOALLESS, 1000)}
    env = registry.make(name)
    assert env.spec.max_episode_steps == limits.get(name, 100)
    env.close()


@pytest.mark.parametrize(
    "name", ["maze", "image-maze", "navigation1", "reach", "image-reach", "arm"]
)
def test_plan_views_need_no_opengl(name):
    env = registry.make(name, render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (480, 3)
    assert picture.shape[0] % 2 == 0
    assert (picture == (215, 60, 45)).all(axis=-1).sum() > 20  # the agent
    assert registry.make(name).unwrapped.render() is None
