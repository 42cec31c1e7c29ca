"""The learner without an environment, as in a running graph; and what it takes for data."""

import numpy as np
import pytest
import torch
from ledge import INTERFACE, fill, learner, offline

from safetypilot.policies.learn import checkpoint
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.replay import Transition


def test_the_learner_alone_as_in_a_running_graph(tmp_path):
    made = learner(positive_fraction=0.1, seeds=(1,))
    assert made.update(3) == {}
    fill(made)
    metrics = made.update(2)
    assert {"task/critic_loss", "risk/loss"} <= set(metrics)
    assert set(made.export(tmp_path)) == {"task_policy", "safety_critic"}
    made.save(tmp_path / "learner.pt")
    other = learner(positive_fraction=0.1, seeds=(2,))
    other.load(tmp_path / "learner.pt")
    assert other.update(2) == made.update(2)
    assert np.array_equal(other.propose(np.zeros((1, 1))), made.propose(np.zeros((1, 1))))


@pytest.mark.parametrize("name", ["lr", "sqrl", "rspo", "rcpo", "csc", "safety-editor"])
def test_every_state_goes_on_bit_for_bit(name, tmp_path):
    made, other = (learner(name, (seed, 9), positive_fraction=0.1) for seed in (1, 2))
    fill(made)
    made.algorithm.start_episode(1, 3)
    made.update(3)
    made.save(tmp_path / "learner.pt")
    other.load(tmp_path / "learner.pt")
    assert other.update(3) == made.update(3)
    rows = np.zeros((2, 1))
    assert np.array_equal(other.propose(rows), made.propose(rows))
    assert np.array_equal(other.recover(rows[0], 1), made.recover(rows[0], 1))


def test_weights_alone_go_on_with_other_data(tmp_path):
    """As the learner of a running graph starts from a finished training."""
    made = learner("recovery-rl", (3, 4))
    for index in range(2):
        made.load_offline(offline("ledge", 100, index), index)
    made.update_risk()
    made.save_weights(tmp_path / "weights.pt", 1)
    other = learner("lr", (8,))
    other.load(tmp_path / "weights.pt")
    rows = np.array([[0.3], [0.3]])
    assert other.risks(rows[:1], rows[:1])[0] == pytest.approx(made.risks(rows, rows)[1], abs=1e-6)
    assert (other.scaled, other.task_replay.size) == (True, 0)


def test_demonstrations_reach_the_task_policy_and_a_violation_is_no_way_out():
    made = learner(task_demos=0.5, batch=8)
    data = offline("ledge", 200, 0)
    assert data["cost"].sum() > 0
    made.load_offline(data)
    assert made.demos.size == 200
    assert not made.demos.rows().terminated.any()
    assert "task/critic_loss" in made.finite(made.update_task())


def test_a_task_batch_has_its_share_of_demonstrations():
    made = learner(task_demos=0.25, batch=16)
    data = offline("ledge", 100, 0)
    made.load_offline({**data, "reward": np.full(100, 7.0)})
    fill(made)  # rewards of -1
    seen = []
    made.algorithm.reward = lambda batch: seen.append(batch.reward) or batch.reward
    made.update_task()
    assert seen[0][0].tolist() == [7.0] * 4 + [-1.0] * 12


def test_demonstrations_of_their_own_stand_in_for_the_offline_transitions():
    made = learner(task_demos=0.5, demo_size=30)
    made.load_offline(offline("ledge", 100, 0))
    assert made.demos.size == 0
    made.load_demos(offline("ledge", 30, 0))
    assert made.demos.size == 30


def test_demonstrations_need_rewards():
    data = offline("ledge", 20, 0)
    del data["reward"]
    with pytest.raises(LearnError, match="task_demos needs rewards"):
        learner(task_demos=0.5).load_offline(data)


def test_rows_that_start_in_a_violation_are_thinned():
    made = learner(stuck_fraction=0.0)
    made.load_offline(
        {
            "observation": [[0.0], [1.0], [1.0], [5.0]],
            "action": [[1.0]] * 4,
            "cost": [1.0, 1.0, 1.0, 0.0],
            "next_observation": [[1.0], [1.0], [1.0], [6.0]],
        }
    )
    assert made.risk_replay.rows().observation.ravel().tolist() == [0.0, 5.0]


def test_restored_networks_keep_their_scale_when_more_data_come(tmp_path):
    made, other = (learner(seeds=(seed,)) for seed in (0, 1))
    made.load_offline(offline("ledge", 100, 0))
    made.save(tmp_path / "learner.pt")
    other.load(tmp_path / "learner.pt")
    other.load_offline(offline("ledge", 100, 1))
    scales = [one.risk.critic.scaling.observation_scale for one in (made, other)]
    assert torch.equal(*scales)


