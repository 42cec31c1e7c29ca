"""The published offline data: yields, fields, and where rollouts end."""

import numpy as np
import pytest

from safetypilot.envs import geometry, registry
from safetypilot.envs.offline import maze_expert, offline_data

MAZE_SIZE = 1000


@pytest.fixture(scope="module")
def maze_data():
    return offline_data("maze", MAZE_SIZE, seed=2)


@pytest.mark.parametrize(
    ("name", "transitions", "violations"),
    [("navigation1", 7320, 447), ("navigation2", 9950, 790)],
)
def test_navigation_yields_are_the_published_ones(name, transitions, violations):
    data = offline_data(name, 10_000, seed=0)
    assert len(data["cost"]) == pytest.approx(transitions, rel=0.05)
    assert data["cost"].sum() == pytest.approx(violations, rel=0.12)


def test_maze_yield_is_near_the_published_one(maze_data):
    # 1153 of 10 000; 50 blocks of 20 steps, each stuck or not, spread widely.
    assert 50 <= maze_data["cost"].sum() <= 250


@pytest.mark.parametrize("name", registry.IDS)
def test_fields_have_documented_shapes_and_types(name, maze_data):
    data = maze_data if name == "maze" else offline_data(registry.IDS[name], 300, seed=0)
    rows = len(data["cost"])
    assert list(data) == [
        "observation",
        "action",
        "cost",
        "reward",
        "next_observation",
        "terminated",
        "truncated",
    ]
    for field, array in data.items():
        assert array.shape == ((rows, 2) if array.ndim == 2 else (rows,))
        assert array.dtype == (bool if field in ("terminated", "truncated") else np.float32)
    description = registry.describe(name)
    assert (data["action"] >= np.float32(description["action_low"])).all()
    assert (data["action"] <= np.float32(description["action_high"])).all()
    assert set(np.unique(data["cost"])) == {0.0, 1.0}


def test_terminated_means_violation_or_success(maze_data):
    distance = np.linalg.norm(maze_data["next_observation"] - geometry.MAZE.goal, axis=1)
    success = distance < geometry.MAZE.goal_radius
    assert success.any()
    np.testing.assert_array_equal(maze_data["terminated"], (maze_data["cost"] > 0) | success)


def test_maze_blocks_of_twenty_steps_are_continuous(maze_data):
    ends = np.flatnonzero(maze_data["truncated"])
    np.testing.assert_array_equal(ends, np.arange(19, MAZE_SIZE, 20))
    inside = np.setdiff1d(np.arange(MAZE_SIZE - 1), ends)
    np.testing.assert_array_equal(
        maze_data["next_observation"][inside], maze_data["observation"][inside + 1]
    )


def test_published_maze_data_repeats_stuck_samples_and_the_option_does_not(maze_data):
    def stuck(data):
        return (data["observation"] == data["next_observation"]).all(axis=1) & (data["cost"] > 0)

    assert stuck(maze_data).sum() > 10
    stopping = offline_data("maze", 400, seed=2, continue_after_violation=False)
    assert len(stopping["cost"]) == 400
    assert 0 < stopping["cost"].sum() < 40
    assert stuck(stopping).sum() == 0
    assert not (stopping["truncated"] & (stopping["cost"] > 0)).any()


def test_navigation_rollouts_stop_at_a_violation():
    data = offline_data("navigation2", 1000, seed=0)
    over = (data["cost"] > 0) | data["truncated"]
    inside = np.flatnonzero(~over)
    np.testing.assert_array_equal(data["next_observation"][inside], data["observation"][inside + 1])
    lengths = np.diff(np.flatnonzero(over), prepend=-1)
    assert lengths.max() <= 10
    assert len(lengths) == 1000 // 30 + 4 * (1000 // 40)


@pytest.mark.parametrize("name", registry.IDS)
def test_a_seed_fixes_the_data(name):
    first, second, other = (offline_data(name, 60, seed) for seed in (1, 1, 2))
    for field in first:
        np.testing.assert_array_equal(first[field], second[field])
    assert not np.array_equal(first["observation"][:5], other["observation"][:5])


@pytest.mark.parametrize("name", registry.IDS)
def test_progress_reaches_the_total(name):
    calls = []
    offline_data(name, 60, seed=0, progress=lambda done, total: calls.append((done, total)))
    done, totals = zip(*calls, strict=True)
    assert list(done) == sorted(done)
    assert done[-1] == totals[-1]


def test_what_has_no_recipe_is_refused():
    with pytest.raises(ValueError, match=r"no offline data recipe for 'Pendulum-v1'"):
        offline_data("Pendulum-v1", 100, seed=0)
    with pytest.raises(ValueError, match=r"Did you mean maze"):
        offline_data("mazee", 100, seed=0)
    with pytest.raises(ValueError, match=r"at least 40"):
        offline_data("maze", 3, seed=0)


@pytest.mark.parametrize(
    ("position", "direction"),
    [((-0.2, 0.1), (1, -1)), ((-0.15, -0.125), (1, 1)), ((0.15, 0.125), (1, -1))],
)
def test_expert_heads_for_its_waypoints(position, direction):
    action = maze_expert(position)
    assert action.dtype == np.float32
    np.testing.assert_array_equal(np.sign(action), direction)
    assert (np.abs(action) <= np.float32(0.1)).all()
