"""Reach: the predecessor's geometry, an obstacle that cannot be stepped through, and its expert."""

import numpy as np
import pytest

from safetypilot.envs import raster, registry
from safetypilot.envs.offline import expert
from safetypilot.envs.reach import ImageReach, Reach, scene
from safetypilot.envs.reach_data import reach_expert


def at(env, *position):
    return env.reset(options={"position": position})


def test_start_and_reward():
    env = Reach()
    observation, info = env.reset(seed=0)
    np.testing.assert_array_equal(observation, np.float32([6, 7, -13]))
    assert info == {"cost": 0.0, "success": False}
    _, reward, terminated, _, _ = env.step([0.0, 0.5, 0.0])
    assert reward == pytest.approx(-np.hypot(3.0, 0.5))
    assert not terminated


@pytest.mark.parametrize("scale", [1, 4])
def test_steps_are_clipped_to_half_a_centimetre(scale):
    env = Reach()
    env.reset(seed=0)
    after, *_ = env.step(scale * np.array([-0.5, 0.5, 0.5]))
    np.testing.assert_allclose(after, [5.5, 7.5, -12.5])


def test_the_tool_stays_in_the_workspace():
    env = Reach()
    for corner, inside in (((2, 2, -20), (3, 3, -17)), ((14, 14, 0), (13, 13, -9))):
        at(env, *inside)
        np.testing.assert_allclose(env.step(np.subtract(corner, inside))[0], inside)
        np.testing.assert_allclose(at(env, *corner)[0], inside)


@pytest.mark.parametrize(
    ("position", "cost"),
    [
        ((7.7, 6.9, -13), 1.0),  # closed
        ((8.2, 7.1, -17), 1.0),
        ((7.69, 7.0, -13), 0.0),
        ((8.0, 7.11, -13), 0.0),
        ((8.0, 6.89, -9), 0.0),
        ((8.21, 7.0, -13), 0.0),
    ],
)
def test_the_obstacle_is_where_published(position, cost):
    assert at(Reach(), *position)[1]["cost"] == cost


@pytest.mark.parametrize(
    ("start", "move", "end"),
    [
        ((8.0, 6.7), (0.0, 0.5), (8.0, 6.9)),  # through it, both ends free
        ((8.0, 7.3), (0.0, -0.5), (8.0, 7.1)),
        ((7.5, 7.0), (0.5, 0.0), (7.7, 7.0)),
        ((7.6, 7.2), (0.4, -0.4), (7.7, 7.1)),  # the corner
    ],
)
def test_the_tool_stops_where_it_meets_the_obstacle(start, move, end):
    env = ImageReach()
    at(env, *start)
    _, _, terminated, _, info = env.step(move)
    assert terminated
    assert (info["cost"], info["success"]) == (1.0, False)
    np.testing.assert_allclose(info["position"], end, atol=1e-6)
    info = env.step((-0.5, -0.5))[4]  # stuck
    np.testing.assert_allclose(info["position"], end, atol=1e-6)
    assert info["cost"] == 1.0


def test_passing_beside_the_obstacle_is_free():
    env = ImageReach()
    at(env, 7.5, 7.12)
    info = env.step((0.5, 0.0))[4]
    assert info["cost"] == 0.0
    np.testing.assert_allclose(info["position"], [8.0, 7.12], atol=1e-6)


@pytest.mark.parametrize(("radius", "success"), [(1.0, True), (0.2, False)])
def test_success_is_within_the_goal_radius(radius, success):
    env = Reach(goal_radius=radius)
    at(env, 9.0, 8.3, -13.0)
    _, _, terminated, _, info = env.step([0.0, -0.5, 0.0])
    assert info["success"] is terminated is success


def test_height_counts_for_success():
    assert not at(Reach(), 9.0, 7.0, -11.5)[1]["success"]


def test_the_image_task_has_two_starts_behind_the_obstacle():
    env = ImageReach()
    starts = {tuple(env.reset(seed=i)[1]["position"].round(3).tolist()) for i in range(20)}
    assert len(starts) == 2
    for start in starts:
        at(env, *start)
        for _ in range(20):  # straight for the goal
            way = np.subtract((9.0, 7.0), env.position)
            *_, terminated, _, info = env.step(0.5 * way / np.abs(way).max())
            if terminated:
                break
        assert info["cost"] == 1.0


def test_pixels_show_the_tool_everywhere_in_the_workspace():
    env = ImageReach()
    for position in ((4.0, 4.5), (11.0, 9.5), (6.03, 7.01), (9.0, 7.0)):
        image, _ = at(env, *position)
        assert image.shape == (48, 64, 3)
        assert image.dtype == np.uint8
        np.testing.assert_allclose(scene().locate(image), position, atol=0.02)
    image = scene().draw(5.0, 5.0)
    row, column = np.argwhere(image.max(axis=-1) < 120).mean(axis=0)
    assert column > np.argwhere((image == raster.AGENT).all(axis=-1)).mean(axis=0)[1]
    assert row == pytest.approx(23.5, abs=1.0)


@pytest.mark.parametrize("name", ["reach", "image-reach"])
@pytest.mark.parametrize("make", [registry.make, registry.make_flat])
def test_the_expert_succeeds(name, make):
    policy, env = expert(name), make(name)
    for seed in range(4):
        observation, _ = env.reset(seed=seed)
        for _ in range(20):
            observation, _, terminated, _, info = env.step(policy(observation))
            if terminated:
                break
        assert info["success"]


def test_the_expert_stays_in_its_box():
    actions = [reach_expert(p) for p in np.random.default_rng(0).uniform(3, 13, (50, 3))]
    assert (np.abs(actions) <= 0.5).all()
    assert actions[0].dtype == np.float32


@pytest.mark.parametrize(
    ("kwargs", "complaint"),
    [({"goal_radius": -1.0}, "must be positive"), ({"render_mode": "human"}, "reach knows")],
)
def test_bad_arguments_are_refused(kwargs, complaint):
    with pytest.raises(ValueError, match=complaint):
        Reach(**kwargs)


@pytest.mark.parametrize("position", [(6.0, 7.0), (6.0, 7.0, np.nan)])
def test_a_bad_position_is_refused(position):
    with pytest.raises(ValueError, match="3 numbers are needed"):
        Reach().reset(options={"position": position})
