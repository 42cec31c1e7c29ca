"""The recovery planner in a room with known walls, and over the maze's own physics."""

import itertools
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from numpy.typing import NDArray

from safetypilot.envs.maze import Maze
from safetypilot.policies.critic import Critic, Dynamics, PlanRisk
from safetypilot.policies.planning import PlannerConfig
from safetypilot.policies.recovery import MujocoDynamics, Plan, RecoveryConfig, RecoveryPlanner

Array = NDArray[np.float32]

LOW, HIGH = [-0.1, -0.1], [0.1, 0.1]
REACH = 0.247  # of an action, in m per unit
WALL = 0.275  # the puck's centre may go so far, either way
CONFIG = RecoveryConfig()
MUJOCO = RecoveryConfig(planner=PlannerConfig(horizon=3, population=24, elites=5), particles=5)


class Room:
    """Dynamics of a puck in a square room; each net errs in its own direction."""

    def __init__(self, members: int = 5, noise: float = 0.0005) -> None:
        self.members = members
        self.noise = noise
        self.shapes: list[tuple[int, ...]] = []
        self.seen: list[Array] = []

    def run(self, **inputs: Array) -> dict[str, Array]:
        observation, action, noise = (inputs[k] for k in ("observation", "action", "noise"))
        assert observation.shape == noise.shape and observation.shape[0] == self.members
        assert all(array.flags.c_contiguous for array in inputs.values())
        self.shapes.append(observation.shape)
        self.seen.append(noise.copy())
        bias = 0.0002 * np.arange(self.members, dtype=np.float32)[:, None, None]
        return {"next_observation": observation + REACH * action + bias + self.noise * noise}


class Wall:
    """Risk of hitting one of the four walls with this very action."""

    def __init__(self, wall: float = WALL) -> None:
        self.wall = wall
        self.calls = 0

    def run(self, **inputs: Array) -> dict[str, Array]:
        self.calls += 1
        there = np.abs(inputs["observation"] + REACH * inputs["action"]).max(axis=1)
        return {"risk": (1 / (1 + np.exp((self.wall - there) / 0.004))).astype(np.float32)}


class Flat:
    """A critic to whom everything is the same."""

    def __init__(self, risk: float) -> None:
        self.risk = risk

    def run(self, **inputs: Array) -> dict[str, Array]:
        return {"risk": np.full(len(inputs["observation"]), self.risk, np.float32)}


def planner(
    config: RecoveryConfig = CONFIG,
    dynamics: Dynamics | None = None,
    critic: Critic | None = None,
    seed: int = 0,
) -> RecoveryPlanner:
    return RecoveryPlanner(config, dynamics or Room(), critic or Wall(), LOW, HIGH, seed)


def same(first: Plan, second: Plan) -> bool:
    return np.array_equal(first.actions, second.actions) and np.array_equal(
        first.risks, second.risks
    )


@pytest.mark.parametrize("config", [CONFIG, RecoveryConfig.published(5)], ids=["own", "published"])
@pytest.mark.parametrize("axis, side", [*itertools.product((0, 1), (-1, 1))])
def test_moves_away_from_a_wall(config: RecoveryConfig, axis: int, side: int) -> None:
    observation = np.zeros(2, np.float32)
    observation[axis] = side * (WALL - 0.003)
    plan = planner(config).plan(observation, 0)
    assert plan.actions[0, axis] * side < -0.05
    assert plan.risks[0] < 0.02
    assert plan.actions.shape == (config.planner.horizon, 2) and plan.actions.dtype == np.float32
    assert plan.risks.shape == (config.planner.horizon,) and plan.risks.dtype == np.float32
    assert (np.abs(plan.actions) <= np.float32(0.1)).all()


