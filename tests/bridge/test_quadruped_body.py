"""The quadruped's task on a body: the environment's numbers, without the environment."""

from math import acos, cos, sin

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetypilot.envs import quadruped_legs, quadruped_names, registry
from safetypilot.envs.body import Body
from safetypilot.envs.quadruped import Quadruped, load_model
from safetypilot.envs.quadruped_body import CENTRE, LYING, Command, QuadrupedBody, gravity
from safetypilot.envs.quadruped_expert import stand
from safetypilot.envs.quadruped_legs import Pose

LEVEL = {"orientation": (1.0, 0.0, 0.0, 0.0), "gyroscope": (0.0, 0.0, 0.0)}
STILL = (0.0,) * 12
actions = st.lists(st.floats(-1.0, 1.0), min_size=12, max_size=12).map(np.array)
unit = st.tuples(*[st.floats(-1.0, 1.0)] * 4).filter(lambda q: sum(x * x for x in q) > 0.01)


def standing(height=0.3, yaw=0.0, sensors=LEVEL, body=None):
    body = body or QuadrupedBody()
    return body.observe(tuple(quadruped_legs.angles(Pose(height, yaw))), STILL, STILL, sensors)


def test_what_it_declares():
    body: Body = QuadrupedBody()
    assert body.joints == quadruped_names.JOINTS
    assert (body.mode, body.rate_hz) == ("pd", 50.0)
    assert dict(body.sensors) == {"orientation": 4, "gyroscope": 3}
    assert registry.TASKS[registry.IDS["quadruped"]].body.endswith(":QuadrupedBody")


def test_the_action_is_in_the_middle_of_what_the_joints_can():
    for centre, name in zip(CENTRE, quadruped_names.JOINTS, strict=True):
        limit = load_model().joint(name).range
        assert limit[0] < centre < limit[1]
    right, left = CENTRE[:3], CENTRE[3:6]
    assert right == (-left[0], *left[1:]) and CENTRE[6:] == CENTRE[:6]


@given(actions)
def test_an_action_is_targets_inside_the_joints_limits_with_the_gains(action):
    drive = QuadrupedBody().drive(action, STILL)
    assert drive.kp == (quadruped_names.KP,) * 12 and drive.kd == (quadruped_names.KD,) * 12
    assert drive.velocity == drive.effort == STILL
    limits = [limit for leg in quadruped_names.RANGES for limit in leg]
    for target, centre, a, (low, high) in zip(drive.position, CENTRE, action, limits, strict=True):
        assert type(target) is float
        margin = quadruped_names.MARGIN
        assert target == min(max(centre + a, low + margin), high - margin)


@given(unit)
def test_gravity_points_down_in_the_trunks_frame(numbers):
    quaternion = np.array(numbers) / np.linalg.norm(numbers)
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    wanted = matrix.reshape(3, 3).T @ (0.0, 0.0, -1.0)
    np.testing.assert_allclose(gravity(tuple(quaternion.tolist())), wanted, atol=1e-12)


def test_it_observes_imu_joints_and_commands():
    body = QuadrupedBody()
    body.command([Command(0, 0.28, 0.1)])
    position = tuple(np.linspace(0.1, 1.2, 12).tolist())
    velocity = tuple(np.linspace(-1.0, 1.0, 12).tolist())
    half = 0.25
    sensors = {"orientation": (cos(half), sin(half), 0.0, 0.0), "gyroscope": (1.0, 2.0, 3.0)}
    seen = body.observe(position, velocity, STILL, sensors)
    assert seen.dtype == np.float32 and seen.shape == (32,)
    wanted = (0.0, -sin(0.5), -cos(0.5), 1.0, 2.0, 3.0, *position, *velocity, 0.28, 0.1)
    np.testing.assert_allclose(seen, np.array(wanted, np.float32), atol=1e-6)
    assert acos(-seen[2]) == pytest.approx(0.5, abs=1e-6)


def test_only_a_tilt_is_a_fall():
    body = QuadrupedBody()
    for angle, cost in ((0.0, 0.0), (0.79, 0.0), (0.81, 1.0), (3.0, 1.0)):
        for axis in ((1.0, 0.0), (0.0, 1.0), (-0.6, 0.8)):
            x, y = (sin(angle / 2) * a for a in axis)
            sensors = LEVEL | {"orientation": (cos(angle / 2), x, y, 0.0)}
            after = standing(sensors=sensors)
            assert body.judge(standing(), np.zeros(12), after).cost == cost
    lying = body.observe(LYING, STILL, STILL, LEVEL)
    assert body.judge(standing(), np.zeros(12), lying).cost == 0.0


