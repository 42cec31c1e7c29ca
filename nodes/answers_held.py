"""What the arbiter holds where policy and planner are slower than the plant: the newest answers."""

from __future__ import annotations

from typing import Any

from safetypilot.nodes.kernel import messages


class HeldAnswers:
    """The newest proposal that has been judged, with its risk, and the newest recovery plan.

    A proposal that nobody has judged yet does not take the place of the one that flies; nor does
    anything older than what is held. Whether they may still be used the shield decides.

    Args:
        judged: whether a proposal needs a risk; False where the shield is off.
    """

    def __init__(self, judged: bool) -> None:
        self._judged = judged
        self.clear()

    def clear(self) -> None:
        """Forgets everything, as at the start of an episode."""
        self.proposal: messages.Proposal | None = None
        self.risk: messages.Risk | None = None
        self.recovery: messages.Recovery | None = None
        self._next: messages.Proposal | None = None  # to be judged
        self._verdict: messages.Risk | None = None  # that overtook its proposal

    def take(self, topic: str, message: Any) -> bool:
        """Takes an answer in; False if it is older than what is held."""
        if topic == "recovery":
            if self.recovery is not None and message.seq < self.recovery.seq:
                return False
            self.recovery = message
            return True
        newest = self._next or self.proposal
        if newest is not None and message.seq < newest.seq:
            return False
        if topic == "proposal":
            self._next = message
        else:
            self._verdict = message
        self._join()
        return True

    def _join(self) -> None:
        """Puts proposal and risk together, where both have come."""
        proposal, risk = self._next, self._verdict
        if proposal is None:
            return
        if not self._judged:
            self.proposal, self._next = proposal, None
        elif risk is not None and (risk.seq, risk.proposal_id) == (
            proposal.seq,
            proposal.proposal_id,
        ):
            self.proposal, self.risk = proposal, risk
            self._next = self._verdict = None
