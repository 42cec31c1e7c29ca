"""The breakdown of a step by hops, from chains that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetypilot.launch import latency
from safetypilot.nodes.kernel import messages, trace

TASK, RECOVERY = 0, 1
ROW = np.zeros(2, np.float32)
US = 1000
WHOLE = trace.Chain(
    policy_observed=0,
    policy_taken=100 * US,
    proposal_sent=150 * US,
    critic_taken=230 * US,
    risk_sent=300 * US,
    planner_observed=0,
    planner_taken=0,
    recovery_sent=0,
    arbiter_taken=380 * US,
    command_sent=400 * US,
    plant_taken=470 * US,
)


def step(chain: trace.Chain, source: int = TASK, start_ns: int = 10**15) -> messages.Transition:
    """A transition whose stamps are given from the start of the step on; 0 where none is set."""
    first = trace.Chain._fields
    set_at = {n: at + start_ns if at or n == "policy_observed" else 0 for n, at in
              zip(first, chain, strict=True)}  # fmt: skip
    if not chain.policy_taken:
        set_at["policy_observed"] = 0
    if chain.planner_taken:
        set_at["planner_observed"] = chain.planner_observed + start_ns
    packed = np.array(list(set_at.values()), "<i8").tobytes()
    end = start_ns + chain.plant_taken + 600 * US
    return messages.Transition(
        1, start_ns, end, 0, 0, ROW, ROW, ROW, source, 0.0, 0.0, False, ROW, False, False, packed
    )  # fmt: skip


def figures(*steps: Any) -> dict[str, Any]:
    breakdown = latency.Breakdown()
    breakdown.add(steps)
    return breakdown.figures()


def medians(found: dict[str, Any]) -> dict[str, float]:
    return {name: row["p50"] for name, row in found["hops_us"].items()}


def test_an_approved_step_hop_by_hop() -> None:
    found = figures(step(WHOLE))
    assert medians(found) == {
        "observation_to_policy": 100, "policy": 50, "proposal_to_critic": 80, "critic": 70,
        "risk_to_arbiter": 80, "arbiter": 20, "command_to_plant": 70, "plant": 600, "total": 470,
    }  # fmt: skip
    ages = {name: row["p50"] for name, row in found["age_at_use_us"].items()}
    assert ages == {"proposal": 380, "command": 470}
    assert (found["steps"], found["missed"], found["waited"]) == (1, 0, 0)


def test_a_recovered_step_waits_for_the_recovery() -> None:
    chain = WHOLE._replace(planner_taken=90 * US, recovery_sent=350 * US)
    hops = medians(figures(step(chain, RECOVERY)))
    assert hops["recovery_to_arbiter"] == 30 and "risk_to_arbiter" not in hops


@pytest.mark.parametrize("missing", ["risk", "recovery"])
def test_a_step_decided_at_the_deadline_says_nothing_of_a_hop(missing: str) -> None:
    chain, source = WHOLE, RECOVERY  # unsafe, and no recovery came
    if missing == "risk":
        chain = WHOLE._replace(critic_taken=0, risk_sent=0, planner_taken=9, recovery_sent=10)
    found = figures(step(chain, source))
    assert found["waited"] == 1
    assert not {"risk_to_arbiter", "recovery_to_arbiter"} & set(found["hops_us"])


def test_a_bare_step_goes_from_the_policy_to_the_arbiter() -> None:
    hops = medians(figures(step(WHOLE._replace(critic_taken=0, risk_sent=0))))
    assert hops["proposal_to_arbiter"] == 230 and "critic" not in hops


def test_a_missed_step_is_counted_and_nothing_else() -> None:
    found = figures(step(trace.Chain(*[0] * 11)), step(WHOLE))
    assert (found["steps"], found["missed"]) == (2, 1)
    assert found["hops_us"]["total"]["n"] == 1


def test_a_proposal_that_is_held_counts_by_its_age_only() -> None:
    held = step(WHOLE)
    chain = trace.unpack(held.chain)._replace(policy_observed=held.stamp_ns - 2_000 * US)
    packed = np.array(list(chain), "<i8").tobytes()
    found = figures(held._replace(chain=packed))
    assert "policy" not in found["hops_us"]
    assert found["age_at_use_us"]["proposal"]["p50"] == 2380


def test_plans_count_also_where_nobody_used_them() -> None:
    plan = messages.Recovery(1, 1000 * US, 1900 * US, ROW[None], ROW[:1], 1, "m", 1400 * US)
    assert medians(figures(plan)) == {"observation_to_planner": 400, "planner": 500}


@given(st.lists(st.integers(1, 10**6), min_size=8, max_size=8))
def test_the_hops_of_a_step_add_up_to_the_whole(parts: list[int]) -> None:
    at = np.cumsum(parts) * 8 * US  # multiples that single precision holds
    chain = trace.Chain(0, *map(int, at[:4]), 0, 0, 0, *map(int, at[4:7]))
    hops = medians(figures(step(chain)))
    whole = hops.pop("total")
    del hops["plant"]
    assert sum(hops.values()) == pytest.approx(whole, rel=1e-5)


@given(st.binary(min_size=88, max_size=88), st.integers(0, 3))
def test_a_chain_of_garbage_is_survived(chain: bytes, source: int) -> None:
    found = figures(step(WHOLE, source)._replace(chain=chain))
    assert found["steps"] == 1
    assert all(row["p50"] >= 0 for row in found["hops_us"].values())


def test_percentiles_are_shown_once_the_sample_supports_them() -> None:
    few, many = figures(*[step(WHOLE)] * 99), figures(*[step(WHOLE)] * 10_000)
    assert few["hops_us"]["total"]["p99"] is None
    assert many["hops_us"]["total"]["p999"] == 470
    text = latency.text({"run": "mine", **few})
    assert "observation -> command taken" in text and "99 steps" in text
