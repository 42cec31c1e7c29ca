"""The learner node: stores what it is sent or says what it lost, updates, exports, announces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safetypilot.envs import registry
from safetypilot.models import runtime
from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.errors import NodeError, RequestRefused
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.kernel.testing import Bench

pytest.importorskip("torch")
from safetypilot.nodes.learner import Learner, LearnerConfig

SMALL = (
    "offline_size=200", "offline_updates=20", "batch=16", "hidden=8", "task_demos=0.0",
    "task_offline_updates=0",
)  # fmt: skip


def bench(tmp_path: Path, **config: Any) -> Bench:
    description = registry.describe("navigation2")
    interface = Interface.from_dict({k: description[k] for k in Interface.__dataclass_fields__})
    settings = {"env": "navigation2", "settings": SMALL, "announce_after": 30} | config
    return Bench(Learner, LearnerConfig(**settings), tmp_path, interface=interface)


def send(b: Bench, seq: int, proposed: float = 0.5) -> None:
    vector = np.array([seq / 10, 1.0], np.float32)
    b.send(
        "transition",
        messages.Transition(
            seq, b.now_ns, b.now_ns, 0, seq, vector, np.full(2, proposed, np.float32),
            np.full(2, 0.1, np.float32), 1, -1.0, float(seq % 7 == 0), False, vector + 0.1,
            seq % 7 == 0, False,
        ),
    )  # fmt: skip
    b.pass_time(1_000_000)


def test_it_learns_exports_and_announces_models_that_load(tmp_path: Path) -> None:
    b = bench(tmp_path, together=False)
    assert b.node.status()["updates_owed"] == 0
    b.executor.finish_jobs()
    for seq in range(40):
        send(b, seq)
    assert b.node.status()["received"] == 40 and b.node.status()["lost"] == 0
    announced = b.executor.of("model")
    assert [m.kind for m in announced] == ["task_policy", "safety_critic"]
    for message in announced:
        model = runtime.stage(message.path, message.kind, b.node.context.interface)
        assert model.sha256 == message.sha256
        assert model.version.startswith("learned-30@")
    assert {"offline phase", "announced"} <= {kind for kind, _ in b.executor.events}
    assert b.node.status()["metrics"]


def test_a_gap_in_the_stream_is_said(tmp_path: Path) -> None:
    b = bench(tmp_path)
    b.executor.finish_jobs()
    for seq in (0, 1, 2, 7, 8):
        send(b, seq)
    assert b.node.status()["lost"] == 4
    send(b, (1 << 32) + 5)  # a restarted plant begins anew; nothing can be said of what it sent
    assert b.node.status()["lost"] == 4


def test_a_step_without_a_proposal_is_learned_as_executed(tmp_path: Path) -> None:
    b = bench(tmp_path)
    b.executor.finish_jobs()
    send(b, 0, proposed=float("nan"))
    rows = b.node._learner.task_replay.rows()
    assert np.allclose(rows.proposed[-1], 0.1)


def test_what_it_learned_is_saved_when_it_stops_and_taken_up_again(tmp_path: Path) -> None:
    b = bench(tmp_path)
    b.executor.finish_jobs()
    for seq in range(20):
        send(b, seq)
    b.node.deactivate(b.now_ns)
    again = bench(tmp_path, start=str(tmp_path / "models" / "learner.pt"))
    assert again.executor.jobs == []  # no second offline phase
    assert again.node._learner.task_replay.size == b.node._learner.task_replay.size
    send(again, 21)
    assert again.node.status()["received"] == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kinds": ("policy",)}, "kinds"),
        ({"settings": ("gama=0.9",)}, "gamma"),
        ({"env": "mase"}, "maze"),
        ({"start": "/nowhere.pt"}, "nowhere"),
        ({"algorithm": "recovry-rl"}, "did you mean 'recovery-rl'"),
        ({"algorithm": "lr", "settings": ("nu_end=1",)}, "unknown setting 'nu_end'"),
    ],
)
def test_bad_settings_are_an_error_of_the_node(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(NodeError, match=message):
        bench(tmp_path, **config)


@pytest.mark.parametrize("algorithm", ["sac", "lr", "sqrl", "recovery-rl-model-free"])
def test_it_learns_by_any_algorithm(tmp_path: Path, algorithm: str) -> None:
    b = bench(tmp_path, algorithm=algorithm, together=False)
    b.executor.finish_jobs()
    for seq in range(40):
        send(b, seq)
    wanted = ["task_policy"] if algorithm == "sac" else ["task_policy", "safety_critic"]
    assert [m.kind for m in b.executor.of("model")] == wanted
    for message in b.executor.of("model"):
        runtime.stage(message.path, message.kind, b.node.context.interface)


def test_what_another_algorithm_learned_is_not_taken_up(tmp_path: Path) -> None:
    b = bench(tmp_path)
    b.executor.finish_jobs()
    send(b, 0)
    b.node.deactivate(b.now_ns)
    with pytest.raises(NodeError, match="is of recovery-rl, this learner of lr"):
        bench(tmp_path, start=str(tmp_path / "models" / "learner.pt"), algorithm="lr")


def test_a_person_may_ask_for_models_now(tmp_path: Path) -> None:
    b = bench(tmp_path)
    with pytest.raises(RequestRefused):
        b.ask("announce")
    b.executor.finish_jobs()
    send(b, 0)
    b.ask("announce")
    (trained,) = [data for kind, data in b.executor.events if kind == "trained"]
    assert set(trained["files"]) == {"task_policy", "safety_critic"}
    for kind, path in trained["files"].items():
        assert runtime.stage(path, kind, b.node.context.interface).version.startswith("learned-1@")
    assert not b.executor.of("model")  # as a set, or not at all


def test_a_multiplier_that_goes_by_the_episode_falls(tmp_path: Path) -> None:
    b = bench(tmp_path, algorithm="rspo", settings=(*SMALL, "nu=9", "episodes=4"))
    b.executor.finish_jobs()
    for seq in range(8):  # every seventh, and the first, ends an episode
        send(b, seq)
    assert float(b.node._learner.algorithm.nu) == pytest.approx(3.0)