def test_the_risks_are_those_of_the_plan() -> None:
    plan = planner(dynamics=Room(1, noise=0.0)).plan([WALL - 0.01, 0.1], 0)
    state = np.array([[WALL - 0.01, 0.1]], np.float32)
    for action, risk in zip(plan.actions, plan.risks, strict=True):
        wanted = Wall().run(observation=state, action=action[None])["risk"][0]
        assert risk == pytest.approx(float(wanted), abs=1e-5)
        state = state + REACH * action


@pytest.mark.parametrize("risk", [0.0, 1.0])
def test_where_the_risk_is_flat_it_rests(risk: float) -> None:
    plan = planner(critic=Flat(risk)).plan([0.1, 0.1], 0)
    np.testing.assert_array_equal(plan.actions, np.zeros((5, 2)))
    np.testing.assert_array_equal(plan.risks, np.full(5, risk))
    rest = replace(CONFIG, rest_action=(0.03, -0.5))
    plan = planner(rest, critic=Flat(risk)).plan([0.1, 0.1], 0)
    np.testing.assert_allclose(plan.actions, np.tile([0.03, -0.1], (5, 1)), rtol=1e-6)


def test_an_answer_depends_on_seed_seq_and_observation_alone() -> None:
    first = planner()
    plans = [first.plan([0.26, 0.01 * seq], seq) for seq in range(5)]
    restarted = planner()
    assert same(restarted.plan([0.26, 0.04], 4), plans[4])
    assert same(restarted.plan([0.26, 0.02], 2), plans[2])
    frozen = restarted.plan([0.26, 0.03], 3, clock=lambda: 5, deadline_ns=5)
    assert same(frozen, plans[3])
    assert not same(planner(seed=1).plan([0.26, 0.04], 4), plans[4])
    assert not same(planner().plan([0.26, 0.04], 5), plans[4])


def test_a_warm_start_follows_seq_and_ends_with_the_episode() -> None:
    config = replace(CONFIG, warm_start=True)
    config = replace(config, planner=replace(config.planner, max_iterations=1))
    cold, warm = planner(config), planner(config)
    for seq in range(5):
        warm.plan([0.272, 0.272], seq)
    assert not same(cold.plan([0.272, 0.272], 5), warm.plan([0.272, 0.272], 5))
    warm.reset()
    cold.reset()
    assert same(cold.plan([0.27, 0.0], 6), warm.plan([0.27, 0.0], 6))
    # So many steps later nothing of the plan is left; so it is when seq goes back.
    assert same(cold.plan([0.27, 0.0], 11), planner(config).plan([0.27, 0.0], 11))
    assert same(cold.plan([0.27, 0.0], 3), planner(config).plan([0.27, 0.0], 3))


def test_particles_share_the_nets_and_all_plans_the_noise() -> None:
    room, wall = Room(), Wall()
    planner(replace(CONFIG, particles=9), room, wall).plan([0.0, 0.0], 0)
    assert {shape[0] for shape in room.shapes} == {5}
    # Three iterations, the mean of the last one, and that beside resting.
    assert [shape[1] for shape in room.shapes[::4]] == [2 * 100, 2 * 80, 2 * 64, 2 * 1, 2 * 2]
    assert len(room.shapes) == 4 * 5  # H - 1 steps
    assert wall.calls == 5  # all steps in one call
    for first, final in zip(room.seen[:4], room.seen[12:16], strict=True):
        by_plan = first.reshape(5, 2, 100, 2)  # (E, P/E, N, O)
        np.testing.assert_array_equal(by_plan, np.broadcast_to(by_plan[:, :, :1], by_plan.shape))
        np.testing.assert_array_equal(by_plan[:, :, 0], final.reshape(5, 2, 2))
    assert len(np.unique(np.stack(room.seen[:4]).reshape(4, 5, 2, 100, 2)[:, :, :, 0])) == 80


