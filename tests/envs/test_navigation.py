"""Navigation 1 and 2: dynamics, obstacles, and success judged after the step."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from safetypilot.envs import geometry, registry
from safetypilot.envs.navigation import Navigation

STILL = np.zeros(2, dtype=np.float32)


def cost_at(env, x, y):
    _, info = env.reset(seed=0, options={"position": (x, y)})
    return info["cost"]


@pytest.mark.filterwarnings("ignore:.*A Box observation space m.*infinity:UserWarning")
@pytest.mark.parametrize("name", ["navigation1", "navigation2"])
def test_gymnasium_checker(name):
    check_env(registry.make(name).unwrapped, skip_render_check=True)


@pytest.mark.parametrize(
    ("variant", "x", "y", "cost"),
    [
        (1, -50.0, 4.99, 0.0),
        (1, -50.0, 5.0, 1.0),
        (1, -50.0, -5.0, 1.0),
        (1, 150.0, 10.0, 1.0),
        (1, 150.1, 10.0, 0.0),
        (1, -80.0, 0.0, 1.0),
        (1, -79.9, 0.0, 0.0),
        (2, -30.0, 7.5, 1.0),
        (2, -20.0, -7.5, 1.0),
        (2, -30.1, 0.0, 0.0),
        (2, -25.0, 7.6, 0.0),
    ],
)
def test_obstacles_are_closed_and_where_published(variant, x, y, cost):
    assert cost_at(Navigation(variant), x, y) == cost


def test_step_adds_action_and_noise():
    env = Navigation(2)
    moves = []
    env.reset(seed=0)
    for _ in range(500):
        env.reset(options={"position": (-50.0, 20.0)})
        moves.append(env.step([1.0, -3.0])[0] - (-50.0, 20.0))  # -3 is clipped to -1
    np.testing.assert_allclose(np.mean(moves, axis=0), [1.0, -1.0], atol=0.01)
    np.testing.assert_allclose(np.std(moves, axis=0), 0.05, rtol=0.1)


def test_start_is_gaussian():
    env = Navigation(1)
    env.reset(seed=0)
    starts = np.array([env.reset()[0] for _ in range(500)])
    np.testing.assert_allclose(starts.mean(axis=0), geometry_centre(), atol=0.15)
    np.testing.assert_allclose(starts.std(axis=0), 1.0, rtol=0.1)


def geometry_centre():
    x0, x1, y0, y1 = geometry.NAVIGATION1.start
    return [(x0 + x1) / 2, (y0 + y1) / 2]


def test_reward_is_minus_the_distance_before_the_step():
    env = Navigation(1)
    env.reset(seed=0, options={"position": (-30.0, 4.0)})
    _, reward, *_ = env.step(STILL)
    assert reward == pytest.approx(-np.hypot(30.0, 4.0))


@pytest.mark.parametrize(("goal_radius", "start"), [(4.0, -4.5), (1.0, -1.5)])
def test_success_is_judged_after_the_step(goal_radius, start):
    env = registry.make("navigation1", goal_radius=goal_radius)
    _, info = env.reset(seed=0, options={"position": (start, 0.0)})
    assert not info["success"]
    observation, _, terminated, _, info = env.step(np.float32([1.0, 0.0]))
    assert np.linalg.norm(observation) < goal_radius
    assert terminated
    assert info == {"cost": 0.0, "success": True}


def test_violation_terminates_and_then_nothing_moves():
    env = Navigation(2)
    env.reset(seed=0, options={"position": (-30.5, 0.0)})
    inside, _, terminated, _, info = env.step([1.0, 0.0])
    assert terminated
    assert info == {"cost": 1.0, "success": False}
    np.testing.assert_array_equal(env.step([-1.0, 0.0])[0], inside)


@pytest.mark.parametrize("name", ["navigation1", "navigation2"])
def test_time_out_truncates_and_does_not_terminate(name):
    env = registry.make(name)
    env.reset(seed=0)
    ends = [env.step(STILL)[2:4] for _ in range(100)]
    assert ends == [(False, False)] * 99 + [(False, True)]


def trajectory(seed):
    env = registry.make("navigation2")
    return np.array([env.reset(seed=seed)[0], *(env.step(STILL)[0] for _ in range(5))])


def test_a_seed_fixes_the_episode():
    np.testing.assert_array_equal(trajectory(1), trajectory(1))
    assert not np.array_equal(trajectory(1), trajectory(2))


@pytest.mark.parametrize(
    ("kwargs", "complaint"),
    [
        ({"variant": 3}, "variant is 3"),
        ({"variant": 1, "goal_radius": 0.0}, "must be positive"),
        ({"variant": 1, "render_mode": "human"}, "knows 'rgb_array' or None"),
    ],
)
def test_bad_arguments_are_refused(kwargs, complaint):
    with pytest.raises(ValueError, match=complaint):
        Navigation(**kwargs)


def test_a_broken_action_is_refused():
    env = Navigation(1)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="two finite numbers"):
        env.step([np.nan, 0.0])
