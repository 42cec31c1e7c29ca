"""A whole training on a tiny world: files, interruption, divergence, wrong input."""

import io
import json
import os
import signal

import numpy as np
import pytest
import torch
from ledge import DESCRIPTION, INTERFACE, TINY, WORLD, Ledge, offline, tiny

from safetypilot.models import runtime
from safetypilot.policies.learn import catalogue, checkpoint, evaluation, trainer
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.seeds import seeds_of
from safetypilot.policies.learn.trainer import Request
from safetypilot.policies.learn.world import World


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return out, tiny(out, 6)[0]


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_what_a_run_leaves(whole):
    out, summary = whole
    assert json.loads((out / "summary.json").read_text()) == summary
    wanted = {"algorithm", "env", "seed", "episodes", "steps", "successes", "violations", "ratio"}
    wanted |= {"preset", "interventions", "settings", "updates"}
    assert wanted | {"return_mean", "wall_s", "updates_per_s"} <= set(summary)
    assert summary["episodes"] == 6
    assert summary["ratio"] == (summary["successes"] + 1) / (summary["violations"] + 1)
    assert not summary["interrupted"]
    assert set(summary["evaluation"]) == {
        f"{policy}_{how}" for policy in ("trained", "novice") for how in ("shielded", "alone")
    }
    assert list((out / "tensorboard").iterdir())
    logged = lines(out)
    assert [line["episode"] for line in logged[1:]] == [1, 2, 3, 4, 5, 6]
    figures = ("return", "steps", "success", "violation", "interventions", "recovering")
    for line in logged[1:]:
        assert {f"episode/{name}" for name in figures} <= set(line)
        assert {"step", "run/successes", "run/violations", "run/ratio"} <= set(line)
    assert "offline/risk/loss" in logged[0]
    assert "evaluation/successes" in logged[2]
    assert logged[-1]["run/violations"] == summary["violations"]
    assert sum(line["episode/interventions"] for line in logged[1:]) == summary["interventions"]
    assert logged[-1]["step"] == summary["steps"]


def test_the_files_fly(whole):
    models = whole[0] / "models"
    names = {
        "trained.onnx": "task_policy", "novice.onnx": "task_policy",
        "critic.onnx": "safety_critic", "dynamics.onnx": "dynamics",
    }  # fmt: skip
    manifest = json.loads((models / "manifest.json").read_text())
    assert set(manifest["files"]) == set(names) == {p.name for p in models.glob("*.onnx")}
    assert {"command", "commit", "seed", "date", "figures", "settings"} <= set(manifest)
    for name, kind in names.items():
        model = runtime.stage(models / name, kind, INTERFACE)
        assert model.sha256 == manifest["files"][name]["sha256"]
        assert model.contract.run["seed"] == 3
        assert model.contract.run["algorithm"] == "recovery-rl"
    assert runtime.load(models / "novice.onnx").contract.run["episodes"] == 2


def test_several_seeds_have_a_directory_each(tmp_path):
    summaries = tiny(tmp_path, 2, seeds=(0, 4), settings={"final_episodes": "0"})
    assert [summary["seed"] for summary in summaries] == [0, 4]
    assert json.loads((tmp_path / "summary.json").read_text()) == {"runs": summaries}
    for summary in summaries:
        directory = tmp_path / f"seed-{summary['seed']}"
        assert json.loads((directory / "summary.json").read_text()) == summary
        assert [line["episode"] for line in lines(directory)[1:]] == [1, 2]
        model = runtime.load(directory / "models" / "trained.onnx")
        assert model.contract.run["seed"] == summary["seed"]
    first, second = (lines(tmp_path / f"seed-{seed}") for seed in (0, 4))
    assert first[1]["episode/return"] != second[1]["episode/return"]


def test_the_number_of_steps_ends_a_run(tmp_path):
    request = Request("sac", "ledge", settings=TINY | {"evaluate_episodes": "0"}, steps=30)
    (summary,) = trainer.train(request, tmp_path, world=WORLD)
    assert summary["steps"] == 30
    assert summary["episodes"] < 12
    assert not summary["interrupted"]


