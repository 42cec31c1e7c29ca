"""The planner recovers in the one way that its config names, and says which models it used."""

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
from safetypilot.nodes.recovery_planner import RecoveryPlanner, RecoveryPlannerConfig

ZOO = Path(__file__).parents[2] / "models" / "zoo" / "maze"
CRITIC, DYNAMICS, POLICY = (str(ZOO / f"{name}.onnx") for name in ("critic", "dynamics", "trained"))
NEAR_A_WALL = np.float32([-0.24, 0.1])


def bench(tmp_path: Path, **config: Any) -> Bench:
    known = registry.describe("maze")
    interface = Interface.from_dict({key: known[key] for key in Interface.__dataclass_fields__})
    config = {"critic": CRITIC, "horizon": 4, "population": 32, "iterations": 2, **config}
    return Bench(RecoveryPlanner, RecoveryPlannerConfig(**config), tmp_path, interface=interface)


def answer(b: Bench, seq: int = 1) -> messages.Recovery:
    b.send("observation", messages.Observation(seq, b.now_ns, b.now_ns, 0, 0, NEAR_A_WALL))
    recovery: messages.Recovery = b.last("recovery")
    assert recovery.seq == seq and np.isfinite(recovery.plan).all()
    assert np.abs(recovery.plan).max() <= 0.1 + 1e-6
    assert ((recovery.risks >= 0) & (recovery.risks <= 1)).all()
    return recovery


def versions(*paths: str) -> str:
    return "+".join(runtime.load(path).version for path in paths)


def test_dynamics_are_planned_over(tmp_path: Path) -> None:
    recovery = answer(bench(tmp_path, dynamics=DYNAMICS))
    assert recovery.plan.shape == (4, 2) and recovery.iterations == 2
    assert recovery.model == versions(CRITIC, DYNAMICS)


def test_a_policy_answers_with_its_one_action(tmp_path: Path) -> None:
    recovery = answer(bench(tmp_path, policy=POLICY))
    wanted = runtime.load(POLICY).run(observation=NEAR_A_WALL[None])["action"]
    assert np.array_equal(recovery.plan, wanted) and recovery.iterations == 1
    risk = runtime.load(CRITIC).run(observation=NEAR_A_WALL[None], action=wanted)["risk"]
    assert np.array_equal(recovery.risks, risk)
    assert recovery.model == versions(CRITIC, POLICY)


def test_a_policy_with_dynamics_is_foreseen(tmp_path: Path) -> None:
    alone = answer(bench(tmp_path, policy=POLICY))
    recovery = answer(bench(tmp_path, policy=POLICY, dynamics=DYNAMICS))
    assert recovery.plan.shape == (4, 2) and len(recovery.risks) == 4
    assert np.array_equal(recovery.plan[0], alone.plan[0])
    assert np.ptp(recovery.plan, axis=0).max() > 0  # it moves on, and so acts otherwise


def test_of_many_samples_the_least_risky_is_taken(tmp_path: Path) -> None:
    b = bench(tmp_path, samples=500)
    recovery = answer(b)
    assert recovery.plan.shape == (1, 2) and recovery.model == versions(CRITIC)
    drawn = np.random.default_rng(5).uniform(-0.1, 0.1, (500, 2)).astype(np.float32)
    rows = np.tile(NEAR_A_WALL, (500, 1))
    risks = runtime.load(CRITIC).run(observation=rows, action=drawn)["risk"]
    assert recovery.risks[0] <= np.quantile(risks, 0.02)
    assert np.array_equal(answer(bench(tmp_path, samples=500)).plan, recovery.plan)  # same seed
    assert not np.array_equal(answer(b, seq=2).plan, recovery.plan)


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({}, "does not say how to recover: name dynamics"),
        ({"samples": 9, "dynamics": DYNAMICS}, "samples and dynamics are two ways"),
        ({"samples": 9, "policy": POLICY, "dynamics": DYNAMICS}, "samples and dynamics and policy"),
        ({"samples": -1}, "samples is -1"),
        ({"encoder": "e.onnx", "dynamics": DYNAMICS}, "encoder and latent_critic belong together"),
        ({"encoder": "e", "latent_critic": "c", "policy": POLICY}, "an encoder is to plan with"),
        ({"encoder": "e", "latent_critic": "c", "samples": 5}, "an encoder is to plan with"),
    ],
)
def test_a_config_names_one_way_to_recover(config: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        RecoveryPlannerConfig(critic=CRITIC, **config)


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"policy": DYNAMICS}, "this is a dynamics model, a task_policy was wanted"),
        ({"policy": POLICY, "critic": POLICY}, "this is a task_policy model, a safety_critic"),
        ({"dynamics": DYNAMICS, "horizon": 0}, "horizon=0"),
        ({"policy": POLICY, "horizon": 0}, "horizon=0"),
        ({"dynamics": "nowhere.xml"}, "dynamics nowhere.xml"),
    ],
)
def test_models_of_another_kind_are_refused(
    tmp_path: Path, config: dict[str, Any], wanted: str
) -> None:
    with pytest.raises(NodeError, match=wanted):
        bench(tmp_path, **config)


def test_the_recovery_policy_can_be_swapped_and_follows_no_task_policy(tmp_path: Path) -> None:
    b = bench(tmp_path, policy=POLICY)
    before = answer(b)
    announced = messages.ModelAnnouncement(0, 0, 0, "task_policy", str(ZOO / "novice.onnx"), "", "")
    b.send("model", announced)
    assert not b.executor.jobs
    b.ask("swap", kind="recovery_policy", path=str(ZOO / "novice.onnx"))
    b.executor.finish_jobs()
    after = answer(b, seq=2)
    assert after.model == versions(CRITIC, str(ZOO / "novice.onnx")) != before.model
    assert not np.array_equal(after.plan, before.plan)
    with pytest.raises(RequestRefused, match="holds safety_critic and recovery_policy"):
        b.ask("swap", kind="dynamics", path=DYNAMICS)
