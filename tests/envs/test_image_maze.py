"""The image maze: published geometry, a camera on the two rooms, and its expert."""

import mujoco
import numpy as np
import pytest

from safetypilot.envs import geometry, raster, registry
from safetypilot.envs.image_maze import ImageMaze, scene
from safetypilot.envs.offline import expert

RADIUS = geometry.IMAGE_MAZE.agent_radius


@pytest.fixture(scope="module")
def maze():
    return ImageMaze()


def cost_at(env, x, y):
    return env.reset(options={"position": (x, y)})[1]["cost"]


@pytest.mark.parametrize(
    ("free", "touching"),
    [
        ((0.1, 0.23 - RADIUS - 0.001), (0.1, 0.23 - RADIUS + 0.002)),  # the door
        ((0.1, 0.03 + RADIUS + 0.001), (0.1, 0.03 + RADIUS - 0.002)),
        ((-0.095 + RADIUS + 0.001, 0.0), (-0.095 + RADIUS - 0.001, 0.0)),  # closed in the west,
        ((-0.095 + RADIUS + 0.001, 0.2), (-0.095 + RADIUS - 0.001, 0.2)),
        ((0.0, -0.095 + RADIUS + 0.001), (0.0, -0.095 + RADIUS - 0.001)),  # and in the south
        ((0.2, -0.095 + RADIUS + 0.001), (0.2, -0.095 + RADIUS - 0.001)),
        ((0.3 - RADIUS - 0.001, 0.1), (0.3 - RADIUS + 0.001, 0.1)),
        ((0.0, 0.3 - RADIUS - 0.001), (0.0, 0.3 - RADIUS + 0.001)),
    ],
)
def test_walls_and_door_are_where_published(maze, free, touching):
    assert cost_at(maze, *free) == 0.0
    assert cost_at(maze, *touching) == 1.0


def test_plan_view_equals_the_model(maze):
    model = maze._model
    boxes = [
        model.geom(i) for i in range(model.ngeom) if model.geom(i).type == mujoco.mjtGeom.mjGEOM_BOX
    ]
    for geom, rectangle in zip(boxes, geometry.IMAGE_MAZE.walls, strict=True):
        (x, y, _), (half_x, half_y, _) = geom.pos, geom.size
        box = np.array([x - half_x, x + half_x, y - half_y, y + half_y])
        np.testing.assert_allclose(np.clip(box, -0.3, 0.3), rectangle, atol=1e-12)
    np.testing.assert_allclose(model.geom("goal").pos[:2], geometry.IMAGE_MAZE.goal)
    assert model.geom("robot").size[0] == RADIUS
    assert model.body("robot").mass[0] == pytest.approx(0.269, abs=1e-3)


@pytest.mark.parametrize("scale", [1, 10])
def test_full_action_moves_27_6_mm(maze, scale):
    maze.reset(options={"position": (0.0, 0.1)})
    info = maze.step([scale * 0.3, 0.0])[4]
    np.testing.assert_allclose(info["position"], [0.0276, 0.1], atol=1e-4)


def test_success_terminates_without_cost(maze):
    maze.reset(options={"position": (0.2, 0.25)})
    _, reward, terminated, _, info = maze.step([0.3, 0.0])
    assert terminated
    assert reward > -0.03
    assert (info["cost"], info["success"]) == (0.0, True)


def test_touching_a_wall_terminates_and_then_nothing_moves(maze):
    maze.reset(options={"position": (0.05, 0.0)})
    stuck, _, terminated, _, info = maze.step([0.3, 0.0])
    assert terminated
    assert (info["cost"], info["success"]) == (1.0, False)
    after, _, _, _, info = maze.step([-0.3, 0.0])
    np.testing.assert_array_equal(after, stuck)
    assert info["cost"] == 1.0


@pytest.mark.parametrize(("mode", "low", "high"), [("m", -0.04, 0.04), ("e", 0.15, 0.22)])
def test_reset_modes(maze, mode, low, high):
    starts = [maze.reset(seed=i, options={"mode": mode})[1]["position"] for i in range(30)]
    x, y = np.array(starts).T
    assert ((low <= x) & (x <= high)).all()
    assert ((0.0 <= y) & (y <= 0.22)).all()


def test_pixels_show_the_state(maze):
    image, info = maze.reset(options={"position": (0.05, 0.2)})
    assert image.shape == (64, 64, 3)
    assert image.dtype == np.uint8
    np.testing.assert_allclose(scene().locate(image), info["position"], atol=2e-4)
    red = (image == raster.AGENT).all(axis=-1)
    rows, columns = np.nonzero(red)
    assert rows.mean() < 32  # in the north
    assert 20 < columns.mean() < 30  # of the western room
    assert {raster.WALL, raster.GOAL, raster.FLOOR} <= set(
        map(tuple, image.reshape(-1, 3).tolist())
    )


def test_the_door_shows():
    image = scene().draw(0.0, 0.1)
    free = (image == raster.FLOOR).all(axis=-1)
    column = int((0.1 + 0.1243) / (0.4557 / 64))
    rows = np.nonzero(free[:48, column])[0]  # the two rooms
    height = (rows.max() - rows.min() + 1) * 0.4557 / 64
    assert height == pytest.approx(0.2, abs=0.015)


def test_the_state_option():
    env = registry.make("image-maze", observe="state")
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    np.testing.assert_array_equal(observation, info["position"])
    with pytest.raises(ValueError, match="'pixels' and 'state'"):
        ImageMaze(observe="depth")
    with pytest.raises(ValueError, match=r"reset mode is 'h'; the image maze knows 'm' and 'e'"):
        env.reset(options={"mode": "h"})


@pytest.mark.parametrize("make", [registry.make, registry.make_flat])
def test_the_expert_succeeds_on_pixels(make):
    policy, env = expert("image-maze"), make("image-maze")
    for seed in range(10):
        observation, _ = env.reset(seed=seed)
        over = False
        while not over:
            observation, _, terminated, truncated, info = env.step(policy(observation))
            over = terminated or truncated
        assert info["success"]


def test_random_actions_mostly_violate():
    env = registry.make("image-maze", observe="state")
    env.action_space.seed(0)
    violations = 0
    for seed in range(20):
        env.reset(seed=seed)
        over = False
        while not over:
            _, _, terminated, truncated, info = env.step(env.action_space.sample())
            over = terminated or truncated
        violations += info["cost"]
    assert violations >= 14
