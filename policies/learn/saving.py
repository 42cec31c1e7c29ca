"""A learner as tensors and plain values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from safetypilot.models.latent import LatentModel
from safetypilot.models.networks import DynamicsEnsemble, member
from safetypilot.policies.learn import catalogue, checkpoint
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.seeds import mixed

if TYPE_CHECKING:
    from safetypilot.policies.learn.learner import Learner


def state(learner: Learner) -> dict[str, Any]:
    """Everything that the next update depends on, as tensors and plain values."""
    return {
        **checkpoint.collect(learner.networks(), learner.optimisers(), learner.replays()),
        **_rest(learner),
        "name": learner.name,
        "rng": checkpoint.rng_state(learner.rng),
        "generator": learner.generator.get_state(),
        "device": learner.device.type,
    }


def weights(learner: Learner, index: int = 0) -> dict[str, Any]:
    """One seed's networks alone: what another learner can go on from with data of its own."""
    networks = {
        name: member(network, index)
        for name, network in learner.networks().items()
        if not isinstance(network, DynamicsEnsemble | LatentModel)
    }
    if learner.dynamics:
        networks["dynamics_0"] = learner.dynamics[index]
    if learner.visual is not None:
        networks["latent"] = learner.visual.model
    return {
        **checkpoint.collect(networks, {}, {}),
        **_rest(learner),
        "log_alpha": learner.sac.log_alpha.detach()[index : index + 1].clone(),
    }


def _rest(learner: Learner) -> dict[str, Any]:
    return {
        "log_alpha": learner.sac.log_alpha.detach().clone(),
        "algorithm": learner.algorithm.state(),
        "updates": learner.updates,
        "risk_updates": learner.risk_updates,
        "dynamics_fitted": learner.dynamics_fitted,
        "scaled": learner.scaled,
    }


def restore(learner: Learner, state: Mapping[str, Any]) -> None:
    """Continue bit for bit from `state`, or with new optimisers and data from `weights`.

    On another kind of device than the state's, random numbers begin anew.

    Raises:
        LearnError: `state` is of another algorithm, or of networks of other sizes.
    """
    whole = bool(state["replays"])
    if whole and catalogue.canonical(state["name"]) != catalogue.canonical(learner.name):
        raise LearnError(
            f"the checkpoint is of {state['name']}, this learner of {learner.name}; "
            "its weights.pt alone can be taken over by another algorithm"
        )
    checkpoint.put_back(
        state,
        learner.networks(),
        learner.optimisers() if whole else {},
        learner.replays() if whole else {},
    )
    with torch.no_grad():
        learner.sac.log_alpha.copy_(state["log_alpha"])
    if whole:
        checkpoint.restore_rng(learner.rng, state["rng"])
        if state.get("device", "cpu") == learner.device.type:
            learner.generator.set_state(state["generator"])
        else:
            learner.generator.manual_seed(mixed((*learner.seeds, int(state["updates"]))))
        learner.algorithm.restore(state["algorithm"])
    learner.updates = int(state["updates"])
    learner.risk_updates = int(state.get("risk_updates", 0))
    learner.dynamics_fitted = bool(state["dynamics_fitted"])
    learner.scaled = bool(state["scaled"])
