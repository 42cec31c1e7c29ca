"""The arm: the model's numbers, servos that lag, what is a violation, where episodes begin."""

from importlib import resources
from math import hypot

import mujoco
import numpy as np
import pytest

from safetypilot.envs import arm_body, arm_data, geometry, registry
from safetypilot.envs.arm import Arm
from safetypilot.envs.offline import expert, offline_data, task_data

BESIDE = (0.05, 1.0)  # angles with the tip 13 mm from where the zone's margin begins
ZONE_X, _, ZONE_RADIUS = geometry.ARM.discs[0]


@pytest.fixture(scope="module")
def model():
    text = resources.files("safetypilot.envs").joinpath("assets", "arm.xml").read_text("utf-8")
    return mujoco.MjModel.from_xml_string(text)


def at(env, *position, **options):
    return env.reset(seed=0, options={"position": position, **options})


def test_the_numbers_are_those_of_the_model(model):
    assert model.body("lower").pos[0] == arm_body.LINKS[0]
    assert model.site("tip").pos[0] == arm_body.LINKS[1]
    np.testing.assert_allclose(model.jnt_range - arm_body.RANGES, [[-0.05, 0.05]] * 2)
    np.testing.assert_allclose(model.jnt_axis, [[0, 0, 1]] * 2)
    zone = model.geom("keepout")
    np.testing.assert_allclose((*zone.pos[:2], zone.size[0]), geometry.ARM.discs[0])
    assert zone.type == mujoco.mjtGeom.mjGEOM_CYLINDER
    assert model.geom("tool").size[0] == geometry.ARM.agent_radius
    assert [model.joint(i).name for i in range(model.njnt)] == list(arm_body.ArmBody.joints)
    assert (1 / arm_body.RATE_HZ) % model.opt.timestep == pytest.approx(0.0, abs=1e-12)


def test_the_table_has_the_numbers_of_the_body():
    described = registry.describe("arm")
    assert described["action_high"] == [arm_body.STEP_LIMIT] * 2
    assert registry.TASKS[registry.IDS["arm"]].body == "safetypilot.envs.arm_body:ArmBody"


def test_the_tip_is_where_the_model_has_it(model):
    data = mujoco.MjData(model)
    for angles in np.random.default_rng(0).uniform(*np.array(arm_body.RANGES).T, (50, 2)):
        data.qpos[:] = angles
        mujoco.mj_forward(model, data)
        np.testing.assert_allclose(arm_body.tip(tuple(angles)), data.site("tip").xpos[:2])


def test_targets_and_the_way_past_the_zone_are_within_reach():
    x0, x1, y0, y1 = geometry.ARM_TARGETS
    for corner in ((x0, y0), (x0, y1), (x1, y0), (x1, -y1)):
        assert len(arm_data.solutions(corner)) == 2
        for angles in arm_data.solutions(corner):
            np.testing.assert_allclose(arm_body.tip(tuple(angles)), corner, atol=1e-12)
            assert arm_body.clearance(tuple(angles)) > arm_body.MARGIN + 0.01
    room = ZONE_RADIUS + geometry.ARM.agent_radius + arm_body.MARGIN
    for x in (ZONE_X - room - 0.01, ZONE_X + room + 0.01):
        assert arm_data.solutions((x, 0.0))


def test_servos_lag_and_hold():
    env = Arm()
    before, _ = at(env, 1.0, -1.0)
    limit = arm_body.STEP_LIMIT
    after = env.step((limit, limit))[0]
    assert ((after[2:4] - before[2:4] > 0.3 * limit) & (after[2:4] - before[2:4] < limit)).all()
    for _ in range(3):  # no step asked: it comes to rest, and stays
        before, after = after, env.step((0.0, 0.0))[0]
    np.testing.assert_allclose(after[2:4], before[2:4], atol=1e-3)
    assert np.abs(after[4:6]).max() < 0.02


def test_servos_hear_of_their_goal_late_by_chance_but_not_very_late():
    env = Arm()
    ways = []
    for seed in range(40):
        env.reset(seed=seed, options={"position": (1.0, -1.0)})
        ways.append(float(env.step((0.08, 0.0))[0][2]) - 1.0)
    assert len(set(ways)) == 6  # 0 to 10 ms, by 2 ms
    assert 0.6 * max(ways) < min(ways) < 0.9 * max(ways)


def test_a_step_ends_before_the_end_of_the_joint():
    env = Arm()
    at(env, *(high for _, high in arm_body.RANGES))
    for _ in range(10):
        observation, *_ = env.step((arm_body.STEP_LIMIT,) * 2)
    assert env.observation_space.contains(observation)
    np.testing.assert_allclose(observation[2:4], [1.95, 2.35], atol=0.02)


def drive_to(env, angles, steps=40):
    """Straight in joint angles; the last answer of the environment."""
    for _ in range(steps):
        way = np.subtract(angles, env._observation[2:4])
        answer = env.step(way * min(1.0, arm_body.STEP_LIMIT / np.abs(way).max()))
        if answer[2]:
            return answer
    return answer