@pytest.mark.parametrize(
    ("algorithm", "files"),
    [
        ("recovery-rl-model-free", {"trained", "critic", "recovery", "novice"}),
        ("recovery-rl-q-sampling", {"trained", "critic", "novice"}),
        ("unconstrained", {"trained", "novice"}),
        ("lr", {"trained", "critic", "novice"}),
        ("csc", {"trained", "critic", "novice"}),
        ("rp", {"trained", "novice"}),
        ("rcpo", {"trained", "critic", "novice"}),
        ("safety-editor", {"trained", "critic", "recovery", "novice"}),
    ],
)
def test_the_other_algorithms(algorithm, files, tmp_path):
    settings = {"evaluate_episodes": "1", "final_episodes": "1"}
    (summary,) = tiny(tmp_path, 2, algorithm=algorithm, settings=settings)
    assert {path.stem for path in (tmp_path / "models").glob("*.onnx")} == files
    shielded = algorithm.startswith("recovery-rl")
    assert (summary["interventions"] == 0) or shielded
    assert ("trained_shielded" in summary["evaluation"]) == shielded


def test_without_offline_data_and_with_every_option(tmp_path):
    settings = {
        "offline_size": "0", "bootstrap": "composite", "recovery_deviation": "0.1",
        "recovery": "model-free", "relabel": "false", "risk_loss": "squared",
        "both_transitions": "true", "timeout_terminates": "true", "conservative": "0.1",
    }  # fmt: skip
    assert tiny(tmp_path, 3, settings=settings)[0]["episodes"] == 3


def test_the_offline_ablation_collects_nothing(tmp_path):
    def never(env, size, seed):
        raise AssertionError("asked for offline data")

    world = World(WORLD.make, WORLD.describe, never)
    settings = {"offline": "false", "recovery": "model-free"}
    assert tiny(tmp_path, 1, world=world, settings=settings)[0]["episodes"] == 1
    assert "offline/risk/loss" not in lines(tmp_path)[0]


def test_the_online_ablation_keeps_the_risk_of_the_offline_phase(tmp_path):
    tiny(tmp_path, 3, settings={"online": "false"})
    models = tmp_path / "models"
    saved = checkpoint.load(tmp_path / trainer.CHECKPOINT)["episodes"]["learner"]
    assert saved["optimisers"]["risk"]["count"] == 30  # the offline updates
    assert runtime.load(models / "critic.onnx").contract.kind == "safety_critic"
    assert all("dynamics/loss" not in line for line in lines(tmp_path)[1:])


def test_a_loss_that_is_not_finite_stops_and_names_itself(tmp_path):
    class Exploding(Ledge):
        def step(self, action):
            observation, _, terminated, truncated, info = super().step(action)
            reward = float("inf") if self.count == 4 else -1.0
            return observation, reward, terminated, truncated, info

    world = World(lambda env: Exploding(), WORLD.describe, WORLD.offline_data)
    message = r"episode \d+, step \d+: task/critic_loss.* not finite at update \d+.*checkpoint.pt"
    with pytest.raises(LearnError, match=message):
        tiny(tmp_path, 30, world=world)
    assert checkpoint.load(tmp_path / trainer.CHECKPOINT)["algorithm"] == "recovery-rl"


def test_an_environment_without_costs_is_refused_by_name(tmp_path):
    class Costless(Ledge):
        def step(self, action):
            return *super().step(action)[:4], {}

    world = World(lambda env: Costless(), WORLD.describe, WORLD.offline_data)
    with pytest.raises(LearnError, match=r'reports no info\["cost"\]'):
        tiny(tmp_path, 1, world=world)


def test_ctrl_c_ends_with_a_checkpoint(tmp_path):
    class Interrupting(Ledge):
        def step(self, action):
            if self.count == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return super().step(action)

    before = signal.getsignal(signal.SIGINT)
    world = World(lambda env: Interrupting(), WORLD.describe, WORLD.offline_data)
    (summary,) = tiny(tmp_path, 50, world=world)
    assert summary["interrupted"]
    assert summary["episodes"] == 0
    assert (tmp_path / "models" / "trained.onnx").exists()
    saved = checkpoint.load(tmp_path / trainer.CHECKPOINT)
    assert len(saved["episodes"]["tracks"][0]["taken"]) == 4  # in the middle of an episode
    assert signal.getsignal(signal.SIGINT) is before
    (resumed,) = tiny(tmp_path, 3, resume=tmp_path)
    assert resumed["episodes"] == 3


