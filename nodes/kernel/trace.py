"""The way of a step through the graph, as stamps: who took what when, and who sent what when.

Every answer carries when its node took what it answers. The command gathers the stamps of the
proposal, risk and recovery that it was decided on, the transition adds the plant's, so one tap on
`transition` shows every hop of every step. A chain travels as packed int64: cheap to hand on, and
unpacked only by those who look. 0 stands for what never happened.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from safetypilot.nodes.kernel.messages import (
    COMMAND_STAMPS,
    TRANSITION_STAMPS,
    Command,
    Proposal,
    Recovery,
    Risk,
)

_COMMAND = Struct(f"<{COMMAND_STAMPS}q")
_PLANT = Struct(f"<{TRANSITION_STAMPS - COMMAND_STAMPS}q")
_WHOLE = Struct(f"<{TRANSITION_STAMPS}q")


class Chain(NamedTuple):
    """The stamps of one step, CLOCK_MONOTONIC ns (virtual time in lockstep); 0: never happened."""

    policy_observed: int  # stamp of the observation that the proposal answers
    policy_taken: int  # the policy took that observation
    proposal_sent: int
    critic_taken: int  # the critic took the proposal
    risk_sent: int
    planner_observed: int  # stamp of the observation that the recovery answers
    planner_taken: int  # the planner took that observation
    recovery_sent: int
    arbiter_taken: int  # the arbiter took what it decided on last, or its deadline came
    command_sent: int
    plant_taken: int  # the plant took the command


def of_command(
    proposal: Proposal | None, risk: Risk | None, recovery: Recovery | None, taken_ns: int
) -> bytes:
    """The stamps of what a command was decided on; for `Command.chain`."""
    return _COMMAND.pack(
        0 if proposal is None else proposal.stamp_ns,
        0 if proposal is None else proposal.taken_ns,
        0 if proposal is None else proposal.sent_ns,
        0 if risk is None else risk.taken_ns,
        0 if risk is None else risk.sent_ns,
        0 if recovery is None else recovery.stamp_ns,
        0 if recovery is None else recovery.taken_ns,
        0 if recovery is None else recovery.sent_ns,
        taken_ns,
    )


def of_transition(command: Command, taken_ns: int) -> bytes:
    """A command's stamps and the plant's; for `Transition.chain`."""
    return command.chain + _PLANT.pack(command.sent_ns, taken_ns)


def unpack(chain: bytes) -> Chain:
    """The stamps of a command or a transition, by name."""
    return Chain._make(_WHOLE.unpack(chain.ljust(_WHOLE.size, b"\0")))
