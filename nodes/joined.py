"""Transitions of a fast plant joined to the steps of a slower policy, which a learner knows."""

from __future__ import annotations

import numpy as np

from safetypilot.nodes.kernel.messages import Transition


class Joiner:
    """Makes one transition of every so many; the end of an episode ends one early.

    What is joined lasts from the first part's observation to the last one's next, with the mean of
    the executed actions, the last proposal, the sum of the rewards and the largest cost. A step of
    which a part was lost is left out.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._parts: list[Transition] = []

    def take(self, part: Transition) -> Transition | None:
        """Takes a part in; the joined transition if it is the last one."""
        if self._every == 1:
            return part
        if part.step % self._every == 0:
            self._parts = [part]
        elif self._parts and self._parts[-1].seq + 1 == part.seq:
            self._parts.append(part)
        else:
            self._parts = []
            return None
        last = part.step % self._every == self._every - 1
        if not (last or part.terminated or part.truncated):
            return None
        parts, self._parts = self._parts, []
        return part._replace(
            step=part.step // self._every,
            observation=parts[0].observation,
            executed=np.asarray(np.mean([p.executed for p in parts], axis=0, dtype=np.float32)),
            source=max(p.source for p in parts),
            reward=sum(p.reward for p in parts),
            cost=max(p.cost for p in parts),
        )
