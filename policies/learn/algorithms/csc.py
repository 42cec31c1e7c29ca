"""Conservative safety critics (CSC, Bharadhwaj et al. 2021, arXiv 2010.14497).

Q_risk is trained to overestimate: the risk of the policy's own actions is pushed up against that of
actions seen in the data (`risk.conservative_gap`). The policy pays for it as in LR, and an action
is drawn again until one with Q_risk at most eps is found, or `samples` are spent; then the least
risky is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from safetypilot.policies.learn.algorithms import filtering
from safetypilot.policies.learn.algorithms.sqrl import Sqrl, SqrlSettings


@dataclass(frozen=True, kw_only=True)
class CscSettings(SqrlSettings):
    """LR's settings, SQRL's number of samples, and a conservative Q_risk."""

    conservative: float = 0.05


class Csc(Sqrl):
    """The first draw that is safe, where SQRL weighs all safe draws by density."""

    Settings = CscSettings

    def propose(self, observation: Tensor) -> Tensor:
        found = filtering.draw(self.parts, observation, self.config.samples)
        return filtering.first_safe(found, self.config.eps)
