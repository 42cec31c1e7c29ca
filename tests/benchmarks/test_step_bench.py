"""The parts of a shielded step, one by one: codec, inference, decision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safetypilot.models.runtime import load
from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.health import Histogram
from safetypilot.nodes.kernel.wire import Codec
from safetypilot.policies import shield
from safetypilot.policies.critic import SafetyCritic
from safetypilot.policies.task import TaskPolicy

ZOO = Path(__file__).parents[2] / "models" / "zoo" / "maze"
ACTION = np.array([0.05, 0.0], np.float32)
OBSERVATION = np.zeros(2, np.float32)
COMMAND = messages.Command(1, 2, 3, ACTION, 0, 0, 1, ACTION, 0.1, 5, False, "trained@0123456789ab")
RULES = shield.Rules(
    eps=0.15,
    action_low=(-0.1, -0.1),
    action_high=(0.1, 0.1),
    failsafe=(0.0, 0.0),
    observation_validity_ns=10**12,
    proposal_validity_ns=10**12,
    risk_validity_ns=10**12,
    recovery_validity_ns=10**12,
    tail_validity_ns=10**12,
    command_validity_ns=10**12,
)


def test_encode_command(benchmark: Any) -> None:
    codec = Codec(messages.Command, {"O": 2, "A": 2})
    assert benchmark(codec.encode, COMMAND)


def test_decode_command(benchmark: Any) -> None:
    codec = Codec(messages.Command, {"O": 2, "A": 2})
    assert benchmark(codec.decode, codec.encode(COMMAND)).seq == 1


def test_task_policy(benchmark: Any) -> None:
    policy = TaskPolicy(load(ZOO / "trained.onnx"))
    assert benchmark(policy.act, OBSERVATION).shape == (2,)


def test_safety_critic(benchmark: Any) -> None:
    critic = SafetyCritic(load(ZOO / "critic.onnx"))
    assert 0 <= benchmark(critic.risk, OBSERVATION, ACTION) <= 1


@pytest.mark.parametrize("risk", [0.05, 0.9], ids=["approve", "recover"])
def test_decide(benchmark: Any, risk: float) -> None:
    inputs = shield.Inputs(
        shield.Observation(1, 0, 1),
        shield.Proposal(1, 0, 1, ACTION),
        shield.Risk(1, 0, 1, risk),
        shield.Recovery(1, 0, np.zeros((5, 2), np.float32), 0.0),
        True,
        False,
    )
    state = shield.State.initial()
    _, decision = benchmark(shield.decide, state, inputs, 1000, RULES)
    assert decision.source == (shield.Source.TASK if risk < 0.15 else shield.Source.RECOVERY)


def test_statistics_of_a_message(benchmark: Any) -> None:
    histogram = Histogram()
    benchmark(histogram.add, 123_456)
    assert histogram.count > 0