def test_a_tool_in_the_margin_is_a_violation_and_success_is_not_beside_it():
    env = Arm()
    _, info = at(env, *BESIDE, target=(ZONE_X, 0.01))
    assert info == {"cost": 0.0, "success": False}
    (inside,) = arm_data.solutions((ZONE_X, 0.0))[:1]
    observation, reward, terminated, _, info = drive_to(env, inside)
    assert terminated
    assert info == {"cost": 1.0, "success": False}
    x, y = observation[:2]
    assert 0.0 < arm_body.clearance(tuple(observation[2:4].tolist())) < arm_body.MARGIN
    assert reward == pytest.approx(-hypot(x - ZONE_X, y - 0.01) - 1.05, abs=1e-6)


def test_success_is_the_tip_at_the_target():
    env = Arm()
    target = (0.18, 0.12)
    (goal, *_) = arm_data.solutions(target)
    at(env, *(goal + 0.2), target=target)
    observation, _, terminated, _, info = drive_to(env, goal)
    assert terminated
    assert info == {"cost": 0.0, "success": True}
    assert hypot(*(observation[:2] - target)) < geometry.ARM.goal_radius


def test_an_episode_may_go_on_where_the_last_one_ended():
    env = Arm()
    at(env, 1.0, -1.0)
    moving = env.step((0.08, 0.0))[0]
    going, _ = env.reset(options={"go_on": True})
    np.testing.assert_array_equal(going[:6], moving[:6])
    assert not np.array_equal(going[6:], moving[6:])
    assert not np.array_equal(env.reset()[0][:4], moving[:4])


def test_nothing_goes_on_from_a_violation_or_from_nowhere():
    env = Arm()
    first, _ = env.reset(seed=3, options={"go_on": True})
    np.testing.assert_array_equal(first, Arm().reset(seed=3)[0])
    at(env, *BESIDE)
    (inside, *_) = arm_data.solutions((ZONE_X, 0.0))
    assert drive_to(env, inside)[4]["cost"] == 1.0
    fresh, _ = env.reset(options={"go_on": True})
    assert arm_body.clearance(tuple(fresh[2:4].tolist())) > arm_body.MARGIN


def test_episodes_begin_free_of_the_zone_with_the_target_on_the_other_side():
    env = Arm()
    x0, x1, y0, y1 = geometry.ARM_TARGETS
    sides, among = set(), 0
    for seed in range(60):
        observation, _ = env.reset(seed=seed)
        x, y, *angles, _, _, way_x, way_y = observation.tolist()
        target_x, target_y = x + way_x, y + way_y
        assert arm_body.clearance(tuple(angles)) > arm_body.MARGIN
        assert x0 - 1e-6 <= target_x <= x1 + 1e-6 and y * target_y <= 0.0
        assert y0 - 1e-6 <= abs(target_y) <= y1 + 1e-6
        sides.add(target_y > 0)
        among += x0 <= x <= x1 and y0 <= abs(y) <= y1
    assert sides == {True, False}
    assert 30 < among < 60
    starts = [env.reset()[0][2:4].tolist() for _ in range(500)]
    assert min(arm_body.clearance(tuple(start)) for start in starts) > arm_body.MARGIN + 0.009


@pytest.mark.parametrize("make", [registry.make, registry.make_flat])
def test_the_expert_reaches_every_target_and_never_violates(make):
    policy, env = expert("arm"), make("arm")
    for seed in range(15):
        observation, _ = env.reset(seed=seed)
        over = False
        while not over:
            action = policy(observation)
            assert action.dtype == np.float32 and env.action_space.contains(action)
            observation, _, terminated, truncated, info = env.step(action)
            over = terminated or truncated
        assert info == {"cost": 0.0, "success": True}


def test_the_straight_way_meets_the_zone():
    env = Arm()
    costs = []
    for seed in range(15):
        observation, _ = env.reset(seed=seed)
        for _ in range(100):
            observation, _, terminated, _, info = env.step(arm_data._straight(observation))
            if terminated:
                break
        costs.append(info["cost"])
    assert sum(costs) >= 10


def test_the_expert_leads_out_of_the_zone():
    env, policy = Arm(), expert("arm")
    (inside, *_) = arm_data.solutions((ZONE_X - 0.02, 0.0))
    observation, _ = at(env, *inside)
    for _ in range(60):
        observation, *_, info = env.step(policy(observation))
        assert info["cost"] == 0.0  # it only ever leads out
    assert arm_body.clearance(tuple(observation[2:4].tolist())) > arm_body.MARGIN


def test_the_offline_data_show_violations_and_successes():
    data = offline_data("arm", 1000, seed=1)
    assert 20 <= data["cost"].sum() <= 100
    ends = data["terminated"]
    successes = np.hypot(*data["next_observation"][:, 6:].T)
    assert ((successes < geometry.ARM.goal_radius) & ends).sum() >= 5
    assert (data["cost"][:500].sum(), len(data["cost"])) == (0.0, 1000)


def test_in_the_demonstrations_nobody_violates():
    data = task_data("arm", 600, seed=1)
    assert len(data["cost"]) == 600 and not data["cost"].any()
    assert data["terminated"].sum() >= 5


@pytest.mark.parametrize("option", ["position", "target"])
def test_a_bad_option_is_refused(option):
    with pytest.raises(ValueError, match=f"the {option} is .* two finite numbers are needed"):
        Arm().reset(options={option: (np.nan, 0.0)})


def test_a_bad_render_mode_is_refused():
    with pytest.raises(ValueError, match="render_mode is 'human'"):
        Arm(render_mode="human")