def test_a_prediction_that_is_not_finite_is_never_chosen() -> None:
    class Explodes(Room):
        def run(self, **inputs: Array) -> dict[str, Array]:
            following = super().run(**inputs)["next_observation"]
            following[inputs["action"][..., 1] > 0] = np.nan
            return {"next_observation": following}

    class Forgets(Wall):  # as a ReLU may: NaN in, a number out
        def run(self, **inputs: Array) -> dict[str, Array]:
            return {"risk": np.nan_to_num(super().run(**inputs)["risk"], nan=0.0)}

    plan = planner(dynamics=Explodes(), critic=Forgets()).plan([0.0, -0.27], 0)
    assert np.isfinite(plan.risks).all()
    assert (plan.actions[:-1, 1] <= 0).all()


def test_without_time_there_is_a_plan_but_no_risk() -> None:
    plan = planner().plan([0.27, 0.0], 0, clock=lambda: 10, deadline_ns=9)
    assert plan.iterations == 0 and np.isnan(plan.risks).all()
    assert plan.actions.shape == (5, 2)


@pytest.mark.parametrize("budget, iterations", [(140, 3), (45, 2), (25, 0), (36, 1)])
def test_keeps_its_deadline(budget: int, iterations: int) -> None:
    now = [0]

    class Slow(Wall):
        def run(self, **inputs: Array) -> dict[str, Array]:
            now[0] += 10
            return super().run(**inputs)

    slow = planner(critic=Slow())
    slow.plan([0.27, 0.0], 0, clock=lambda: now[0])
    deadline = now[0] + budget
    plan = slow.plan([0.27, 0.0], 1, clock=lambda: now[0], deadline_ns=deadline)
    assert now[0] <= deadline
    assert plan.iterations == iterations


def test_a_swap_takes_hold_at_the_next_plan() -> None:
    flying = planner()
    before = flying.plan([0.2, 0.0], 0)
    flying.swap(critic=Wall(0.21))
    assert same(flying.plan([0.2, 0.0], 1), planner(critic=Wall(0.21)).plan([0.2, 0.0], 1))
    flying.swap(dynamics=Room(members=3))  # another ensemble size
    wanted = planner(dynamics=Room(members=3), critic=Wall(0.21)).plan([0.2, 0.0], 2)
    assert same(flying.plan([0.2, 0.0], 2), wanted)
    flying.swap(dynamics=Room(), critic=Wall())
    assert same(flying.plan([0.2, 0.0], 0), before)


def test_warming_up_asks_every_shape_of_a_plan_and_only_of_the_new_models() -> None:
    asked: dict[str, set[tuple[int, ...]]] = {}

    class Noting:
        members = 5

        def run(self, **inputs: Array) -> dict[str, Array]:
            kind = "next_observation" if "noise" in inputs else "risk"
            shape = inputs["observation"].shape
            asked.setdefault(kind, set()).add(shape)
            return {kind: np.zeros(shape if "noise" in inputs else shape[0], np.float32)}

    room, wall = Room(), Wall()
    flying = planner(dynamics=room, critic=wall)
    flying.warm_up(2, dynamics=Noting(), critic=Noting())
    assert not room.shapes and not wall.calls
    warmed, asked = asked, {}
    flying.swap(dynamics=Noting(), critic=Noting())
    flying.plan([0.0, 0.0], 0)
    assert warmed == asked


@pytest.mark.parametrize("observation", [[0.0, np.nan], [[0.0, 0.0]], 1.0])
def test_an_observation_that_is_none_is_refused(observation: object) -> None:
    with pytest.raises(ValueError, match="observation"):
        planner().plan(observation, 0)  # type: ignore[arg-type]


def test_no_particles_are_refused() -> None:
    with pytest.raises(ValueError, match="particles"):
        planner(RecoveryConfig(particles=0))


def test_one_step_needs_no_dynamics() -> None:
    room = Room()
    plan = planner(RecoveryConfig(planner=PlannerConfig(horizon=1)), room).plan([0.273, 0.0], 0)
    assert plan.actions[0, 0] < -0.05 and plan.risks.shape == (1,) and not room.shapes


