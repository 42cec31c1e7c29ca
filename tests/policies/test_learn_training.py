"""A whole training on a tiny world: files, resume, interruption, divergence."""

import io
import json
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from safetypilot.models import runtime
from safetypilot.policies.learn import checkpoint, recovery_rl, trainer
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.learner import RecoveryLearner
from safetypilot.policies.learn.replay import Transition
from safetypilot.policies.learn.world import World


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Two threads that wait for each other are a hundred times slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


DESCRIPTION = {
    "observation_names": ["x"],
    "observation_units": ["m"],
    "action_names": ["push"],
    "action_units": ["m"],
    "action_low": [-1.0],
    "action_high": [1.0],
}


class Ledge:
    """A line: the goal is at +2, the cliff at -2, an episode lasts 12 steps."""

    def reset(self, seed=None):
        self.rng = np.random.default_rng(seed)
        self.x, self.count = self.rng.uniform(-1, 1), 0
        return np.array([self.x], np.float32), {}

    def step(self, action):
        self.x += 0.5 * float(np.clip(action[0], -1, 1)) + 0.05 * self.rng.standard_normal()
        self.count += 1
        cost, success = float(self.x < -2), self.x > 2
        ended = bool(cost) or success
        info = {"cost": cost, "success": success}
        observation = np.array([self.x], np.float32)
        return observation, -abs(2 - self.x), ended, not ended and self.count >= 12, info

    def close(self):
        pass


def offline(env, size, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, size).astype(np.float32)
    action = rng.uniform(-1, 1, size).astype(np.float32)
    following = x + 0.5 * action
    return {
        "observation": x[:, None],
        "action": action[:, None],
        "cost": (following < -2).astype(np.float32),
        "reward": -np.abs(2 - following),
        "next_observation": following[:, None],
    }


WORLD = World(lambda env: Ledge(), lambda env: DESCRIPTION, offline)
TINY = {
    "hidden": "8", "layers": "1", "batch": "16", "offline_size": "300", "offline_updates": "30",
    "dynamics_epochs": "2", "dynamics_hidden": "8", "ensemble": "2", "horizon": "3",
    "planner_population": "8", "planner_elites": "2", "planner_iterations": "1",
    "planner_particles": "2", "start_steps": "10", "evaluate_every": "2",
    "evaluate_episodes": "2", "final_episodes": "2", "novice_episodes": "2",
    "checkpoint_every": "3", "dynamics_update_episodes": "2", "automatic_alpha": "true",
}  # fmt: skip


def tiny(out, episodes, **options):
    settings = TINY | options.pop("settings", {})
    if "resume" in options:
        settings = {}
    return trainer.train(
        out=out, env="ledge", seed=3, episodes=episodes, settings=settings, world=WORLD, **options
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return out, tiny(out, 6)


def test_what_a_run_leaves(whole):
    out, summary = whole
    assert json.loads((out / "summary.json").read_text()) == summary
    wanted = {"algorithm", "env", "seed", "episodes", "steps", "successes", "violations", "ratio"}
    assert wanted | {"return_mean", "wall_s", "updates_per_s"} <= set(summary)
    assert summary["episodes"] == 6
    assert summary["ratio"] == (summary["successes"] + 1) / (summary["violations"] + 1)
    assert not summary["interrupted"]
    assert set(summary["evaluation"]) == {
        f"{policy}_{how}" for policy in ("trained", "novice") for how in ("shielded", "alone")
    }
    assert list((out / "tensorboard").iterdir())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["episode"] for line in lines[1:]] == [1, 2, 3, 4, 5, 6]
    assert "offline/risk/loss" in lines[0]
    assert "evaluation/successes" in lines[2]


def test_the_files_fly(whole):
    models = whole[0] / "models"
    interface = SimpleNamespace(**DESCRIPTION)
    names = {
        "trained.onnx": "task_policy", "novice.onnx": "task_policy",
        "critic.onnx": "safety_critic", "dynamics.onnx": "dynamics",
    }  # fmt: skip
    manifest = json.loads((models / "manifest.json").read_text())
    assert set(manifest["files"]) == set(names) == {p.name for p in models.glob("*.onnx")}
    assert {"command", "commit", "seed", "date", "figures", "settings"} <= set(manifest)
    for name, kind in names.items():
        model = runtime.stage(models / name, kind, interface)
        assert model.sha256 == manifest["files"][name]["sha256"]
        assert model.contract.run["seed"] == 3
    assert runtime.load(models / "novice.onnx").contract.run["episodes"] == 2


