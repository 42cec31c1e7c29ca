"""OpenVINO answers as onnxruntime does, as far as bf16 goes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from safetypilot.models import runtime
from safetypilot.models.accelerated import Accelerated
from safetypilot.models.errors import ModelError
from safetypilot.policies.recovery import RecoveryConfig, RecoveryPlanner

pytest.importorskip("openvino")
MAZE = Path(runtime.__file__).parent / "zoo" / "maze"


def rows(shape: tuple[int, ...], *names: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.uniform(-0.1, 0.1, (*shape, 2)).astype(np.float32) for name in names}


def test_risks_agree_within_bf16():
    model = runtime.load(MAZE / "critic.onnx")
    inputs = rows((500,), "observation", "action")
    got = Accelerated(model).run(**inputs)["risk"]
    np.testing.assert_allclose(got, model.run(**inputs)["risk"], atol=0.03)
    assert got.std() > 0.01, "the critic tells these rows apart"


def test_predictions_agree_within_bf16():
    model = runtime.load(MAZE / "dynamics.onnx")
    engine = Accelerated(model)
    assert engine.members == model.members
    inputs = rows((engine.members, 200), "observation", "action", "noise")
    got = engine.run(**inputs)["next_observation"]
    wanted = model.run(**inputs)["next_observation"]
    change = np.abs(wanted - inputs["observation"]).max()
    np.testing.assert_allclose(got, wanted, atol=0.03 * change)


def test_few_rows_are_exact():
    model = runtime.load(MAZE / "critic.onnx")
    inputs = rows((8,), "observation", "action")
    np.testing.assert_array_equal(
        Accelerated(model).run(**inputs)["risk"], model.run(**inputs)["risk"]
    )


def test_outputs_are_the_callers_own():
    engine = Accelerated(runtime.load(MAZE / "critic.onnx"))
    first = engine.run(**rows((100,), "observation", "action"))["risk"]
    kept = first.copy()
    engine.run(observation=np.ones((100, 2), np.float32), action=np.ones((100, 2), np.float32))
    np.testing.assert_array_equal(first, kept)


def test_plans_are_as_good():
    models = [runtime.load(MAZE / name) for name in ("dynamics.onnx", "critic.onnx")]
    low, high = models[1].contract.action_low, models[1].contract.action_high
    risks = []
    for dynamics, critic in (models, [Accelerated(model) for model in models]):
        planner = RecoveryPlanner(RecoveryConfig(), dynamics, critic, low, high)
        risks.append([planner.plan([-0.05, y], 0).risks.mean() for y in (-0.1, 0.0, 0.1)])
    np.testing.assert_allclose(risks[0], risks[1], atol=0.02)


def test_a_replaced_file_is_refused(tmp_path):
    path = shutil.copy(MAZE / "critic.onnx", tmp_path / "critic.onnx")
    model = runtime.load(path)
    shutil.copy(MAZE / "trained.onnx", path)
    with pytest.raises(ModelError, match=r"critic.onnx was replaced .*load it again"):
        Accelerated(model)
