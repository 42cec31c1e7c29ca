"""The quadruped: the model's numbers, its kinematics, what it can do, what is a fall."""

from functools import partial
from math import pi

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.envs import quadruped_expert, quadruped_legs, quadruped_names, registry
from safetypilot.envs.offline import expert
from safetypilot.envs.quadruped import Quadruped, load_model, standing_height
from safetypilot.envs.quadruped_body import LYING, QuadrupedBody, draw_commands, pose_of, tilt_of
from safetypilot.envs.quadruped_legs import Pose
from safetypilot.envs.substeps import SplitStep

PUSH = {"at_s": 0.2, "body": "trunk", "force": (0.0, 170.0, 0.0), "duration_s": 0.2}
UPRIGHT = {"position": quadruped_legs.angles(Pose(0.3)), "commands": [(0, 0.3, 0.0)]}


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.fixture(scope="module")
def env():
    return Quadruped()


def fly(env, policy, steps, options=UPRIGHT, seed=0):
    """The observations, and the last info."""
    observation, info = env.reset(seed=seed, options=options)
    seen = [observation]
    for _ in range(steps):
        observation, _, terminated, _, info = env.step(policy(observation))
        seen.append(observation)
        if terminated:
            break
    return seen, info


def test_the_numbers_are_those_of_the_model(model):
    names = quadruped_names
    for leg, side, end, ranges in zip(
        names.LEGS, names.SIDES, names.ENDS, names.RANGES, strict=True
    ):
        hip, thigh, calf = (model.body(f"{leg}_{part}") for part in names.PARTS)
        np.testing.assert_allclose(hip.pos, (end * names.HIP[0], side * names.HIP[1], 0.0))
        np.testing.assert_allclose(thigh.pos, (0.0, side * names.ABDUCTION, 0.0))
        np.testing.assert_allclose(calf.pos, (0.0, 0.0, -names.LINK))
        np.testing.assert_allclose(model.geom(leg).pos, (0.0, 0.0, -names.LINK))
        assert model.geom(leg).size[0] == names.FOOT_RADIUS
        for part, limits in zip(names.PARTS, ranges, strict=True):
            joint = model.joint(f"{leg}_{part}_joint")
            np.testing.assert_allclose(joint.range, limits)
    assert model.geom("trunk").size[2] == names.LYING_HEIGHT
    assert (1 / names.RATE_HZ) % model.opt.timestep == pytest.approx(0.0, abs=1e-12)


def test_the_joints_are_in_the_order_of_the_motors(model):
    order = [model.joint(model.actuator_trnid[i, 0]).name for i in range(model.nu)]
    assert tuple(order) == quadruped_names.JOINTS == QuadrupedBody.joints


def test_the_feet_are_where_the_model_has_them(model):
    data = mujoco.MjData(model)
    joints = [model.joint(name).qposadr[0] for name in quadruped_names.JOINTS]
    generator = np.random.default_rng(0)
    for _ in range(50):
        q = generator.uniform(-1.0, 1.0, 12)
        data.qpos[:7], data.qpos[joints] = (0, 0, 0, 1, 0, 0, 0), q
        mujoco.mj_kinematics(model, data)
        for leg, p in zip(quadruped_names.LEGS, quadruped_legs.feet(q.tolist()), strict=True):
            np.testing.assert_allclose(p, data.geom(leg).xpos, atol=1e-12)


poses = st.builds(
    Pose,
    st.floats(0.16, 0.3),
    *(st.floats(-most, most) for most in (0.25, 0.15, 0.1, 0.03, 0.03)),
)


@given(poses)
def test_angles_put_the_trunk_where_legs_and_gravity_then_say_it_is(pose):
    rotation = np.zeros(9)
    quaternion = np.zeros(4)
    mujoco.mju_euler2Quat(quaternion, np.array((0.0, pose.pitch, pose.roll)), "zyx")
    mujoco.mju_quat2Mat(rotation, quaternion)
    gravity = rotation.reshape(3, 3).T @ (0.0, 0.0, -1.0)
    found = quadruped_legs.pose_of(quadruped_legs.angles(pose), gravity.tolist())
    np.testing.assert_allclose(found, pose, atol=1e-9)