def test_resume_continues_bit_for_bit(whole, tmp_path):
    out, _ = whole
    tiny(tmp_path, 3)
    resumed = tiny(tmp_path, 6, resume=tmp_path)
    assert resumed["episodes"] == 6
    assert (tmp_path / "metrics.jsonl").read_text() == (out / "metrics.jsonl").read_text()
    for name in ("trained.onnx", "critic.onnx", "dynamics.onnx", "novice.onnx"):
        first, second = ((d / "models" / name).read_bytes() for d in (out, tmp_path))
        assert first == second, name


def test_a_run_killed_after_its_checkpoint_loses_only_what_came_later(whole, tmp_path):
    tiny(tmp_path, 3)
    with (tmp_path / "metrics.jsonl").open("a") as file:  # written after the checkpoint
        file.write('{"step": 100000, "episode": 4.0}\n{"step": 1000')
    tiny(tmp_path, 6, resume=tmp_path / trainer.CHECKPOINT)
    wanted = (whole[0] / "metrics.jsonl").read_text()
    assert (tmp_path / "metrics.jsonl").read_text() == wanted


@pytest.mark.parametrize(
    ("algorithm", "files"),
    [
        ("recovery-rl-model-free", {"trained", "critic", "recovery", "novice"}),
        ("unconstrained", {"trained", "novice"}),
    ],
)
def test_the_other_algorithms(algorithm, files, tmp_path):
    summary = tiny(tmp_path, 2, algorithm=algorithm)
    assert {path.stem for path in (tmp_path / "models").glob("*.onnx")} == files
    assert (summary["interventions"] == 0) or algorithm != "unconstrained"


def test_without_offline_data_and_with_every_option(tmp_path):
    settings = {
        "offline_size": "0", "bootstrap": "composite", "gaussian_recovery": "true",
        "recovery": "model-free", "relabel": "false", "risk_loss": "squared",
    }  # fmt: skip
    assert tiny(tmp_path, 3, settings=settings)["episodes"] == 3


def test_demonstrations_reach_the_task_policy_and_a_violation_is_no_way_out():
    config = Config(task_demos=0.5, batch=8, hidden=8, layers=1)
    learner = RecoveryLearner(config, SimpleNamespace(**DESCRIPTION))
    data = offline("ledge", 200, 0)
    assert data["cost"].sum() > 0
    learner.load_offline(data)
    assert learner.demos.size == 200
    assert not learner.demos.rows().terminated.any()
    assert "task/critic_loss" in learner.finite(learner.update_task())


def test_rows_that_start_in_a_violation_are_thinned():
    config = Config(stuck_fraction=0.0, hidden=8, layers=1)
    learner = RecoveryLearner(config, SimpleNamespace(**DESCRIPTION))
    learner.load_offline(
        {
            "observation": [[0.0], [1.0], [1.0], [5.0]],
            "action": [[1.0]] * 4,
            "cost": [1.0, 1.0, 1.0, 0.0],
            "next_observation": [[1.0], [1.0], [1.0], [6.0]],
        }
    )
    assert learner.risk_replay.rows().observation.ravel().tolist() == [0.0, 5.0]


def test_a_loss_that_is_not_finite_stops_and_names_itself(tmp_path):
    def poisoned(env, size, seed):
        data = offline(env, size, seed)
        data["next_observation"][::3] = np.nan
        return data

    world = World(WORLD.make, WORLD.describe, poisoned)
    with pytest.raises(LearnError, match=r"episode 1, step 0: risk/loss.* not finite at update 0"):
        trainer.train(out=tmp_path, env="ledge", settings=TINY, episodes=1, world=world)


def test_the_learner_alone_as_in_a_running_graph(tmp_path):
    config = Config(batch=16, hidden=8, layers=1, positive_fraction=0.1)
    interface = SimpleNamespace(**DESCRIPTION)
    learner = RecoveryLearner(config, interface, seed=1)
    rng = np.random.default_rng(0)
    assert learner.update(3) == {}
    for index in range(40):
        x, action = rng.normal(size=1), rng.uniform(-1, 1, 1)
        cost = float(index % 5 == 0)
        learner.add(Transition(x, action, action, -1.0, cost, x + action, cost > 0, False))
    metrics = learner.update(2)
    assert {"task/critic_loss", "risk/loss"} <= set(metrics)
    assert set(learner.export(tmp_path)) == {"task_policy", "safety_critic"}
    learner.save(tmp_path / "learner.pt")
    other = RecoveryLearner(config, interface, seed=2)
    other.load(tmp_path / "learner.pt")
    assert other.update(2) == learner.update(2)
    assert np.array_equal(other.propose(np.zeros(1)), learner.propose(np.zeros(1)))


