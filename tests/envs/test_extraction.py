"""Object Extraction: spaces, starts, costs and success in posed states, and that it is risky."""

import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from safetypilot.envs import extraction_names as names
from safetypilot.envs.extraction import (
    SPACING,
    Extraction,
    box_row,
    load_model,
    roll_and_pitch,
)
from safetypilot.envs.extraction_expert import ExtractionExpert

HOLD = np.array(names.FAILSAFE)
REST = 0.0699  # m


@pytest.fixture(scope="module", params=[False, True], ids=["static", "dynamic"])
def env(request):
    env = Extraction(dynamic=request.param)
    yield env
    env.close()


@pytest.fixture(scope="module")
def dynamic():
    env = Extraction(dynamic=True)
    yield env
    env.close()


def posed(env, **positions):
    """A start with entries replaced: `gripper_x=0.1` and so on."""
    state, _ = env.reset(seed=0)
    known = names.DYNAMIC_OBSERVATION_NAMES if env.dynamic else names.OBSERVATION_NAMES
    state = state.astype(np.float64)
    for name, value in positions.items():
        state[known.index(name)] = value
    return env.reset(options={"state": state})


def tilted(env, box, angle, axis):
    """The start with a box turned about an axis (0 x, 1 y, 2 z), in degrees."""
    half = np.deg2rad(angle) / 2
    part = f"{box}_q{'xyz'[axis]}"
    return posed(env, **{f"{box}_qw": np.cos(half), part: np.sin(half)})


def test_gymnasium_checker(env):
    check_env(Extraction(dynamic=env.dynamic), skip_render_check=True)


@pytest.mark.parametrize("dynamic", [False, True])
def test_names_units_and_limits_fit_the_spaces(dynamic):
    env = Extraction(dynamic)
    known = names.DYNAMIC_OBSERVATION_NAMES if dynamic else names.OBSERVATION_NAMES
    units = names.DYNAMIC_OBSERVATION_UNITS if dynamic else names.OBSERVATION_UNITS
    low = names.DYNAMIC_ACTION_LOW if dynamic else names.ACTION_LOW
    high = names.DYNAMIC_ACTION_HIGH if dynamic else names.ACTION_HIGH
    assert len(known) == len(set(known)) == len(units) == (33 if dynamic else 27)
    assert env.observation_space.shape == (len(known),)
    np.testing.assert_array_equal(env.action_space.low, np.float32(low))
    np.testing.assert_array_equal(env.action_space.high, np.float32(high))
    assert env.action_space.contains(np.array(names.FAILSAFE, dtype=np.float32))
    assert len(names.ACTION_NAMES) == len(names.ACTION_UNITS) == 4
    assert env.metadata["render_fps"] > 0


def test_first_observation_is_settled(env):
    for seed in range(5):
        start, info = env.reset(seed=seed)
        assert info == {"cost": 0.0, "success": False}
        after, reward, terminated, truncated, info = env.step(np.zeros(4))
        np.testing.assert_allclose(after[-21:], start[-21:], atol=1e-4)
        np.testing.assert_allclose(after[:6], start[:6], atol=1e-4)
        assert (reward, terminated, truncated) == (-1.0, False, False)
        assert info == {"cost": 0.0, "success": False}


def test_nothing_interpenetrates_at_the_start(env):
    for seed in range(5):
        env.reset(seed=seed)
        assert (env._data.contact.dist > -0.0005).all()


def test_starts_are_drawn_as_published(env):
    starts = np.array([env.reset(seed=seed)[0] for seed in range(100)])
    left, middle, right = starts[:, -21:].reshape(-1, 3, 7).swapaxes(0, 1)
    low, high = (-0.15, -0.07) if env.dynamic else (-0.2, -0.05)
    assert (middle[:, 1] >= low).all()
    assert (middle[:, 1] <= high).all()
    assert middle[:, 1].min() < low + 0.01
    assert middle[:, 1].max() > high - 0.01
    np.testing.assert_array_equal(left[:, 1], middle[:, 1])
    np.testing.assert_allclose(middle[:, 0] - left[:, 0], SPACING, atol=1e-6)
    np.testing.assert_allclose(right[:, 0] - middle[:, 0], SPACING, atol=1e-6)
    assert 0.04 < middle[:, 0].std() < 0.06
    np.testing.assert_allclose(starts[:, 2], 0.0)
    np.testing.assert_allclose(middle[:, 2], REST, atol=1e-4)


