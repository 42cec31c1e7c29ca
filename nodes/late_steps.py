"""Late steps of a plant: how many, and whose doing: who waited for what, and for how long.

When no command came in time the plant cannot know why. But the command comes later, too late to be
used, and carries the stamps of all that it was decided on (kernel/trace.py): the longest hop on
that way is the cause. If it never comes, the arbiter is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from safetypilot.nodes.kernel import trace
from safetypilot.nodes.kernel.messages import Command
from safetypilot.nodes.kernel.topics import TOPICS

POLICY, CRITIC, ARBITER, PLANT = (
    TOPICS[topic].owner for topic in ("proposal", "risk", "command", "observation")
)
_PATIENCE = 64  # steps after which a command that has not come never will
_WORKS = "works"


class Cause(NamedTuple):
    """Why a step was late.

    Attributes:
        node: whose doing it was, by its type.
        what: "works", or what it waited for.
    """

    node: str
    what: str


class LateSteps:
    """Counts late steps by cause.

    Args:
        plant: what the plant is called in them, by its type.
    """

    def __init__(self, plant: str = PLANT) -> None:
        self._plant = plant
        self.missed_steps = 0  # no command came in time
        self.overruns = 0  # the plant began a period late, or later
        self._pending: dict[int, tuple[int, int]] = {}  # seq -> its stamp, its deadline
        self._refused: tuple[int, Cause, int] | None = None  # the last one, with its cause
        self._causes: dict[Cause, list[int]] = {}  # -> steps, longest in ns
        self._told: dict[Cause, int] = {}

    def missed(self, seq: int, stamp_ns: int, now_ns: int) -> None:
        """No command for this observation came by the deadline, which is now."""
        self.missed_steps += 1
        if self._refused is not None and self._refused[0] == seq:
            _, cause, took_ns = self._refused
            self._add(cause, took_ns)
        else:
            self._pending[seq] = (stamp_ns, now_ns)

    def came(self, command: Command, now_ns: int) -> None:
        """A command came too late to be taken; before its step is given up, or after."""
        cause, took_ns = longest_hop(command, now_ns)
        if self._pending.pop(command.seq, None) is not None:
            self._add(cause, took_ns)
        else:
            self._refused = (command.seq, cause, took_ns)

    def overrun(self, late_ns: int, busy_ns: int) -> None:
        """The plant was late for its own tick.

        Args:
            late_ns: by so much.
            busy_ns: of that, it was still at the step before for so long; not positive: it slept.
        """
        self.overruns += 1
        if 2 * busy_ns > late_ns:
            self._add(Cause(PLANT, _WORKS), late_ns)
        else:
            self._add(Cause(PLANT, "waits for its turn to run"), late_ns)

    def news(self, seq: int) -> dict[str, Any]:
        """What is new since the last call, for an event; empty if nothing is.

        Args:
            seq: of the observation to come.
        """
        for missed in [number for number in self._pending if number < seq - _PATIENCE]:
            self._give_up(missed)
        new = {
            cause: steps - self._told.get(cause, 0)
            for cause, (steps, _) in self._causes.items()
            if steps > self._told.get(cause, 0)
        }
        self._told = {cause: steps for cause, (steps, _) in self._causes.items()}
        return {f"{cause.node} {cause.what}": steps for cause, steps in new.items()}

    def _give_up(self, seq: int) -> None:
        stamp_ns, deadline_ns = self._pending.pop(seq)
        self._add(Cause(ARBITER, "never answered"), deadline_ns - stamp_ns)

    def _add(self, cause: Cause, took_ns: int) -> None:
        if cause.node == PLANT:
            cause = cause._replace(node=self._plant)
        entry = self._causes.setdefault(cause, [0, 0])
        entry[0] += 1
        entry[1] = max(entry[1], took_ns)

    def summary(self) -> dict[str, Any]:
        """Counts, and causes with the most frequent first; JSON-able."""
        causes = [
            {**cause._asdict(), "steps": steps, "worst_ms": round(worst / 1e6, 3)}
            for cause, (steps, worst) in self._causes.items()
        ]
        return {
            "missed": self.missed_steps,
            "overruns": self.overruns,
            "unexplained": len(self._pending),
            "causes": sorted(causes, key=lambda entry: -int(str(entry["steps"]))),
        }


def longest_hop(command: Command, now_ns: int) -> tuple[Cause, int]:
    """The cause of a late command, and how long it took, in ns."""
    chain, begun = trace.unpack(command.chain), command.stamp_ns
    hops: list[tuple[int, Cause]] = []
    last_ns, last = begun, "observation"
    if chain.policy_observed == begun:
        hops += [
            (chain.policy_taken - begun, Cause(POLICY, "waits for observation")),
            (chain.proposal_sent - chain.policy_taken, Cause(POLICY, _WORKS)),
        ]
        last_ns, last = chain.proposal_sent, "risk"
        if chain.risk_sent:
            hops += [
                (chain.critic_taken - chain.proposal_sent, Cause(CRITIC, "waits for proposal")),
                (chain.risk_sent - chain.critic_taken, Cause(CRITIC, _WORKS)),
            ]
            last_ns = chain.risk_sent
    elif not chain.policy_observed:
        last = "proposal"
    if chain.planner_observed == begun and chain.recovery_sent > last_ns:
        last_ns, last = chain.recovery_sent, "recovery"
    hops += [
        (chain.arbiter_taken - last_ns, Cause(ARBITER, f"waits for {last}")),
        (command.sent_ns - chain.arbiter_taken, Cause(ARBITER, _WORKS)),
        (now_ns - command.sent_ns, Cause(PLANT, "waits for command")),
    ]
    took_ns, cause = max(hops)
    return cause, took_ns
