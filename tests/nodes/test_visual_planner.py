"""The planner node behind an encoder: only models of its own latents, and no image beyond it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetypilot.envs import registry  # noqa: E402  the training extra comes first
from safetypilot.models import contract as contracts  # noqa: E402
from safetypilot.models import export, runtime  # noqa: E402
from safetypilot.models.contract import Contract  # noqa: E402
from safetypilot.models.latent import LatentModel, LatentSizes  # noqa: E402
from safetypilot.models.networks import Sizes, TwinCritic  # noqa: E402
from safetypilot.nodes.kernel import messages  # noqa: E402
from safetypilot.nodes.kernel.errors import NodeError, RequestRefused  # noqa: E402
from safetypilot.nodes.kernel.interface import Interface  # noqa: E402
from safetypilot.nodes.kernel.testing import Bench  # noqa: E402
from safetypilot.nodes.recovery_planner import RecoveryPlanner, RecoveryPlannerConfig  # noqa: E402

LATENT = 4
KNOWN = registry.describe("image-maze")
INTERFACE = Interface.from_dict({key: KNOWN[key] for key in Interface.__dataclass_fields__})
LOW, HIGH = tuple(INTERFACE.action_low), tuple(INTERFACE.action_high)


def export_eyes(folder: Path, seed: int) -> dict[str, str]:
    """An encoder, and dynamics and a critic of its latents, untrained."""
    torch.manual_seed(seed)
    model = LatentModel(LatentSizes((64, 64, 3), LOW, HIGH, LATENT))
    critic = TwinCritic(Sizes(LATENT, LOW, HIGH, (8,)), probability=True)
    known = {name: getattr(INTERFACE, name) for name in INTERFACE.__slots__ if name != "failsafe"}
    plain = Contract(kind="encoder", **known)
    eye = export.export(model.encoder, folder / f"encoder{seed}.onnx", plain)
    inside = replace(contracts.of_latents(eye.contract, LATENT), kind="dynamics", run={})
    ahead = export.export(model.transition, folder / f"dynamics{seed}.onnx", inside)
    judge = export.export(critic, folder / f"critic{seed}.onnx", inside)
    return {
        "encoder": str(eye.path),
        "dynamics": str(ahead.path),
        "latent_critic": str(judge.path),
        "critic": "not read",
    }


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    folder = tmp_path_factory.mktemp("eyes")
    return [export_eyes(folder, seed) for seed in (0, 1)]


def bench(tmp_path: Path, **files: Any) -> Bench:
    config = RecoveryPlannerConfig(horizon=3, population=16, iterations=2, **files)
    return Bench(RecoveryPlanner, config, tmp_path, interface=INTERFACE)


def test_an_image_is_planned_from(eyes: list[dict[str, str]], tmp_path: Path) -> None:
    b = bench(tmp_path, **eyes[0])
    image = np.random.default_rng(0).integers(0, 256, 12288).astype(np.float32)
    b.send("observation", messages.Observation(1, b.now_ns, b.now_ns, 0, 0, image))
    recovery = b.last("recovery")
    assert recovery.plan.shape == (3, 2) and recovery.iterations == 2
    assert np.abs(recovery.plan).max() <= 0.3 + 1e-6
    assert ((recovery.risks >= 0) & (recovery.risks <= 1)).all()
    kinds = ("encoder", "latent_critic", "dynamics")
    versions = [runtime.load(eyes[0][kind]).version for kind in kinds]
    assert recovery.model == "+".join(versions)
    assert list(b.node.status()["models"]) == list(kinds)


@pytest.mark.parametrize("part", ["dynamics", "latent_critic"])
def test_models_of_another_encoder_s_latents_are_refused(
    part: str, eyes: list[dict[str, str]], tmp_path: Path
) -> None:
    with pytest.raises(NodeError, match="observation names differ"):
        bench(tmp_path, **(eyes[0] | {part: eyes[1][part]}))


def test_critic_and_dynamics_of_the_same_latents_can_be_swapped(
    eyes: list[dict[str, str]], tmp_path: Path
) -> None:
    b = bench(tmp_path, **eyes[0])
    b.ask("swap", path=eyes[0]["latent_critic"])
    b.ask("swap", kind="dynamics", path=eyes[1]["dynamics"])
    b.executor.finish_jobs()
    swaps = {kind: b.ask("swap_status", kind=kind) for kind in ("latent_critic", "dynamics")}
    assert swaps["latent_critic"]["state"] == "staged"
    assert swaps["dynamics"]["state"] == "refused"
    assert "observation names differ" in swaps["dynamics"]["reason"]
    with pytest.raises(RequestRefused, match="comes with models of its own latents"):
        b.ask("swap", kind="encoder", path=eyes[1]["encoder"])


def test_a_critic_of_images_that_the_learner_announces_is_not_for_it(
    eyes: list[dict[str, str]], tmp_path: Path
) -> None:
    b = bench(tmp_path, **eyes[0])
    b.send("model", messages.ModelAnnouncement(0, 0, 0, "safety_critic", "critic.onnx", "", ""))
    assert not b.executor.jobs
