"""The maze: published geometry and dynamics, contacts by partner, episode ends."""

from importlib import resources

import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from safetypilot.envs import geometry, registry
from safetypilot.envs.maze import BOUNDS, START, WALLS, Maze, sample_start
from safetypilot.envs.maze_data import maze_expert

RADIUS = geometry.MAZE.agent_radius


@pytest.fixture
def maze():
    env = Maze()
    yield env
    env.close()


def cost_at(env, x, y):
    _, info = env.reset(options={"position": (x, y)})
    return info["cost"]


def test_gymnasium_checker():
    check_env(registry.make("maze").unwrapped, skip_render_check=True)


@pytest.mark.parametrize(
    ("x", "y_free", "y_touching"),
    [
        (-0.1, 0.22 - RADIUS, 0.22 - RADIUS + 0.002),  # wall 1, upper edge of the door
        (-0.1, -0.13 + RADIUS, -0.13 + RADIUS - 0.002),
        (0.1, 0.03 + RADIUS, 0.03 + RADIUS - 0.002),
        (0.1, 0.28 - RADIUS, 0.28 - RADIUS + 0.002),
        (0.0, 0.3 - RADIUS, 0.3 - RADIUS + 0.002),  # the outer wall
        (0.0, -0.3 + RADIUS, -0.3 + RADIUS - 0.002),
    ],
)
def test_doors_and_outer_walls_are_where_published(maze, x, y_free, y_touching):
    inward = np.sign(y_free - y_touching) * 0.001
    assert cost_at(maze, x, y_free + inward) == 0.0
    assert cost_at(maze, x, y_touching) == 1.0


@pytest.mark.parametrize("wall_x", [-0.1, 0.1])
@pytest.mark.parametrize("side", [-1, 1])
def test_walls_are_ten_millimetres_thick(maze, wall_x, side):
    face = wall_x + side * (0.005 + RADIUS)
    assert cost_at(maze, face + side * 0.001, -0.2) == 0.0
    assert cost_at(maze, face - side * 0.001, -0.2) == 1.0


@pytest.mark.parametrize(("x", "free"), [(0.274, True), (0.276, False)])
def test_east_and_west_walls(maze, x, free):
    assert cost_at(maze, x, 0.0) == float(not free)
    assert cost_at(maze, -x, 0.0) == float(not free)


def test_plan_view_equals_the_model(maze):
    boxes = [
        i for i in range(maze._model.ngeom) if maze._model.geom(i).type == mujoco.mjtGeom.mjGEOM_BOX
    ]
    for i, rectangle in zip(boxes, WALLS, strict=True):
        (x, y, _), (half_x, half_y, _) = maze._model.geom(i).pos, maze._model.geom(i).size
        box = np.array([x - half_x, x + half_x, y - half_y, y + half_y])
        np.testing.assert_allclose(np.clip(box, BOUNDS[0], BOUNDS[1]), rectangle, atol=1e-12)
    np.testing.assert_allclose(maze._model.geom("goal").pos[:2], geometry.MAZE.goal)
    assert maze._model.geom("robot").size[0] == RADIUS


def test_contact_with_the_floor_is_no_violation(maze):
    xml = resources.files("safetypilot.envs").joinpath("assets/maze.xml").read_text()
    solid = xml.replace('contype="0" conaffinity="0"', "", 1)  # the floor's, the first one
    maze._model = mujoco.MjModel.from_xml_string(solid)
    maze._data = mujoco.MjData(maze._model)
    _, info = maze.reset(options={"position": (0.0, 0.0)})
    assert maze._data.ncon >= 3
    assert info["cost"] == 0.0
    assert cost_at(maze, 0.276, 0.0) == 1.0


def test_mass_is_the_published_one(maze):
    assert maze._model.body("robot").mass[0] == pytest.approx(0.0982, abs=1e-4)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("sign", [-1, 1])
def test_full_action_moves_24_7_mm(maze, axis, sign):
    before, _ = maze.reset(options={"position": (0.0, 0.0)})
    action = np.zeros(2, dtype=np.float32)
    action[axis] = sign * 0.1
    for scale in (1, 10):  # beyond the box is clipped
        maze.reset(options={"position": (0.0, 0.0)})
        after, *_ = maze.step(scale * action)
        moved = after - before
        assert moved[axis] == pytest.approx(sign * 0.0247, abs=5e-5)
        assert moved[1 - axis] == pytest.approx(0.0, abs=1e-7)


def test_steps_start_from_rest(maze):
    maze.reset(options={"position": (0.0, 0.0)})
    first, *_ = maze.step([0.1, 0.0])
    second, *_ = maze.step([0.0, 0.0])
    np.testing.assert_array_equal(first, second)


