"""The maze on a robot is the maze of the simulator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.envs.maze import Maze
from safetypilot.envs.maze_body import REACH, MazeBody, touches_wall

BODY = MazeBody()
PLACES = st.floats(-0.29, 0.29)
FORCES = st.floats(-0.1, 0.1)


@pytest.fixture(scope="module")
def maze():
    env = Maze()
    yield env
    env.close()


@settings(max_examples=60, deadline=None)
@given(PLACES, PLACES, FORCES, FORCES)
def test_a_servo_carries_the_puck_where_a_push_would(maze, x, y, force_x, force_y) -> None:
    before, info = maze.reset(options={"position": (x, y)})
    action = np.array([force_x, force_y], np.float32)
    after, reward, _, _, told = maze.step(action)
    wanted = BODY.drive(action, tuple(before.tolist())).position
    if info["cost"] or told["cost"] or touches_wall(*wanted):
        return  # stuck at a wall, or stopped by one
    assert after == pytest.approx(wanted, abs=2e-4)
    verdict = BODY.judge(before, action, after)
    assert verdict.reward == pytest.approx(reward, abs=1e-5)
    assert verdict.success == told["success"] and not verdict.cost


@settings(max_examples=300, deadline=None)
@given(PLACES, PLACES)
def test_walls_are_where_they_are_in_the_simulator(maze, x, y) -> None:
    _, info = maze.reset(options={"position": (x, y)})
    near = {touches_wall(x + dx, y + dy) for dx in (-1e-4, 1e-4) for dy in (-1e-4, 1e-4)}
    if len(near) == 1:  # not at the very edge
        assert near == {bool(info["cost"])}


def test_episodes_begin_west_of_the_walls_and_free_of_them() -> None:
    generator = np.random.default_rng(3)
    starts = [BODY.start(generator) for _ in range(200)]
    assert all(-0.22 <= x <= -0.13 and not touches_wall(x, y) for x, y in starts)
    assert np.ptp([y for _, y in starts]) > 0.3


def test_a_full_step_is_what_the_simulator_documents() -> None:
    assert pytest.approx(0.0247, abs=1e-4) == 0.1 * REACH


def test_it_observes_positions_alone() -> None:
    observed = BODY.observe((0.1, -0.2), (9.0, 9.0), (9.0, 9.0), {})
    assert observed.dtype == np.float32 and observed.tolist() == pytest.approx([0.1, -0.2])