@given(st.tuples(*[st.floats(-0.5, 0.5)] * 3), st.sampled_from(range(4)))
def test_a_foot_out_of_reach_gets_finite_angles(p, leg):
    assert np.isfinite(quadruped_legs.leg_angles(leg, p)).all()


@given(st.lists(st.floats(-1.0, 1.0), min_size=12, max_size=12))
@settings(max_examples=20)
def test_the_jacobian_is_how_feet_move(q):
    for leg in range(4):
        columns = np.array(quadruped_legs.jacobian(leg, q))
        for joint, column in enumerate(columns, 3 * leg):
            step = np.eye(12)[joint] * 1e-6
            ends = [quadruped_legs.feet((q + s).tolist())[leg] for s in (step, -step)]
            np.testing.assert_allclose(column, np.subtract(*ends) / 2e-6, atol=1e-7)


def test_it_begins_lying_at_rest_and_stays_so_with_targets_there(env):
    observation, info = env.reset(seed=0)
    assert info == {"cost": 0.0, "success": False}
    np.testing.assert_allclose(observation[:3], (0, 0, -1), atol=1e-6)
    np.testing.assert_allclose(observation[6:18], LYING, atol=0.021)
    assert standing_height(LYING) == pytest.approx(quadruped_names.LYING_HEIGHT)
    seen, info = fly(env, quadruped_expert.lie_down, 50, options={})
    assert info["cost"] == 0.0
    assert abs(pose_of(seen[-1]).height - quadruped_names.LYING_HEIGHT) < 0.005


@pytest.mark.parametrize("seed", range(3))
def test_the_expert_stands_up_and_holds_what_is_commanded(env, seed):
    policy = expert("quadruped")
    seen, info = fly(env, policy, quadruped_names.EPISODE_STEPS, options={}, seed=seed)
    assert info == {"cost": 0.0, "success": True}
    assert len(seen) == quadruped_names.EPISODE_STEPS + 1
    heights = [pose_of(o).height - o[-2] for o in seen[80:130]]
    yaws = [pose_of(o).yaw - o[-1] for o in seen[-50:]]
    assert np.abs(heights).max() < 0.005 and np.abs(yaws).max() < 0.005
    asked = {tuple(o[-2:].tolist()) for o in seen}
    assert len(asked) == 3  # stand up, and twice another height and yaw


def test_without_the_hold_at_the_end_there_is_no_success(env):
    def late(observation):
        late.steps += 1
        left = quadruped_names.EPISODE_STEPS - late.steps
        return (quadruped_expert.lie_down if 20 < left < 25 else quadruped_expert.stand)(
            observation
        )

    late.steps = 0
    _, info = fly(env, late, quadruped_names.EPISODE_STEPS, options={})
    assert info == {"cost": 0.0, "success": False}


def test_the_bad_one_falls_and_lying_down_in_time_saves_it(env):
    side = pi / 2
    seen, info = fly(env, partial(quadruped_expert.lean, side=side), 60)
    assert info == {"cost": 1.0, "success": False}
    fell = len(seen) - 1
    tilts = [tilt_of(o) for o in seen]
    assert max(tilts[:-1]) <= quadruped_names.FALLEN < tilts[-1]

    def saved(observation):
        saved.caught = saved.caught or tilt_of(observation) > 0.2
        bad = partial(quadruped_expert.lean, side=side)
        return (quadruped_expert.lie_down if saved.caught else bad)(observation)

    saved.caught = False
    seen, info = fly(env, saved, fell + 100)
    assert info["cost"] == 0.0 and saved.caught
    assert pose_of(seen[-1]).height < 0.07 and tilt_of(seen[-1]) < 0.05


def test_a_hard_push_topples_one_that_goes_on_standing_and_not_one_that_lies_down(env):
    options = UPRIGHT | {"push": [PUSH]}
    _, info = fly(env, quadruped_expert.stand, 100, options)
    assert info["cost"] == 1.0

    def cautious(observation):
        moved = np.abs(observation[3:5]).max() > 1.0
        cautious.caught = cautious.caught or moved
        return (quadruped_expert.lie_down if cautious.caught else quadruped_expert.stand)(
            observation
        )

    cautious.caught = False
    seen, info = fly(env, cautious, 100, options)
    assert info["cost"] == 0.0
    assert pose_of(seen[-1]).height < 0.07
    _, info = fly(env, quadruped_expert.stand, 100, UPRIGHT)
    assert info["cost"] == 0.0