def test_observations_may_stay_unscaled():
    made = learner(scale_observations=False)
    made.load_offline(offline("ledge", 100, 0))
    assert made.sac.actor.scaling.observation_scale.item() == 1.0
    assert learner().sac.actor.scaling.observation_scale.item() == 1.0


def test_a_loss_that_is_not_finite_is_named():
    made = learner("sac")
    fill(made)
    nothing = np.zeros(1)
    for _ in range(40):
        made.add(Transition(nothing, nothing, nothing, np.nan, 0.0, nothing, False, False))
    with pytest.raises(LearnError, match=r"task/critic_loss.* not finite at update 1; lower the"):
        made.update()


# --- bad data ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cost": None}, "offline data lacks cost"),
        ({"observation": None, "action": None}, "lacks action, observation"),
        ({"cost": np.zeros(0)}, "no rows"),
        ({"observation": np.zeros((50, 2))}, r"observation has shape \(50, 2\), wanted \(50, 1\)"),
        ({"next_observation": np.zeros(50)}, r"next_observation has shape \(50,\), wanted"),
        ({"action": np.zeros((49, 1))}, r"action has shape \(49, 1\), wanted \(50, 1\)"),
        ({"reward": np.zeros((50, 1))}, r"reward has shape \(50, 1\), wanted \(50,\)"),
        ({"terminated": np.zeros(3)}, r"terminated has shape \(3,\)"),
        ({"cost": np.full(50, 2.0)}, "costs from 2 to 2; wanted 1 where a step violated"),
        ({"cost": np.full(50, -1.0)}, "costs from -1"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_anything_is_stored(change, message):
    made = learner()
    data = offline("ledge", 50, 0) | change
    with pytest.raises(LearnError, match=message):
        made.load_offline({name: array for name, array in data.items() if array is not None})
    assert made.risk_replay.size == 0
    assert made.sac.actor.scaling.observation_mean.item() == 0.0


@pytest.mark.parametrize("name", ["observation", "action", "next_observation", "reward", "cost"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_counted_and_refused(name, value):
    data = offline("ledge", 50, 0)
    data[name][[7, 30]] = value
    with pytest.raises(LearnError, match=f"{name} is not finite in 2 of 50 rows, first in row 7"):
        learner().load_offline(data)


def test_pixels_learn_one_seed_at_a_time():
    from types import SimpleNamespace

    from safetypilot.policies.learn.config import Config
    from safetypilot.policies.learn.learner import Learner

    names = {**vars(INTERFACE), "observation_names": ["image[12,12,3]"]}
    with pytest.raises(LearnError, match="one seed at a time"):
        Learner("sac", Config(), SimpleNamespace(**names), (0, 1))


# --- checkpoints of somebody else ---


def test_a_checkpoint_of_another_algorithm_names_both(tmp_path):
    learner("recovery-rl").save(tmp_path / "learner.pt")
    with pytest.raises(LearnError, match="is of recovery-rl, this learner of lr"):
        learner("lr").load(tmp_path / "learner.pt")


def test_an_alias_is_the_same_algorithm(tmp_path):
    learner("sac").save(tmp_path / "learner.pt")
    learner("unconstrained").load(tmp_path / "learner.pt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 9}, r"actor.network.bias_0 is \(1, 1, 8\), here \(1, 1, 9\)"),
        ({"layers": 2}, r"actor.network.bias_1 is \(1, 1, 2\), here \(1, 1, 8\)"),
        ({"ensemble": 3}, r"dynamics_0.* is \(2, .*\), here \(3, "),
        ({"seeds": (0, 1)}, r"is \(1, .*\), here \(2, "),
        ({"recovery_deviation": 0.1}, r"recovery.log_std is none, here \(1, 1, 1\)"),
    ],
)
def test_a_checkpoint_of_other_sizes_names_both(options, message, tmp_path):
    made = learner()
    made.save(tmp_path / "learner.pt")
    other = learner(**options)
    before = [value.clone() for value in other.sac.actor.parameters()]
    with pytest.raises(LearnError, match=f"of another learner: its .*{message}"):
        other.load(tmp_path / "learner.pt")
    assert all(map(torch.equal, before, other.sac.actor.parameters()))


def test_a_checkpoint_of_a_whole_run_is_not_a_learners(tmp_path):
    checkpoint.save(tmp_path / "run.pt", {"episodes": {}})
    with pytest.raises(LearnError, match=r"whole training run; give the weights\.pt"):
        learner().load(tmp_path / "run.pt")