def test_commands_change_with_the_steps_that_were_judged_not_with_those_observed():
    body = QuadrupedBody()
    body.command([Command(0, 0.25, 0.0), Command(2, 0.31, 0.2)])
    asked = []
    for _ in range(4):
        for _ in range(10):
            seen = standing(body=body)
        asked.append(tuple(seen[-2:].round(3).tolist()))
        body.judge(seen, np.zeros(12), seen)
    assert [a[1] for a in asked] == pytest.approx([0.0, 0.0, 0.2, 0.2])


def test_success_is_the_hold_at_the_end_and_a_slip_begins_it_anew():
    hold, steps = quadruped_names.HOLD_STEPS, quadruped_names.EPISODE_STEPS

    def flown(wrong_until, slip=-1):
        body = QuadrupedBody()
        body.command([Command(0, 0.3, 0.1)])
        verdicts = []
        for step in range(steps):
            off = 0.03 if step < wrong_until or step == slip else 0.01
            after = standing(0.3 + off, 0.1 + off, body=body)
            verdicts.append(body.judge(after, np.zeros(12), after).success)
        assert not any(verdicts[:-1])
        return verdicts[-1]

    assert flown(0) and flown(steps - hold)
    assert not flown(steps - hold + 1)
    assert not flown(0, slip=steps - 10) and flown(0, slip=steps - hold - 1)


def test_the_reward_is_best_where_it_is_told_to_be():
    def worth(*pose):
        body = QuadrupedBody()
        body.command([Command(0, 0.3, 0.1)])
        return body.judge(standing(), np.zeros(12), standing(*pose, body=body)).reward

    assert worth(0.3, 0.1) == pytest.approx(0.0, abs=1e-5)
    assert worth(0.3, 0.1) > worth(0.29, 0.1) > worth(0.25, 0.1)
    assert worth(0.3, 0.1) > worth(0.3, 0.0) > worth(0.3, -0.1)


def test_a_body_and_a_motor_law_alone_are_the_environment():
    """What a robot's device does with what the body asks, 500 times a second, is the task."""
    env, body, model = Quadruped(), QuadrupedBody(), load_model()
    data = mujoco.MjData(model)
    q = [model.joint(name).qposadr[0] for name in body.joints]
    dq = [model.joint(name).dofadr[0] for name in body.joints]
    observation, _ = env.reset(seed=3)
    start = body.start(np.random.Generator(np.random.PCG64(3)))
    np.testing.assert_allclose(observation[6:18], np.array(start, np.float32))
    data.qpos[:] = env._data.qpos
    position = tuple(data.qpos[q].tolist())
    for _ in range(60):
        action = stand(observation)
        for _ in range(10):
            drive = body.drive(action, position)
            effort = drive.kp * (drive.position - data.qpos[q]) - drive.kd * data.qvel[dq]
            data.ctrl[:] = np.clip(effort, *model.actuator_ctrlrange.T)
            mujoco.mj_step(model, data)
        before = observation
        observation, reward, _, _, info = env.step(action)
        sensors = {
            "orientation": tuple(data.qpos[3:7].tolist()),
            "gyroscope": tuple(data.qvel[3:6].tolist()),
        }
        position, velocity = tuple(data.qpos[q].tolist()), tuple(data.qvel[dq].tolist())
        seen = body.observe(position, velocity, STILL, sensors)
        np.testing.assert_array_equal(seen, observation)
        verdict = body.judge(before, action, seen)
        assert (verdict.reward, verdict.cost) == (reward, info["cost"])


def test_the_imu_of_the_model_says_what_the_environment_observes():
    model = load_model()
    data = mujoco.MjData(model)
    data.qvel[3:6] = 0.5, -1.0, 2.0
    data.qpos[3:7] = np.array((0.9, 0.1, -0.2, 0.3)) / np.linalg.norm((0.9, 0.1, -0.2, 0.3))
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.sensor("orientation").data, data.qpos[3:7], atol=1e-12)
    np.testing.assert_allclose(data.sensor("gyroscope").data, data.qvel[3:6], atol=1e-12)
