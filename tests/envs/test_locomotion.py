"""The walkers: dimensions, costs by posed positions, rewards without a bonus."""

import copy

import numpy as np
import pytest

from safetypilot.envs import locomotion_names, registry

BODIES = {
    "ant-no-bonus": locomotion_names.ANT,
    "cheetah-no-flip": locomotion_names.CHEETAH,
    "hopper-no-bonus": locomotion_names.HOPPER,
    "humanoid-no-bonus": locomotion_names.HUMANOID,
}
FALLERS = [name for name in BODIES if name != "cheetah-no-flip"]


def posed(name, **positions):
    """The environment with some joint positions (by index q0, q1, ...) set, at rest."""
    env = registry.make(name).unwrapped
    env.reset(seed=0)
    qpos = env.init_qpos.copy()
    for key, value in positions.items():
        qpos[int(key[1:])] = value
    env.set_state(qpos, np.zeros_like(env.init_qvel))
    return env


def still(env):
    return np.zeros(env.action_space.shape)


@pytest.mark.parametrize(
    ("name", "observation", "action", "limit"),
    [
        ("ant-no-bonus", 27, 8, 1.0),
        ("hopper-no-bonus", 11, 3, 1.0),
        ("cheetah-no-flip", 17, 6, 1.0),
        ("humanoid-no-bonus", 45, 17, 0.4),
    ],
)
def test_dimensions_are_the_published_ones(name, observation, action, limit):
    env = registry.make(name)
    assert env.observation_space.shape == (observation,)
    assert env.observation_space.dtype == np.float32
    assert env.action_space.shape == (action,)
    np.testing.assert_allclose(env.action_space.high, limit)
    assert env.unwrapped.frame_skip == (4 if name == "hopper-no-bonus" else 5)


@pytest.mark.parametrize(("name", "body"), BODIES.items())
def test_names_are_in_the_models_order(name, body):
    model = registry.make(name).unwrapped.model

    def ours(joint):
        for end, word in (("thigh", "_thigh"), ("shin", "_shin"), ("foot", "_foot")):
            if joint in ("b" + end, "f" + end):
                return {"b": "back", "f": "front"}[joint[0]] + word
        return joint.removesuffix("_joint")

    driven = [model.joint(model.actuator_trnid[i, 0]).name for i in range(model.nu)]
    assert [ours(joint) for joint in driven] == list(body.motors)
    np.testing.assert_allclose(model.actuator_gear[:, 0], list(body.motors.values()))
    joints = [ours(model.joint(i).name) for i in range(model.njnt) if model.jnt_limited[i]]
    joints = [joint for joint in joints if not joint.startswith("root")]
    assert body.positions[-len(joints) :] == joints
    assert body.velocities[-len(joints) :] == [f"rate_{joint}" for joint in joints]
    assert len(body.observation_units) == len(body.observation_names)


@pytest.mark.parametrize(
    ("name", "height", "cost"),
    [
        ("ant-no-bonus", 0.9, 0.0),
        ("ant-no-bonus", 1.2, 1.0),
        ("hopper-no-bonus", 1.25, 0.0),
        ("hopper-no-bonus", 0.5, 1.0),
        ("humanoid-no-bonus", 1.4, 0.0),
        ("humanoid-no-bonus", 2.2, 1.0),
        ("humanoid-no-bonus", 0.8, 1.0),
    ],
)
def test_height_decides(name, height, cost):
    env = posed(name, **{"q1" if "hopper" in name else "q2": height})
    _, _, terminated, truncated, info = env.step(still(env))
    assert info["cost"] == cost
    assert terminated == bool(cost)
    assert not truncated


@pytest.mark.parametrize(("pitch", "cost"), [(0.1, 0.0), (0.25, 1.0), (-0.25, 1.0)])
def test_the_hopper_may_not_lean(pitch, cost):
    env = posed("hopper-no-bonus", q2=pitch)
    assert env.step(still(env))[4]["cost"] == cost


@pytest.mark.parametrize(
    ("positions", "cost"),
    [
        ({}, 0.0),
        ({"q2": np.pi}, 1.0),  # on its back
        ({"q2": np.pi, "q1": 1.0}, 0.0),  # upside down, but in the air
        ({"q2": 1.8, "q1": 0.05}, 1.0),  # on its head
        ({"q2": 1.8, "q1": 0.3}, 0.0),
    ],
)
def test_the_cheetahs_head_may_not_touch_the_floor_and_nothing_ends(positions, cost):
    env = posed("cheetah-no-flip", **positions)
    if positions and "q1" not in positions:
        for _ in range(20):  # let it settle
            info = env.step(still(env))[4]
    else:
        info = {"cost": env._cost()}
    assert info["cost"] == cost
    _, _, terminated, truncated, _ = env.step(still(env))
    assert not terminated
    assert not truncated


@pytest.mark.parametrize("name", FALLERS)
def test_standing_still_earns_no_bonus(name):
    env = posed(name)
    _, reward, _, _, info = env.step(still(env))
    assert info["reward_survive"] == 0.0
    assert abs(reward) < 0.6  # with the bonus it would be 1 or 5 more


def test_rewards_are_the_documented_ones():
    env = registry.make("ant-no-bonus").unwrapped
    env.reset(seed=0)
    action = np.full(8, 0.5)
    _, reward, _, _, info = env.step(action)
    contact = 0.0005 * np.square(np.clip(env.data.cfrc_ext, -1, 1)).sum()
    assert reward == pytest.approx(info["x_velocity"] - 0.5 * 8 * 0.25 - contact)
    env = registry.make("humanoid-no-bonus").unwrapped
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.full(17, 0.2))
    contact = min(5e-7 * np.square(env.data.cfrc_ext).sum(), 10.0)
    assert reward == pytest.approx(1.25 * info["x_velocity"] - 0.1 * 17 * 0.04 - contact)


def test_actions_beyond_the_box_are_clipped():
    ends = []
    for scale in (1.0, 7.0):
        env = registry.make("hopper-no-bonus").unwrapped
        env.reset(seed=0)
        ends.append(env.step(scale * np.array([1.0, -1.0, 1.0]))[:2])
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


def test_the_cost_test_does_not_change_the_motion():
    import gymnasium

    ours, theirs = registry.make("cheetah-no-flip"), None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(ours.unwrapped), "_cost", lambda self: 0.0)
        theirs = registry.make("cheetah-no-flip")
        states = [_run(theirs)]
    states.append(_run(ours))
    np.testing.assert_array_equal(*states)
    assert isinstance(theirs, gymnasium.Env)


def _run(env):
    env.reset(seed=0)
    env.action_space.seed(0)
    return np.array([env.step(env.action_space.sample())[0] for _ in range(60)])


def test_copies_and_no_litter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in BODIES:
        env = registry.make(name).unwrapped
        assert type(copy.deepcopy(env)) is type(env)
    assert not list(tmp_path.iterdir())  # MuJoCo logs warnings to a file in the working directory