def test_wrong_input_is_refused_before_anything_is_written(tmp_path):
    out = tmp_path / "run"

    def refused(message, request=None, **options):
        with pytest.raises(LearnError, match=message):
            trainer.train(request or Request(env="ledge"), out, world=WORLD, **options)

    refused("unknown algorithm 'sacc'; did you mean 'sac'", Request("sacc"))
    refused("unknown preset 'pubished'", Request(env="ledge", preset="pubished"))
    refused("did you mean 'gamma'", Request(env="ledge", settings={"gama": "1"}))
    refused("give each once", Request(env="ledge", seeds=(1, 1)))
    refused("at least one", Request(env="ledge", seeds=()))
    refused("does not exist", resume=tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_text("no checkpoint")
    refused("is not a checkpoint", resume=tmp_path / "bad.pt")
    torch.save({"format": 1}, tmp_path / "old.pt")
    refused("format 1.*wanted 2", resume=tmp_path / "old.pt")
    checkpoint.save(tmp_path / "part.pt", {"learner": {}})
    refused("not of a training run", resume=tmp_path / "part.pt")
    assert not out.exists()


def test_environments_without_a_recipe_say_how_to_go_on(tmp_path):
    def none(env, size, seed):
        raise ValueError(f"no offline data recipe for {env!r}")

    world = World(WORLD.make, WORLD.describe, none)
    with pytest.raises(LearnError, match="no offline data recipe for 'ledge'; set offline=false"):
        tiny(tmp_path, 1, world=world)
    with pytest.raises(LearnError, match="no such data; set demo_size=0"):
        tiny(tmp_path, 1, settings={"demo_size": "10", "task_demos": "0.5"})


def test_offline_data_and_demonstrations_come_from_where_they_are_asked_of(tmp_path):
    asked = []

    def load(path):
        asked.append(path)
        return offline("ledge", 100, 0)

    def task_data(env, size, seed):
        asked.append((env, size, seed))
        return offline(env, size, seed)

    world = World(WORLD.make, WORLD.describe, WORLD.offline_data, task_data, load)
    settings = TINY | {"demo_size": "50", "task_demos": "0.5", "task_offline_updates": "5"}
    request = Request("recovery-rl", "ledge", settings=settings, episodes=1, data="set.h5")
    trainer.train(request, tmp_path, world=world)
    assert asked == ["set.h5", ("ledge", 50, 0)]
    saved = checkpoint.load(tmp_path / trainer.CHECKPOINT)
    assert saved["episodes"]["learner"]["replays"]["demos"]["sizes"].tolist() == [50]


def test_the_installed_world_is_found_by_name(tmp_path):
    world = World.installed()
    assert world.interface("maze").action_high == [0.1, 0.1]
    with pytest.raises(LearnError, match="unknown environment 'mase'"):
        trainer.train(Request(env="mase"), tmp_path, world=world)


def test_evaluation_disturbs_nothing_and_repeats(whole):
    models = whole[0] / "models"
    files = {
        "task_policy": models / "trained.onnx",
        "safety_critic": models / "critic.onnx",
        "dynamics": models / "dynamics.onnx",
    }
    config = catalogue.entry("recovery-rl").kind.Settings(**whole[1]["settings"])
    seen = []
    runs = [
        evaluation.evaluate(
            Ledge(), files, config, INTERFACE, episodes=3, seed=1, on_step=seen.append
        )
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert runs[0]["episodes"] == 3
    assert len(seen) == 2 * runs[0]["steps"]
    assert {step.episode for step in seen} == {0, 1, 2}


def test_the_task_policy_may_learn_from_demonstrations_first(tmp_path):
    tiny(tmp_path, 1, settings={"task_demos": "0.5", "task_offline_updates": "5"})
    assert "offline/task/critic_loss" in lines(tmp_path)[0]


def test_progress_shows_counts(tmp_path):
    from rich.console import Console

    text = io.StringIO()
    tiny(tmp_path, 2, progress=True, console=Console(file=text, force_terminal=True, width=160))
    assert "learning risk offline" in text.getvalue()
    assert "successes" in text.getvalue()


def test_it_learns_from_a_thread_too(tmp_path):
    """Where Ctrl-C cannot be caught."""
    from threading import Thread

    found = []
    settings = {"final_episodes": "0", "evaluate_episodes": "0"}
    thread = Thread(target=lambda: found.extend(tiny(tmp_path, 1, settings=settings)))
    thread.start()
    thread.join()
    assert found[0]["episodes"] == 1


@pytest.mark.parametrize(("text", "seeds"), [("3", (3,)), ("0-4", range(5)), ("0, 2,5", (0, 2, 5))])
def test_seeds_as_typed(text, seeds):
    assert seeds_of(text) == tuple(seeds)


@pytest.mark.parametrize("text", ["", "a", "4-0", "1,1", "0-2,2", "1-", "-"])
def test_wrong_seeds(text):
    with pytest.raises(LearnError, match="seeds"):
        seeds_of(text)


def test_the_description_is_all_that_a_learner_knows_of_a_plant():
    assert WORLD.interface("ledge").observation_names == DESCRIPTION["observation_names"]
    assert np.isfinite(offline("ledge", 10, 0)["reward"]).all()