def test_ctrl_c_ends_after_the_episode_with_a_checkpoint(tmp_path):
    class Interrupting(Ledge):
        def step(self, action):
            if self.count == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return super().step(action)

    before = signal.getsignal(signal.SIGINT)
    world = World(lambda env: Interrupting(), WORLD.describe, WORLD.offline_data)
    summary = trainer.train(out=tmp_path, env="ledge", settings=TINY, episodes=50, world=world)
    assert summary["interrupted"]
    assert summary["episodes"] == 1
    assert checkpoint.load(tmp_path / trainer.CHECKPOINT)["tally"]["episodes"] == 1
    assert signal.getsignal(signal.SIGINT) is before
    resumed = tiny(tmp_path, 3, resume=tmp_path)
    assert resumed["episodes"] == 3


def test_wrong_input_is_refused_before_anything_is_written(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(LearnError, match="unknown algorithm 'sacc'; known: recovery-rl"):
        trainer.train("sacc", out=out, world=WORLD)
    with pytest.raises(LearnError, match="did you mean 'gamma'"):
        trainer.train(out=out, settings={"gama": "1"}, world=WORLD)
    with pytest.raises(LearnError, match="does not exist"):
        trainer.train(out=out, resume=tmp_path / "none.pt", world=WORLD)
    (tmp_path / "bad.pt").write_text("no checkpoint")
    with pytest.raises(LearnError, match="is not a checkpoint"):
        trainer.train(out=out, resume=tmp_path / "bad.pt", world=WORLD)
    torch.save({"format": 99}, tmp_path / "old.pt")
    with pytest.raises(LearnError, match="format 1"):
        trainer.train(out=out, resume=tmp_path / "old.pt", world=WORLD)
    assert not out.exists()


def test_environments_without_a_recipe_say_how_to_go_on(tmp_path):
    def none(env, size, seed):
        raise ValueError(f"no offline data recipe for {env!r}")

    world = World(WORLD.make, WORLD.describe, none)
    with pytest.raises(LearnError, match="set offline_size=0"):
        trainer.train(out=tmp_path, env="ledge", settings=TINY, episodes=1, world=world)


def test_the_installed_world_is_found_by_name(tmp_path):
    world = World.installed()
    assert world.interface("maze").action_high == [0.1, 0.1]
    with pytest.raises(LearnError, match="unknown environment 'mase'"):
        trainer.train(env="mase", out=tmp_path, world=world)


def test_evaluation_disturbs_nothing_and_repeats(whole):
    models = whole[0] / "models"
    files = {
        "task_policy": models / "trained.onnx",
        "safety_critic": models / "critic.onnx",
        "dynamics": models / "dynamics.onnx",
    }
    config = Config(**whole[1]["settings"])
    interface = SimpleNamespace(**DESCRIPTION)
    runs = [
        recovery_rl.evaluate(Ledge(), files, config, interface, episodes=3, seed=1)
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert runs[0]["episodes"] == 3


def test_the_task_policy_may_learn_from_demonstrations_first(tmp_path):
    tiny(tmp_path, 1, settings={"task_demos": "0.5", "task_offline_updates": "5"})
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert "offline/task/critic_loss" in first


def test_progress_shows_counts(tmp_path):
    from rich.console import Console

    text = io.StringIO()
    tiny(tmp_path, 2, progress=True, console=Console(file=text, force_terminal=True, width=160))
    assert "learning risk offline" in text.getvalue()
    assert "successes" in text.getvalue()


def test_restored_networks_keep_their_scale_when_more_data_come(tmp_path):
    config = Config(hidden=8, layers=1)
    interface = SimpleNamespace(**DESCRIPTION)
    learner, other = (RecoveryLearner(config, interface, seed) for seed in (0, 1))
    learner.load_offline(offline("ledge", 100, 0))
    learner.save(tmp_path / "learner.pt")
    other.load(tmp_path / "learner.pt")
    other.load_offline(offline("ledge", 100, 1))
    scales = [one.risk.critic.scaling.observation_scale for one in (learner, other)]
    assert torch.equal(*scales)
