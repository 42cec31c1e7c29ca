"""Recovery RL (Thananjeyan, Balakrishna et al. 2021, arXiv 2010.15920).

A task policy that only sees reward proposes; where the learned risk Q_risk of its proposal exceeds
eps, a recovery that only sees risk acts instead (the shield, in `flight`). Offline data that hold
violations teach Q_risk, the dynamics and the recovery policy before the first episode, so few are
met online. The task policy learns what comes of its proposals (relabelling), Q_risk what comes of
actions. `recovery` chooses who recovers: a planner on the learned dynamics, a policy that descends
Q_risk, or the least risky of many random actions.
"""

from __future__ import annotations

from safetypilot.policies.learn.algorithms.base import Algorithm


class RecoveryRL(Algorithm):
    """Soft actor-critic behind the shield; all of its own is in `risk`, `dynamics`, `flight`."""

    uses_risk = True