@pytest.mark.parametrize("box", names.BOXES)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("angle", "cost"), [(14, 0.0), (-14, 0.0), (16, 1.0), (-16, 1.0)])
def test_a_tilt_above_15_degrees_costs(env, box, axis, angle, cost):
    _, info = tilted(env, box, angle, axis)
    assert info == {"cost": cost, "success": False}


def test_turning_upright_costs_nothing(env):
    assert tilted(env, "right", 60, 2)[1]["cost"] == 0.0


def test_roll_and_pitch():
    roll, pitch, yaw = 0.3, -0.2, 2.0
    quaternion = np.zeros(4)
    mujoco.mju_euler2Quat(quaternion, np.array([yaw, pitch, roll]), "zyx")
    np.testing.assert_allclose(roll_and_pitch([quaternion])[:, 0], [roll, pitch], atol=1e-12)
    assert np.isnan(roll_and_pitch([[np.nan] * 4])).any()


def test_a_broken_simulation_costs_and_hides_its_nan():
    env = Extraction()
    start, _ = env.reset(seed=0)
    env._data.qvel[:] = np.nan
    observation, reward, terminated, _, info = env.step(np.zeros(4))
    assert info == {"cost": 1.0, "success": False}
    assert terminated
    assert reward == -1.0
    np.testing.assert_array_equal(observation, start)


@pytest.mark.parametrize(("height", "success"), [(REST + 0.029, False), (REST + 0.031, True)])
def test_success_is_three_centimetres_up(env, height, success):
    assert posed(env, middle_z=height)[1] == {"cost": 0.0, "success": success}
    assert not posed(env, left_z=height)[1]["success"]


def test_lifting_ends_the_episode_with_reward_zero():
    env = Extraction()
    hand = env.reset(seed=0)[0][-14:-12]
    grasp = {"gripper_x": hand[0], "gripper_y": hand[1] + 0.15 - 0.2}
    posed(env, **grasp, gripper_finger_1=0.04, gripper_finger_2=-0.04)
    ends = [env.step([0.0, 0.0, lift, 0.06])[1:] for lift in (0.0, 0.02, 0.02)]
    assert ends[0] == ends[1] == (-1.0, False, False, {"cost": 0.0, "success": False})
    assert ends[2] == (0.0, True, False, {"cost": 0.0, "success": True})


def test_a_step_moves_the_hand_by_the_action(env):
    start, _ = env.reset(seed=0)
    limit = env.action_space.high
    after, *_ = env.step([1.0, 0.3 * limit[1], 1.0, 0.03])  # beyond the box is clipped
    moved = after[:5] - start[:5]
    np.testing.assert_allclose(moved, [limit[0], 0.3 * limit[1], limit[2], 0, 0.03], atol=0.003)
    np.testing.assert_allclose(after[5], -after[4], atol=1e-3)


def test_targets_stop_at_the_workspace(env):
    env.reset(seed=0)
    for _ in range(12):
        observation, *_ = env.step([0.0, 0.0, 1.0, 0.0])
    assert observation[2] == pytest.approx(0.15, abs=0.002)


def trajectory(dynamic, seed):
    env = Extraction(dynamic)
    env.action_space.seed(seed)
    rows = [env.reset(seed=seed)[0]]
    rows += [env.step(env.action_space.sample())[0] for _ in range(10)]
    rows.append(env.reset()[0])
    return np.array(rows)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_seed_fixes_the_episode(dynamic):
    np.testing.assert_array_equal(trajectory(dynamic, 1), trajectory(dynamic, 1))
    assert not np.array_equal(trajectory(dynamic, 1), trajectory(dynamic, 2))


def test_an_episode_leaves_nothing_behind(env):
    """What came before a reset does not change what comes after it."""
    rows = []
    for _ in range(2):
        env.reset(seed=5)
        rows.append([env.step([0.01, -0.02, 0.0, 0.1])[0] for _ in range(8)])
    np.testing.assert_array_equal(*rows)


@pytest.mark.parametrize("action", [[0.0] * 3, [np.nan, 0, 0, 0], 0.1])
def test_a_broken_action_is_refused(env, action):
    env.reset(seed=0)
    with pytest.raises(ValueError, match="four finite numbers"):
        env.step(action)


@pytest.mark.parametrize("state", [np.zeros(5), np.full(27, np.nan), np.zeros((1, 27))])
def test_a_broken_state_is_refused(state):
    with pytest.raises(ValueError, match=r"\(27,\) finite positions"):
        Extraction().reset(options={"state": state})


