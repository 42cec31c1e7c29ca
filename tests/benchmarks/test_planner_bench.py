"""How long a recovery plan takes, and whether quick plans are as safe as the published ones.

`pytest tests/benchmarks/test_planner_bench.py --benchmark-enable` for the times; with `-m slow` the
flights, whose figures `--benchmark-json FILE` keeps. Skipped without the maze's models.
"""

import itertools
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safetypilot.envs.maze import Maze
from safetypilot.models import runtime
from safetypilot.models.runtime import Model
from safetypilot.policies.critic import PlanRisk
from safetypilot.policies.planning import PlannerConfig
from safetypilot.policies.recovery import RecoveryConfig, RecoveryPlanner

pytest.importorskip("pytest_benchmark")

LOW, HIGH = [-0.1, -0.1], [0.1, 0.1]
SETTINGS = {
    "deployed": RecoveryConfig(),
    "published": RecoveryConfig.published(15),  # CEM 400/40/5, 20 particles
}
STEPS = 5


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    zoo = Path(str(resources.files("safetypilot.models"))) / "zoo" / "maze"
    files = {name: zoo / f"{name}.onnx" for name in ("dynamics", "critic")}
    missing = [path.name for path in files.values() if not path.exists()]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)} in {zoo}")
    return {name: runtime.load(path) for name, path in files.items()}


def planner(models: dict[str, Model], config: RecoveryConfig) -> RecoveryPlanner:
    return RecoveryPlanner(config, models["dynamics"], models["critic"], LOW, HIGH, seed=0)


def starts_near_walls(count: int) -> list[np.ndarray[Any, Any]]:
    """Free positions from which a full action in some direction hits a wall."""
    env, rng = Maze(), np.random.default_rng(5)
    starts: list[np.ndarray[Any, Any]] = []
    while len(starts) < count:
        position = rng.uniform(-0.275, 0.275, 2)
        _, info = env.reset(options={"position": position})
        if not info["cost"] and any(_hits(env, position, push) for push in _pushes()):
            starts.append(position)
    return starts


def _pushes() -> list[np.ndarray[Any, Any]]:
    return [0.1 * side * np.eye(2)[axis] for axis, side in itertools.product((0, 1), (-1, 1))]


def _hits(env: Maze, position: np.ndarray[Any, Any], push: np.ndarray[Any, Any]) -> bool:
    env.reset(options={"position": position})
    return bool(env.step(push)[4]["cost"])


def violations(planner: RecoveryPlanner, starts: list[np.ndarray[Any, Any]]) -> list[bool]:
    """Whether recovery alone, flown for a few steps from each start, ended at a wall."""
    env, seq, hit = Maze(), 0, []
    for start in starts:
        observation, info = env.reset(options={"position": start})
        planner.reset()
        for _ in range(STEPS):
            plan = planner.plan(observation, seq)
            observation, _, _, _, info = env.step(plan.actions[0])
            seq += 1
            if info["cost"]:
                break
        hit.append(bool(info["cost"]))
    return hit


@pytest.mark.parametrize("name", SETTINGS)
def test_one_plan(name: str, models: dict[str, Model], benchmark: Any) -> None:
    flying = planner(models, SETTINGS[name])
    rng, seq = np.random.default_rng(0), itertools.count()

    def once() -> None:
        flying.plan(rng.uniform(-0.27, 0.27, 2), next(seq))

    rounds = 5 if name == "published" else 300
    benchmark.pedantic(once, rounds=rounds, warmup_rounds=min(rounds, 3))


def test_a_plan_within_the_budget_of_a_step(models: dict[str, Model], benchmark: Any) -> None:
    """The anytime planner under the real clock: how long it takes when given 9 ms."""
    import time

    many = RecoveryConfig(planner=PlannerConfig(max_iterations=50))
    flying = planner(models, many)
    rng, seq = np.random.default_rng(0), itertools.count()
    for _ in range(5):
        flying.plan([0.0, 0.0], next(seq), time.monotonic_ns)
    iterations: list[int] = []

    def once() -> None:
        observation = rng.uniform(-0.27, 0.27, 2)
        deadline_ns = time.monotonic_ns() + 9_000_000
        plan = flying.plan(observation, next(seq), time.monotonic_ns, deadline_ns)
        iterations.append(plan.iterations)

    benchmark.pedantic(once, rounds=300)
    benchmark.extra_info["iterations"] = float(np.mean(iterations))
    assert max(iterations) > 0


def test_quick_plans_are_as_good_as_a_large_search(models: dict[str, Model]) -> None:
    """Predicted risk, by other noise than was planned with, beside that of CEM 400/40/5."""
    quick = RecoveryConfig()
    large = replace(quick, planner=PlannerConfig.published(quick.planner.horizon))
    shape = (quick.planner.horizon - 1, 5, 10, 2)
    noise = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    judge = PlanRisk((1, quick.planner.horizon, 2), shape)
    means = {}
    for name, config in {"quick": quick, "large": large}.items():
        flying, risks = planner(models, config), []
        for seq, start in enumerate(starts_near_walls(30)):
            plans = flying.plan(start, seq).actions[None]
            start = np.asarray(start, np.float32)
            steps = judge(models["dynamics"], models["critic"], start, plans, noise)[:, 0]
            risks.append(float(steps.sum()))
        means[name] = float(np.mean(risks))
    assert means["quick"] < means["large"] + 0.1, means


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_quick_plans_are_as_safe_as_the_published(models: dict[str, Model], benchmark: Any) -> None:
    """Recovery alone, from starts so close to a wall that a critic's errors show as well."""
    starts = starts_near_walls(100)

    def fly() -> dict[str, int]:
        flights = {name: planner(models, config) for name, config in SETTINGS.items()}
        return {name: sum(violations(flying, starts)) for name, flying in flights.items()}

    counts = benchmark.pedantic(fly, rounds=1)
    benchmark.extra_info["violations"] = counts
    assert counts["deployed"] <= counts["published"] + 0.03 * len(starts)
