"""What an update costs: task policy, Q_risk with its recovery policy, sampling; seeds in one batch.

`pytest tests/benchmarks/test_learner.py --benchmark-enable`; `learner_peers` has the comparison
with stable-baselines3 and the ratios.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from safetypilot.policies.learn.learner import Learner
from tests.benchmarks.learners import ours

pytest.importorskip("pytest_benchmark")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As in training."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def learner(seeds: int = 1, **settings: Any) -> Learner:
    made = ours("recovery-rl", 17, 6, seeds=tuple(range(seeds)), **settings)
    made.update(2)  # recorded
    return made


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("capture", [True, False], ids=["recorded", "plain"])
def test_task_update(capture: bool, precision: str, benchmark: Any) -> None:
    made = learner(capture=capture, precision=precision)
    assert benchmark(made.update_task)


def test_risk_update(benchmark: Any) -> None:
    assert benchmark(learner().update_risk)


def test_five_seeds_in_one_batch(benchmark: Any) -> None:
    assert benchmark(learner(seeds=5, hidden=64, batch=128).update_task)


def test_sampling(benchmark: Any) -> None:
    made = learner()
    rows = benchmark(lambda: made.task_replay.sample(made.rng, 256))
    assert rows.reward.shape == (1, 256)