def test_unknown_render_mode_is_refused():
    with pytest.raises(ValueError, match="render_mode is 'human'"):
        Extraction(render_mode="human")
    assert Extraction().render() is None


def test_the_distractor_pulls_back_once_and_stays(dynamic):
    start, _ = dynamic.reset(seed=0)
    assert start[6] == pytest.approx(0.03)
    rows = np.array([dynamic.step(np.zeros(4))[0] for _ in range(18)])
    np.testing.assert_allclose(np.diff(rows[:13, 6]), 0.03, atol=0.002)
    np.testing.assert_allclose(rows[14:, 6], 0.45, atol=0.002)
    np.testing.assert_allclose(rows[:, 7:10], 0.0, atol=1e-3)
    np.testing.assert_allclose(rows[:, 10], 0.0615, atol=1e-3)


def test_arms_touching_costs(dynamic):
    _, info = posed(dynamic, gripper_y=-0.2, gripper_x=0.05)
    assert info["cost"] == 1.0  # the fingers are in the distractor's
    dynamic.reset(seed=0)
    infos = [dynamic.step([0.0, -0.03, 0.0, 0.03])[4] for _ in range(4)]
    assert [info["cost"] for info in infos] == [0.0, 0.0, 0.0, 1.0]


def test_only_arm_against_arm_costs(dynamic):
    """A box in the hand, or against the distractor, is no violation; geom numbers do not matter."""
    posed(dynamic, distractor_x=0.45)
    assert dynamic._data.ncon > 0
    boxes = box_row(0.0, -0.1, REST)
    state = np.concatenate([np.zeros(12), boxes])
    state[[6, 10, 11]] = 0.45, 0.0615, -0.0615
    state[1], state[[4, 5]] = -0.1 + 0.15 - 0.43, (0.04, -0.04)
    dynamic.reset(options={"state": state})
    _, _, _, _, info = dynamic.step([0.0, 0.0, 0.0, 0.06])
    hand = [dynamic._model.geom(f"gripper_finger_{i}").id for i in (1, 2)]
    assert np.isin(dynamic._data.contact.geom, hand).any()
    assert info["cost"] == 0.0


def test_all_geoms_of_both_arms_count(dynamic):
    kinds = {dynamic._model.geom(i).name: arm for i, arm in enumerate(dynamic._arm_of_geom) if arm}
    parts = ("palm", "arm", "finger_1", "finger_2")
    assert kinds == {f"gripper_{part}": 1 for part in parts} | {
        f"distractor_{part}": 2 for part in parts
    }


@pytest.mark.parametrize("dynamic", [False, True])
def test_masses_and_sizes_are_the_published_ones(dynamic):
    model = load_model(dynamic)
    for box in names.BOXES:
        np.testing.assert_allclose(model.geom(box).size, [0.03, 0.015, 0.12])
        assert model.body(box).mass[0] == pytest.approx(0.5)
    assert model.body("gripper").mass[0] == pytest.approx(1.0)
    assert model.body("gripper").pos[1] == pytest.approx(0.43 if dynamic else 0.2)


def episodes(dynamic, make_policy, count):
    """The last info of each episode; every one gets a policy of its own."""
    env = Extraction(dynamic)
    infos = []
    for seed in range(count):
        policy = make_policy()
        observation, _ = env.reset(seed=seed)
        for _ in range(names.EPISODE_STEPS):
            observation, _, terminated, _, info = env.step(policy(observation))
            if terminated:
                break
        infos.append(info)
    return infos


@pytest.mark.parametrize("dynamic", [False, True])
def test_who_ignores_the_neighbours_topples_them(dynamic):
    """The expert's way with an open hand, which is wider than the gaps, until it closes."""

    def open_handed():
        expert = ExtractionExpert(dynamic)

        def act(observation):
            action = expert(observation)
            return np.where([0, 0, 0, action[3] < 0.05], 0.0, action)

        return act

    infos = episodes(dynamic, open_handed, 6)
    assert sum(info["cost"] for info in infos) >= 5


@pytest.mark.parametrize("dynamic", [False, True])
def test_random_actions_never_succeed(dynamic):
    space = Extraction(dynamic).action_space
    space.seed(0)
    infos = episodes(dynamic, lambda: lambda observation: space.sample(), 6)
    assert not any(info["success"] for info in infos)