def test_reward_is_minus_the_rms_distance_after_the_step(maze):
    maze.reset(options={"position": (0.0, 0.1)})
    position, reward, terminated, truncated, info = maze.step([0.0, 0.0])
    assert reward == pytest.approx(-np.hypot(0.25 - position[0], position[1]) / np.sqrt(2))
    assert (terminated, truncated, info) == (False, False, {"cost": 0.0, "success": False})


def test_success_terminates_without_cost(maze):
    maze.reset(options={"position": (0.2, 0.0)})
    _, reward, terminated, _, info = maze.step([0.1, 0.0])
    assert terminated
    assert reward > -0.03
    assert info == {"cost": 0.0, "success": True}


def test_touching_a_wall_terminates_and_then_nothing_moves(maze):
    maze.reset(options={"position": (0.06, -0.1)})
    stuck, _, terminated, _, info = maze.step([0.1, 0.0])
    assert terminated
    assert info == {"cost": 1.0, "success": False}
    after, _, _, _, info = maze.step([-0.1, 0.0])
    np.testing.assert_array_equal(after, stuck)
    assert info["cost"] == 1.0


def test_time_out_truncates_and_does_not_terminate():
    env = registry.make("maze")
    env.reset(seed=0)
    ends = [env.step(np.zeros(2, dtype=np.float32))[2:4] for _ in range(100)]
    assert ends == [(False, False)] * 99 + [(False, True)]


def test_first_observation_is_the_state(maze):
    observation, _ = maze.reset(seed=3)
    np.testing.assert_array_equal(observation, np.float32(maze._data.qpos))
    stayed, *_ = maze.step([0.0, 0.0])
    np.testing.assert_array_equal(stayed, observation)


@pytest.mark.parametrize(
    ("mode", "low", "high"), [("h", -0.22, -0.13), ("m", -0.04, 0.04), ("e", 0.14, 0.22)]
)
def test_reset_modes(maze, mode, low, high):
    starts = np.array([maze.reset(seed=i, options={"mode": mode})[0] for i in range(30)])
    assert (starts[:, 0] >= low - 1e-6).all()
    assert (starts[:, 0] <= high + 1e-6).all()
    assert (np.abs(starts[:, 1]) <= START[3]).all()


def test_reset_anywhere_is_free_of_collisions(maze):
    assert all(maze.reset(seed=i, options={"mode": None})[1]["cost"] == 0 for i in range(60))
    draws = [sample_start(np.random.default_rng(i), None) for i in range(60)]
    assert any(cost_at(maze, *draw) == 1 for draw in draws)  # so the check had work to do


def test_unknown_mode_and_render_mode_are_refused(maze):
    with pytest.raises(ValueError, match="reset mode is 'x'"):
        maze.reset(options={"mode": "x"})
    with pytest.raises(ValueError, match="render_mode is 'human'"):
        Maze(render_mode="human")


@pytest.mark.parametrize("action", [[np.nan, 0.0], [0.1], 0.1, [np.inf, 0.0]])
def test_a_broken_action_is_refused(maze, action):
    maze.reset(seed=0)
    with pytest.raises(ValueError, match="two finite numbers"):
        maze.step(action)


def trajectory(seed):
    env = registry.make("maze")
    env.action_space.seed(seed)
    rows = [env.reset(seed=seed)[0]]
    rows += [env.step(env.action_space.sample())[0] for _ in range(5)]
    return np.array(rows)


def test_a_seed_fixes_the_episode():
    np.testing.assert_array_equal(trajectory(1), trajectory(1))
    assert not np.array_equal(trajectory(1), trajectory(2))


def play(env, policy, episodes):
    """The last info of each episode."""
    infos = []
    observation, _ = env.reset(seed=0)
    for _ in range(episodes):
        over = False
        while not over:
            observation, _, terminated, truncated, info = env.step(policy(observation))
            over = terminated or truncated
        infos.append(info)
        observation, _ = env.reset()
    return infos


def test_the_expert_succeeds():
    infos = play(registry.make("maze"), maze_expert, 20)
    assert sum(info["success"] for info in infos) >= 18


def test_random_actions_often_violate_and_never_succeed():
    env = registry.make("maze")
    env.action_space.seed(0)
    infos = play(env, lambda observation: env.action_space.sample(), 20)
    assert sum(info["cost"] for info in infos) >= 8
    assert not any(info["success"] for info in infos)


def test_rendering_from_above():
    env = registry.make("maze", render_mode="rgb_array")
    env.reset(options={"position": (-0.2, -0.2)})
    pixels = env.render()
    assert pixels.shape == (480, 480, 3)
    # South-west is lower left: the puck, the only red thing, must be there.
    rows, columns = np.nonzero(pixels[..., 0].astype(int) - pixels[..., 2] > 60)
    assert rows.mean() == pytest.approx(400, abs=2)
    assert columns.mean() == pytest.approx(80, abs=2)


def test_without_a_render_mode_nothing_is_drawn(maze):
    maze.reset(seed=0)
    assert maze.render() is None
