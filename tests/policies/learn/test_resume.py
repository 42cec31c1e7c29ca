"""A run that was killed goes on as one that was not, to the last bit."""

from __future__ import annotations

import json
import multiprocessing
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deadly import QUICK, Deadly, die, train
from ledge import WORLD, tiny

from safetypilot.models import runtime
from safetypilot.policies.learn import trainer
from safetypilot.policies.learn.episodes import Episodes
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.run import Request, prepare

ALGORITHMS = ("recovery-rl", "lr", "sqrl", "rspo")


def killed(end: int, out: Path, *run: Any, resume: bool = False) -> None:
    context = multiprocessing.get_context("forkserver")  # which has torch loaded already
    context.set_forkserver_preload(["deadly", "torch.utils.tensorboard"])
    process = context.Process(target=die, args=(end, out, *run, resume))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL


def result(out: Path) -> dict[str, Any]:
    """All that a run leaves, but for times."""
    left = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.name == "metrics.jsonl":
            left[name] = path.read_text()
        elif path.suffix == ".onnx":
            contract = runtime.load(path).contract
            run = {key: value for key, value in contract.run.items() if key != "commit"}
            left[name] = contract.graph_sha256, contract.golden, run
        elif path.name == "summary.json":
            left[name] = timeless(json.loads(path.read_text()))
    return left


def timeless(summary: Any) -> Any:
    if "runs" in summary:
        return [timeless(run) for run in summary["runs"]]
    return {key: value for key, value in summary.items() if key not in ("wall_s", "updates_per_s")}


def same(first: Path, second: Path) -> None:
    one, other = result(first), result(second)
    assert one.keys() == other.keys()
    for name, content in one.items():
        assert content == other[name], name


@pytest.fixture(scope="module", params=[(3,), (3, 4, 5)], ids=["S=1", "S=3"])
def seeds(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module", params=ALGORITHMS)
def whole(request: pytest.FixtureRequest, seeds: Any, tmp_path_factory: Any) -> Any:
    """Nothing happens to this run: where it is, what it was, and how many steps it took."""
    out = tmp_path_factory.mktemp("whole")
    Deadly.count_all, Deadly.end = 0, 0
    train(out, request.param, seeds)
    return out, (request.param, seeds), Deadly.count_all


def chances(whole: Any) -> np.random.Generator:
    algorithm, seeds = whole[1]
    return np.random.default_rng((len(seeds), *algorithm.encode()))


def test_a_killed_run_goes_on_to_the_same_end(whole: Any, tmp_path: Path) -> None:
    out, run, steps = whole
    Deadly.end = 0
    killed(int(chances(whole).integers(2, steps)), tmp_path, *run)
    train(tmp_path, *run, resume=tmp_path)
    same(out, tmp_path)


def test_ctrl_c_in_the_middle_of_an_episode_is_no_loss(
    whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, run, steps = whole
    monkeypatch.setattr(Deadly, "count_all", 0)
    monkeypatch.setattr(Deadly, "end", int(chances(whole).integers(2, steps // 2)))
    monkeypatch.setattr(Deadly, "signal", signal.SIGINT)
    assert any(summary["interrupted"] for summary in train(tmp_path, *run))
    monkeypatch.setattr(Deadly, "end", 0)
    train(tmp_path, *run, resume=tmp_path)
    same(out, tmp_path)


def test_a_run_may_be_killed_twice_and_leave_half_a_line(tmp_path: Path) -> None:
    out, again, run = tmp_path / "whole", tmp_path / "again", ("recovery-rl", (3, 4))
    Deadly.count_all = Deadly.end = 0
    train(out, *run)
    steps = Deadly.count_all
    killed(steps // 3, again, *run)
    killed(steps // 3, again, *run, resume=True)
    for path in again.rglob("metrics.jsonl"):
        with path.open("a") as file:  # written after the checkpoint
            file.write('{"step": 100000, "episode": 4.0}\n{"step": 1000')
    train(again, *run, resume=again / trainer.CHECKPOINT)
    same(out, again)


def test_a_finished_run_may_go_on(tmp_path: Path) -> None:
    Deadly.end = 0
    out, again = tmp_path / "whole", tmp_path / "again"
    settings = QUICK | {"evaluate_episodes": "0", "final_episodes": "0"}
    tiny(out, 5, algorithm="lr", settings=settings)
    tiny(again, 2, algorithm="lr", settings=settings)
    (resumed,) = tiny(again, 5, algorithm="lr", resume=again)
    assert resumed["episodes"] == 5
    same(out, again)


@pytest.mark.parametrize("algorithm", ["recovery-rl", "recovery-rl-model-free", "safety-editor"])
def test_episodes_go_on_in_the_middle(algorithm: str) -> None:
    """As a checkpoint of several seeds finds them, wherever each is in its episode."""
    request = Request(
        algorithm, "ledge", (1, 2), settings=QUICK | {"batch": "8", "hidden": "8", "layers": "1",
                                                      "horizon": "3", "planner_iterations": "1"}
    )  # fmt: skip

    def made() -> Episodes:
        return prepare(request, Path("nowhere"), WORLD).episodes

    def forward(episodes: Episodes, count: int) -> list[Any]:
        seen = []
        for _ in range(count):
            for index in episodes.step([0, 1]):
                seen.append(episodes.tracks[index].finished())
                episodes.tracks[index].start(episodes.tracks[index].number + 1)
            seen += [track.observation.item() for track in episodes.tracks]
        return seen

    one, other = made(), made()
    for index in range(2):
        one.learner.load_offline(WORLD.collect("ledge", 120, index), index)
        one.learner.fit_dynamics(1, index)
    for count in (5, 13, 8):
        forward(one, count)
        assert any(track.taken for track in one.tracks)
        other.restore(json_and_tensors(one.state()))
        state = one.state()
        ahead = forward(one, 9)
        assert forward(other, 9) == ahead
        one.restore(json_and_tensors(state)) if count == 13 else None


def json_and_tensors(state: Any) -> Any:
    """Through a file, as a checkpoint goes: nothing may be shared in memory."""
    import io

    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_resume_names_both_where_the_run_is_another(tmp_path: Path) -> None:
    Deadly.end = 0
    settings = QUICK | {"evaluate_episodes": "0", "final_episodes": "0"}
    tiny(tmp_path, 1, algorithm="lr", settings=settings)
    message = "the checkpoint is of lr on ledge, you asked for sqrl"
    with pytest.raises(LearnError, match=message):
        tiny(tmp_path, 2, algorithm="sqrl", resume=tmp_path)
    with pytest.raises(LearnError, match=r"bias_0 is \(1, 1, 8\), here \(1, 1, 9\)"):
        tiny(tmp_path, 2, algorithm="lr", settings={"hidden": "9"}, resume=tmp_path)
    (summary,) = tiny(tmp_path, 2, algorithm="lr", settings={"gamma": "0.5"}, resume=tmp_path)
    assert summary["settings"]["gamma"] == 0.5
