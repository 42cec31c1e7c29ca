"""The chain of a step: who took what when, gathered on the way and read at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
from examples import DIMS
from hypothesis import given
from hypothesis import strategies as st

from safetypilot.nodes.kernel import messages, trace
from safetypilot.nodes.kernel.wire import Codec

ACTION = np.zeros(2, np.float32)
STAMPS = st.integers(0, 2**63 - 1)
PROPOSALS = st.builds(
    lambda stamp, sent, taken: messages.Proposal(1, stamp, sent, 1, ACTION, "m", taken),
    STAMPS, STAMPS, STAMPS,
)  # fmt: skip
RISKS = st.builds(lambda sent, taken: messages.Risk(1, 2, sent, 1, 0.5, "m", taken), STAMPS, STAMPS)
RECOVERIES = st.builds(
    lambda stamp, sent, taken: messages.Recovery(
        1, stamp, sent, ACTION[None], np.zeros(1, np.float32), 1, "m", taken
    ),
    STAMPS, STAMPS, STAMPS,
)  # fmt: skip


def command(sent_ns: int, chain: bytes) -> messages.Command:
    return messages.Command(
        1, 2, sent_ns, ACTION, 0, 0, 1, ACTION, 0.5, 9, False, "m", chain
    )  # fmt: skip


@given(
    st.none() | PROPOSALS, st.none() | RISKS, st.none() | RECOVERIES, STAMPS, STAMPS, STAMPS
)  # fmt: skip
def test_every_stamp_arrives_under_its_name(
    proposal: Any, risk: Any, recovery: Any, decided: int, sent: int, applied: int
) -> None:
    codec = Codec(messages.Command, DIMS)
    answer = command(sent, trace.of_command(proposal, risk, recovery, decided))
    chain = trace.unpack(trace.of_transition(codec.decode(codec.encode(answer)), applied))
    assert chain == trace.Chain(
        policy_observed=proposal.stamp_ns if proposal else 0,
        policy_taken=proposal.taken_ns if proposal else 0,
        proposal_sent=proposal.sent_ns if proposal else 0,
        critic_taken=risk.taken_ns if risk else 0,
        risk_sent=risk.sent_ns if risk else 0,
        planner_observed=recovery.stamp_ns if recovery else 0,
        planner_taken=recovery.taken_ns if recovery else 0,
        recovery_sent=recovery.sent_ns if recovery else 0,
        arbiter_taken=decided,
        command_sent=sent,
        plant_taken=applied,
    )


def test_a_message_that_nobody_stamped_has_an_empty_chain() -> None:
    bare = messages.Command(1, 2, 3, ACTION, 0, 0, 1, ACTION, 0.5, 9, False, "m")
    assert set(trace.unpack(bare.chain)) == {0}


def test_the_plant_has_not_taken_what_is_still_a_command() -> None:
    chain = trace.unpack(trace.of_command(None, None, None, 5))
    assert (chain.arbiter_taken, chain.command_sent, chain.plant_taken) == (5, 0, 0)
