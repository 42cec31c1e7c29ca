"""Staying near demonstrations while learning from them (Nair et al. 2018, arXiv 1709.10089).

A critic that has only seen demonstrations dreams of actions that nobody tried, and its actor goes
there; a squared distance from the demonstrated action, on demonstrated rows alone, keeps it. Where
the demonstrations are of the scarce reward's only way, as in Object Extraction, nothing is learned
without.
"""

from __future__ import annotations

from torch import Tensor

from safetypilot.policies.learn.sac import Penalty, Sac, TaskBatch


def beside(penalty: Penalty | None, sac: Sac, batch: TaskBatch, weight: float) -> Penalty:
    """A penalty that also keeps to the demonstrated actions of a batch.

    Args:
        penalty: the algorithm's own.
        sac: whose action box is the measure.
        batch: the rows of this update.
        weight: of the squared distance, in parts of half the action box.
    """
    scaling = sac.actor.scaling
    shown = scaling.action(batch.action)

    def total(observation: Tensor, action: Tensor) -> Tensor:
        distance = (scaling.action(action) - shown).square().sum(dim=-1)  # (S, B)
        cost: Tensor = weight * batch.demonstrated * distance
        return cost if penalty is None else cost + penalty(observation, action)

    return total