def test_plan_risk_averages_over_particles_that_keep_their_net() -> None:
    plans = np.zeros((2, 3, 2), np.float32)
    judge = PlanRisk(plans.shape, (2, 5, 1, 2))
    start = np.array([WALL - 0.001, 0.0], np.float32)
    noise = np.zeros((2, 5, 1, 2), np.float32)
    risks = judge(Room(), Wall(), start, plans, noise)
    bias = 0.0002 * np.arange(5)[:, None] * np.arange(3)  # (P, H): every net drifts on
    wanted = 1 / (1 + np.exp((0.001 - bias) / 0.004))
    np.testing.assert_allclose(risks, np.tile(wanted.mean(axis=0)[:, None], (1, 2)), atol=1e-5)


# The maze's own physics


@pytest.fixture(scope="module")
def maze_xml(tmp_path_factory: pytest.TempPathFactory) -> str:
    text = resources.files("safetypilot.envs").joinpath("assets/maze.xml").read_text("utf-8")
    path = tmp_path_factory.mktemp("maze") / "maze.xml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("timestep, tolerance", [(None, 1e-6), (0.01, 5e-4)])
def test_mujoco_rollout_agrees_with_the_maze(
    maze_xml: str, timestep: float | None, tolerance: float
) -> None:
    env = Maze()
    rng = np.random.default_rng(0)
    starts, actions, ends, costs = [], [], [], []
    for _ in range(60):
        position = rng.uniform(-0.27, 0.27, 2)
        observation, info = env.reset(options={"position": position})
        if info["cost"]:
            continue
        starts.append(observation)
        actions.append(rng.uniform(-0.1, 0.1, 2).astype(np.float32))
        observation, _, _, _, info = env.step(actions[-1])
        ends.append(observation)
        costs.append(info["cost"])
    assert 0 < sum(costs) < len(costs)  # walls were met, and missed
    dynamics = MujocoDynamics(maze_xml, 1.0, timestep)
    rows = {"observation": np.array(starts)[None], "action": np.array(actions)[None]}
    predicted = dynamics.run(**rows)["next_observation"]
    error = np.abs(predicted[0] - ends).max(axis=1)
    assert np.quantile(error, 0.9) < tolerance
    assert error.max() < 10 * tolerance  # a bounce off a wall feels the coarser step


def test_mujoco_dynamics_maps_states_and_leaves_a_given_model_alone(maze_xml: str) -> None:
    mujoco = pytest.importorskip("mujoco")
    model = mujoco.MjModel.from_xml_path(maze_xml)

    def to_state(observation: Array) -> NDArray[np.floating]:
        return np.concatenate([observation[:, ::-1] / 100, np.zeros_like(observation)], axis=1)

    swapped = MujocoDynamics(
        model, 1.0, 0.01, to_state=to_state, to_observation=lambda state: 100 * state[:, 1::-1]
    )
    plain = MujocoDynamics(maze_xml, 1.0, 0.01)
    assert model.opt.timestep == 0.002
    start, action = np.array([[[0.0, 0.1]]], np.float32), np.array([[[0.05, -0.1]]], np.float32)
    mapped = swapped.run(observation=100 * start[..., ::-1], action=action)["next_observation"]
    wanted = plain.run(observation=start, action=action)["next_observation"]
    np.testing.assert_allclose(mapped, 100 * wanted[..., ::-1], rtol=1e-5)


def test_over_the_true_model_it_keeps_away_from_walls(maze_xml: str) -> None:
    env = Maze()
    flying = planner(MUJOCO, MujocoDynamics(maze_xml, 1.0, 0.02))
    seq = 0
    for position in ([0.272, 0.2], [-0.272, 0.0], [0.0, -0.272], [-0.2, 0.272]):
        observation, _ = env.reset(options={"position": position})
        for _ in range(3):
            plan = flying.plan(observation, seq)
            observation, _, _, _, info = env.step(plan.actions[0])
            assert info["cost"] == 0.0
            seq += 1
        assert np.abs(observation).max() < 0.265
