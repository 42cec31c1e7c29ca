"""Recovery without a search: a policy that is foreseen, and the least risky of many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from safetypilot.models import runtime
from safetypilot.policies import reflexes
from safetypilot.policies.recovery import RecoveryPlanner

ZOO = Path(__file__).parents[2] / "models" / "zoo" / "maze"
Array = NDArray[np.float32]


class Drift:
    """Two nets of which one goes twice as far; beyond 1 nothing is known."""

    members = 2

    def run(self, **inputs: Array) -> dict[str, Array]:
        step = np.float32([[[1.0]], [[2.0]]]) * inputs["action"]
        assert not inputs["noise"].any()
        following = inputs["observation"] + step
        following[np.abs(following) > 1.0] = np.nan
        return {"next_observation": following}


class Height:
    """Risk is the first coordinate."""

    def run(self, **inputs: Array) -> dict[str, Array]:
        return {"risk": inputs["observation"][:, 0].clip(0, 1)}


class Right:
    """Goes right, always."""

    contract = type("Contract", (), {"recurrent": ()})

    def run(self, **inputs: Array) -> dict[str, Array]:
        return {"action": np.float32([[0.2, 0.0]])}


def policy(**more: Any) -> reflexes.PolicyRecovery:
    return reflexes.PolicyRecovery(Right(), Height(), Drift(), **more)  # type: ignore[arg-type]


def test_what_is_foreseen_is_the_mean_of_the_nets() -> None:
    plan = policy(horizon=3).plan(np.float32([0, 0]), 0)
    assert plan.actions.shape == (3, 2) and plan.iterations == 1
    assert np.allclose(plan.risks, [0.0, 0.3, 0.6])


def test_a_plan_ends_where_nothing_is_known() -> None:
    plan = policy(horizon=50).plan(np.float32([0, 0]), 0)
    assert len(plan.actions) == len(plan.risks) == 4 and np.isfinite(plan.risks).all()


def test_a_plan_ends_when_time_is_up_and_has_its_first_action_even_then() -> None:
    now = iter(range(100))
    plan = policy(horizon=50).plan(np.float32([0, 0]), 0, lambda: next(now), 2)
    assert len(plan.actions) == 3
    assert len(policy(horizon=50).plan(np.float32([0, 0]), 0, lambda: 5, 2).actions) == 1


def test_an_observation_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite observation"):
        policy().plan(np.float32([np.nan, 0]), 0)
    with pytest.raises(ValueError, match="horizon=0"):
        policy(horizon=0)


def test_samples_leave_out_no_part_of_the_box() -> None:
    critic = runtime.load(ZOO / "critic.onnx")
    low, high = [-0.1, -0.1], [0.1, 0.1]
    planner = RecoveryPlanner(reflexes.sampling(400), reflexes.NoDynamics(), critic, low, high)
    rng = np.random.default_rng(0)
    for seq, start in enumerate(rng.uniform(-0.2, 0.2, (10, 2)).astype(np.float32)):
        found = planner.plan(start, seq)
        grid = np.stack(np.meshgrid(*[np.linspace(-0.1, 0.1, 41)] * 2), -1).reshape(-1, 2)
        rows = {"observation": np.tile(start, (len(grid), 1)), "action": grid.astype(np.float32)}
        least = critic.run(**rows)["risk"].min()
        assert found.actions.shape == (1, 2) and found.risks[0] <= least + 0.03
    with pytest.raises(ValueError, match="needs dynamics"):
        reflexes.NoDynamics().run()
