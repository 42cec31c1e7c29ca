"""What a training run brings along to a launch, and what the command line says over it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from safetypilot.launch.files import built_in
from safetypilot.launch.graph import Graph, LaunchFileError, load

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """A training run with these files in `models/`, none of which is ever loaded."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str, name: str = "run", env: str = "navigation2", **settings: Any) -> Path:
        models = tmp_path / name / "models"
        models.mkdir(parents=True)
        for file in names:
            (models / f"{file}.onnx").write_bytes(b"no model: no contract to compare")
        summary = {"algorithm": "recovery-rl", "env": env, "settings": settings}
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
        files = {f"{file}.onnx": {} for file in names}
        manifest = {"files": files, "settings": settings}
        (models / "manifest.json").write_text(json.dumps(manifest))
        return tmp_path / name

    return make


def arguments(*given: str, file: str = "navigation2") -> dict[str, Any]:
    found = load(file, given).arguments
    return {
        name: os.path.relpath(value) if isinstance(value, str) and os.sep in value else value
        for name, value in found.items()
        if value not in (None, 0)
    }


def problems(*given: str, file: str = "navigation2") -> str:
    with pytest.raises(LaunchFileError) as caught:
        load(file, given)
    return str(caught.value)


SETTINGS = {"eps": 0.07, "horizon": 9, "planner_population": 33, "planner_method": "mppi"}


@pytest.mark.parametrize(
    ("files", "recovery", "ways"),
    [
        ("critic dynamics", "model-based", {"dynamics": "run/models/dynamics.onnx"}),
        ("critic recovery", "model-free", {"recovery": "run/models/recovery.onnx"}),
        ("critic", "q-sampling", {"samples": 77}),
        ("critic recovery", "q-sampling", {"samples": 77}),
        ("critic", "none", {"samples": 77}),
        (
            "critic dynamics encoder latent_critic",
            "visual",
            {name: f"run/models/{name}.onnx" for name in ("dynamics", "encoder", "latent_critic")},
        ),
    ],
)
def test_a_run_says_everything_that_flies(
    make_run: MakeRun, files: str, recovery: str, ways: dict[str, Any]
) -> None:
    make_run("trained", *files.split(), recovery=recovery, recovery_samples=77, **SETTINGS)
    found = arguments("run=run")
    assert found["policy"] == "run/models/trained.onnx"
    assert found["critic"] == "run/models/critic.onnx"
    names = ("dynamics", "recovery", "samples", "encoder", "latent_critic")
    assert {name: found[name] for name in names if name in found} == ways
    planner = {name: found[name] for name in ("eps", "horizon", "population", "method")}
    assert planner == {"eps": 0.07, "horizon": 9, "population": 33, "method": "mppi"}


def test_a_run_without_a_critic_flies_behind_the_shield_of_the_launch_file(
    make_run: MakeRun,
) -> None:
    make_run("trained", recovery="none", **SETTINGS)
    plain, found = arguments(), arguments("run=run")
    assert found.pop("policy") == "run/models/trained.onnx" and found.pop("run") == "run"
    plain.pop("policy")
    assert found == plain


def test_what_is_given_wins(make_run: MakeRun) -> None:
    make_run("trained", "critic", "dynamics", "novice", **SETTINGS)
    found = arguments("run=run", "policy=run/models/novice.onnx", "eps=0.5", "horizon=2")
    assert (found["policy"], found["eps"], found["horizon"]) == (
        "run/models/novice.onnx", 0.5, 2,
    )  # fmt: skip
    assert found["population"] == 33


def test_a_critic_brings_the_settings_of_its_run(make_run: MakeRun) -> None:
    run = make_run("trained", "critic", **SETTINGS)
    found = arguments("critic=run/models/critic.onnx")
    assert (found["eps"], found["horizon"], found["population"]) == (0.07, 9, 33)
    assert arguments("critic=run/models/critic.onnx", "eps=0.5")["eps"] == 0.5
    manifest = run / "models" / "manifest.json"
    for content in ("{}", "no json", json.dumps({"files": {}, "settings": SETTINGS})):
        manifest.write_text(content)
        assert arguments("critic=run/models/critic.onnx")["eps"] == 0.2  # the launch file's


def test_a_way_to_recover_replaces_the_others(make_run: MakeRun) -> None:
    run = make_run("trained", "critic", "dynamics", "encoder", "latent_critic", **SETTINGS)
    shutil.copy(run / "models" / "trained.onnx", "recovery.onnx")
    for given in ("samples=5", "recovery=recovery.onnx"):
        for whose in ((), ("run=run",)):
            found = arguments(given, *whose)
            assert given.split("=")[0] in found
            assert not {"dynamics", "encoder", "latent_critic"} & {*found}
    both = arguments("recovery=recovery.onnx", "dynamics=run/models/dynamics.onnx")
    assert {"dynamics", "recovery"} <= {*both}
    assert "samples and dynamics are two ways" in problems(
        "samples=5", "dynamics=run/models/dynamics.onnx"
    )
    assert "does not say how to recover" in problems("dynamics=")


def test_a_run_that_is_none_is_said_to_be_none(make_run: MakeRun, tmp_path: Path) -> None:
    assert problems("run=nowhere").startswith("run=nowhere: there is no directory")
    (tmp_path / "empty").mkdir()
    assert "there are no models in" in problems("run=empty")
    for seed in (0, 1):
        make_run("trained", name=f"all/seed-{seed}")
    assert "choose one of" in problems("run=all")
    make_run("critic", name="halfway")
    assert "trained" in problems("run=halfway")


def test_a_run_flies_where_it_was_trained(make_run: MakeRun) -> None:
    make_run("trained", "critic", env="navigation1", **SETTINGS)
    assert problems("run=run") == (
        "run=run: was trained in navigation1, this launch file flies safetypilot/Navigation2-v0; "
        "give its files one by one if that is meant, or fly it with `launch any`"
    )
    graph = load("any", ["run=run"])
    assert graph.env == "safetypilot/Navigation1-v0"
    assert "env=...: a Gymnasium id" in problems(file="any")


def test_environments_without_models_say_which_to_give_and_who_makes_them() -> None:
    found = problems(file="extraction").splitlines()
    assert "policy, critic, eps must be given: safetypilot/Extraction-v0" in found[0]
    assert "run=DIR, after `safetypilot train recovery-rl --env extraction --out DIR`" in found[0]
    assert [line.split("=")[0].strip() for line in found[1:]] == ["policy", "critic", "eps"]


def test_without_a_shield_a_policy_is_enough(make_run: MakeRun) -> None:
    make_run("trained", env="extraction")
    graph: Graph = load("extraction", ["run=run", "shield=off"])
    assert [node.name for node in graph.nodes] == ["simulator", "task_policy", "arbiter"]
    assert graph.node("arbiter").config["shield"] is False
    plan = graph.plan()
    absent = plan.spec(plan.nodes[2], Path("r"), Path("t"), 1).absent
    assert sorted(absent) == ["recovery", "risk"]
    with pytest.raises(LaunchFileError, match="reads topic 'recovery', which no node writes"):
        load("extraction", ["run=run", "shield=off"], ["arbiter.shield=on"])


def test_every_environment_has_a_launch_file_and_parts_are_none() -> None:
    from safetypilot.envs import registry

    assert {*registry.IDS} < {*built_in()} and not any(name[0] == "_" for name in built_in())
    for name in registry.IDS:
        given = [] if "zoo" in built_in()[name].read_text() else ["shield=off", "policy=x.onnx"]
        assert load(name, given, check_files=False).env == registry.IDS[name]
