"""Writes what a learner has learned as the ONNX files that fly."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from safetypilot.models import export as exporting
from safetypilot.models.contract import Contract, Expected
from safetypilot.models.images import latent_name
from safetypilot.models.networks import member
from safetypilot.policies.learn import discrete
from safetypilot.policies.learn.manifest import FILES

if TYPE_CHECKING:
    from safetypilot.policies.learn.learner import Learner


def export(
    learner: Learner,
    directory: Path,
    version: str = "unversioned",
    run: Mapping[str, Any] | None = None,
    index: int = 0,
) -> dict[str, Path]:
    """Write what one seed has learned as ONNX files that can fly at once.

    Returns:
        Paths by kind; `recovery_policy` is a file of kind task_policy. What was not learned
        (the dynamics before their first fit, Q_risk without a shield) is left out.
    """
    networks: dict[str, nn.Module] = {"task_policy": learner.algorithm.deployed(index)}
    if learner.algorithm.uses_risk:
        networks["safety_critic"] = member(learner.risk.critic, index)
    if learner.dynamics_fitted:
        networks["dynamics"] = deepcopy(learner.dynamics[index])  # moves to the CPU below
    if learner.trains_recovery:
        networks["recovery_policy"] = member(learner.risk.recovery, index)
    if learner.visual is not None:
        networks |= learner.visual.networks(learner.risk)
    contract = promised = _contract(learner.interface, version, run)
    found, latent = {}, ("",)
    for kind, network in networks.items():
        if learner.visual is not None and kind in ("dynamics", "latent_critic"):
            promised = replace(contract, observation_names=latent, observation_units=("",))
        model = exporting.export(_flying(learner, network), directory / FILES[kind], promised)
        found[kind] = model.path
        if kind == "encoder":  # first of its three: nobody else's latents go by this name
            latent = (latent_name(model.contract.graph_sha256, learner.config.latent),)
    return found


def export_policy(
    learner: Learner, path: Path, version: str, run: Mapping[str, Any] | None = None, index: int = 0
) -> Path:
    """Write the task policy of one seed alone."""
    network = _flying(learner, learner.algorithm.deployed(index))
    return exporting.export(network, path, _contract(learner.interface, version, run)).path


def _flying(learner: Learner, network: nn.Module) -> nn.Module:
    """A copy of a network, on the CPU, as it is exported."""
    return (discrete.deployed(network) if learner.discrete else network).cpu()


def _contract(interface: Expected, version: str, run: Mapping[str, Any] | None) -> Contract:
    return Contract(
        kind="task_policy",
        observation_names=tuple(interface.observation_names),
        observation_units=tuple(interface.observation_units),
        action_names=tuple(interface.action_names),
        action_units=tuple(interface.action_units),
        action_low=tuple(interface.action_low),
        action_high=tuple(interface.action_high),
        version=version,
        run=dict(run or {}),
    )