def test_a_push_of_so_many_newtons_comes_from_any_side_at_any_time(env):
    pushes = []
    for seed in range(20):
        env.reset(seed=seed, options={"push": 120})
        ((at_s, until_s, body, force),) = env._pushes
        assert 3.0 <= at_s <= 6.0 and until_s - at_s == pytest.approx(0.2)
        assert body == env._model.body("trunk").id
        assert np.linalg.norm(force) == pytest.approx(120.0) and force[2] == 0.0
        pushes.append((at_s, *force))
    assert len(set(pushes)) == 20
    assert np.ptp(np.array(pushes), axis=0)[1:3].min() > 120.0
    env.reset(seed=0)
    assert env._pushes == []


@pytest.mark.parametrize(
    "options",
    [
        {"position": [0.0] * 11},
        {"position": [np.nan] * 12},
        {"commands": [(1, 0.3, 0.0)]},
        {"commands": []},
        {"push": [{"at_s": 0, "body": "trunk", "force": (np.inf, 0, 0), "duration_s": 1}]},
        {"push": [{"at_s": 0, "body": "trunk", "force": (1.0, 0), "duration_s": 1}]},
        {"push": [{"at_s": 0, "body": "wing", "force": (1.0, 0, 0), "duration_s": 1}]},
    ],
)
def test_what_it_cannot_begin_with_is_refused(env, options):
    with pytest.raises((ValueError, KeyError)):
        env.reset(seed=0, options=options)


def test_the_failsafe_lowers_it_gently_and_lifts_it_a_little(env):
    heights = []

    def failsafe(observation):
        heights.append(env._data.qpos[2])
        return np.array(quadruped_names.FAILSAFE)

    for options in (UPRIGHT, {}):
        seen, info = fly(env, failsafe, 60, options)
        assert info["cost"] == 0.0
        assert 0.09 < pose_of(seen[-1]).height < 0.12
    assert min(heights[:60]) > quadruped_names.LYING_HEIGHT + 0.01  # it never met the ground
    assert max(heights[60:]) < 0.13


@given(st.integers(0, 2**31))
@settings(max_examples=30)
def test_commands_are_of_the_declared_range(seed):
    commands = draw_commands(np.random.default_rng(seed))
    steps = [command.step for command in commands]
    assert steps[0] == 0 and steps == sorted(set(steps))
    assert steps[-1] < quadruped_names.EPISODE_STEPS - 2 * quadruped_names.HOLD_STEPS
    for _, height, yaw in commands:
        assert quadruped_names.HEIGHTS[0] <= height <= quadruped_names.HEIGHTS[1]
        assert quadruped_names.YAWS[0] <= yaw <= quadruped_names.YAWS[1]


def test_it_describes_itself_without_a_simulator():
    description = registry.describe("quadruped")
    assert description["observation_size"] == 32 == len(description["observation_units"])
    assert len(description["action_names"]) == 12 == len(description["action_units"])
    low, high = description["action_low"], description["action_high"]
    assert all(a < f < b for a, f, b in zip(low, description["failsafe"], high, strict=True))


@pytest.mark.parametrize("parts", [2, 10])
def test_a_control_step_in_parts_is_the_whole_one(env, parts):
    divided = registry.make_flat("quadruped")
    split = SplitStep(divided, parts)
    options = UPRIGHT | {"push": [PUSH]}
    divided.reset(seed=0, options=options)
    seen, _ = fly(env, quadruped_expert.stand, 40, options)
    observation = seen[0]
    for wanted in seen[1:]:
        action = quadruped_expert.stand(observation)
        between = [split.advance(action) for _ in range(parts - 1)]
        observation, *_ = split.step(action)
        np.testing.assert_array_equal(observation, wanted)
        assert len({row.tobytes() for row in (*between, observation)}) == parts
    divided.close()


def test_it_draws_itself_only_if_asked(env):
    assert env.render() is None
    with pytest.raises(ValueError, match="rgb_array"):
        Quadruped(render_mode="human")
