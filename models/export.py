"""Turns a trained network into the ONNX file that flies, and accepts it only if it agrees."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from safetypilot.models import contract as contracts
from safetypilot.models import graphs, graphs_choice, graphs_filtered, graphs_image, runtime
from safetypilot.models.categorical import (
    CategoricalActor,
    ChoiceCritic,
    ChoiceDynamics,
    FilteredChoice,
)
from safetypilot.models.contract import Contract
from safetypilot.models.errors import ModelError
from safetypilot.models.filtered import FilteredPolicy
from safetypilot.models.latent import LatentEncoder, LatentTransition
from safetypilot.models.networks import (
    DynamicsEnsemble,
    GaussianActor,
    RecoveryActor,
    Scaling,
    TwinCritic,
)
from safetypilot.models.squashed import LOG_STD_RANGE
from safetypilot.models.stacked import StackedMLP

PARITY_TOLERANCE = 1e-5  # of the outputs' size; float32 rounding of folded layers stays below
_GOLDEN_ROWS = 4
_PARITY_ROWS = 64

Rows = dict[str, NDArray[np.float32]]


def export(network: nn.Module, path: Path | str, contract: Contract) -> runtime.Model:
    """Write a network as ONNX with its contract; the old file stays until the new one is proven.

    Args:
        network: GaussianActor, RecoveryActor, FilteredPolicy, TwinCritic (of probabilities),
            DynamicsEnsemble, LatentEncoder or LatentTransition, of one seed.
        path: where the file goes.
        contract: names, units, limits, rate, version and run; kind, golden rows and hash are
            filled in here.

    Returns:
        The model as a node would load it.

    Raises:
        ModelError: the weights are not finite, or the file does not agree with the network.
    """
    path = Path(path)
    for name, tensor in network.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{name} is not finite; training diverged, nothing was exported")
    kind, model = _build(network)
    contract = replace(contract, kind=kind, golden={})
    rows = _rows(network, contract, _PARITY_ROWS)
    sure = _decided(network, rows) if isinstance(network, FilteredPolicy) else rows
    wanted = _evaluate(network, sure) if len(sure["observation"]) else {}
    contract = replace(
        contract,
        graph_sha256=hashlib.sha256(_serialise(model)).hexdigest(),
        golden=_golden(sure, wanted),
    )
    entry = model.metadata_props.add()
    entry.key, entry.value = contracts.METADATA_KEY, contract.to_json()
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            file.write(_serialise(model))
            file.flush()
            os.fsync(file.fileno())
        staged = runtime.stage(scratch, kind, contract)
        if wanted:
            _check_parity(staged, sure, wanted)
        if isinstance(network, FilteredPolicy):
            _check_candidates(staged, network, rows)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    return runtime.load(path)


def _serialise(model: Any) -> bytes:
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _few(array: NDArray[np.float32], rows: slice) -> NDArray[np.float32]:
    """The first rows; the batch is the last but one dimension, or the only one."""
    return array[rows] if array.ndim < 3 else array[:, rows]


def _build(network: nn.Module) -> tuple[str, Any]:
    if isinstance(network, CategoricalActor | FilteredChoice):
        return "task_policy", _choice(network)
    if isinstance(network, GaussianActor | RecoveryActor):
        return "task_policy", _policy(network)
    if isinstance(network, FilteredPolicy):
        return "task_policy", _filtered(network)
    if isinstance(network, TwinCritic) and network.probability:
        return "safety_critic", _chosen(network, _critic(network))
    if isinstance(network, DynamicsEnsemble):
        return "dynamics", _chosen(network, _dynamics(network))
    if isinstance(network, LatentEncoder):
        return "encoder", graphs_image.encoder(network.exported())
    if isinstance(network, LatentTransition):
        sizes = network.sizes
        return "dynamics", graphs_image.latent_dynamics(
            network.exported(), sizes.latent, sizes.residual
        )
    raise ModelError(
        f"no ONNX graph for a {type(network).__name__}; export an actor, a critic of "
        "probabilities or a dynamics ensemble"
    )


def _array(tensor: torch.Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.detach().double().numpy()
    return array


def _layers(network: StackedMLP, index: int = 0) -> list[graphs.Layer]:
    """One network of a stack, in float64: weights (in, out), biases (out,)."""
    return [(_array(weight[index]), _array(bias[index, 0])) for weight, bias in network.layers]


def _policy(network: GaussianActor | RecoveryActor) -> Any:
    layers = _layers(network.network)
    actions = network.sizes.action
    weight, bias = layers[-1]
    layers[-1] = (weight[:, :actions], bias[:actions])  # the mean; log-deviations stay behind
    if network.encoder is not None:
        return graphs_image.task_policy(network.encoder.exported(), layers, *_box(network.scaling))
    return graphs.task_policy(_folded(layers, network.scaling), *_box(network.scaling))


def _choice(network: CategoricalActor | FilteredChoice) -> Any:
    alone = isinstance(network, CategoricalActor)
    actor = network if alone else network.actor
    networks = (actor,) if alone else (actor, network.critic)
    encoders = [each.encoder for each in networks if each.encoder is not None]
    images = tuple(encoder.exported() for encoder in encoders)
    layers = _layers(actor.network)
    if not images:
        layers = _folded(layers, actor.scaling)
    if alone:
        return graphs_choice.task_policy(layers, images)
    return graphs_choice.filtered_policy(layers, _twins(network.critic), network.eps, images)


def _chosen(network: nn.Module, model: Any) -> Any:
    """The same model, asked about preferences, where a network judges the choice they make."""
    if not isinstance(network, ChoiceCritic | ChoiceDynamics):
        return model
    size = model.graph.input[1].type.tensor_type.shape.dim[-1].dim_value
    return graphs_choice.projected(model, size)


def _filtered(network: FilteredPolicy) -> Any:
    actor, critic = network.actor, network.critic
    layers, images = _layers(actor.network), None
    if actor.encoder is None or critic.encoder is None:
        layers = _folded(layers, actor.scaling)
    else:
        images = (actor.encoder.exported(), critic.encoder.exported())
    noise, box = _array(network.noise), _box(actor.scaling)
    settings = graphs_filtered.Filter(*box, noise, network.eps, LOG_STD_RANGE, images)
    return graphs_filtered.filtered_policy(layers, _twins(critic), settings)


def _critic(network: TwinCritic) -> Any:
    if network.encoder is not None:
        return graphs_image.safety_critic(network.encoder.exported(), _twins(network))
    return graphs.safety_critic(_twins(network), network.sizes.observation)


def _twins(network: TwinCritic) -> list[graphs.Folded]:
    """Layers of each critic that take action, and observation but for pixels, as they come."""
    scaling, features = network.scaling, network.sizes.features
    middle, half = _box(scaling)
    mean, scale = np.zeros(features), np.ones(features)
    if network.encoder is None:
        mean = _array(scaling.observation_mean)[0, 0]
        scale = _array(scaling.observation_scale)[0, 0]
    joint = np.concatenate((mean, middle)), np.concatenate((scale, half))
    return [graphs.fold_input(_layers(network.network, i), *joint) for i in range(network.critics)]


def _folded(layers: list[graphs.Layer], scaling: Scaling) -> graphs.Folded:
    mean, scale = _array(scaling.observation_mean)[0, 0], _array(scaling.observation_scale)[0, 0]
    return graphs.fold_input(layers, mean, scale)


def _box(scaling: Scaling) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middle and half of the action box, (A,)."""
    return _array(scaling.action_middle)[0, 0], _array(scaling.action_half)[0, 0]


def _dynamics(network: DynamicsEnsemble) -> Any:
    layers = [(_array(layer.weight), _array(layer.bias)) for layer in network.layers]
    layers = graphs.fold_input(layers, _array(network.input_mean), _array(network.input_scale))
    change_scale = _array(network.change_scale)
    weight, bias = layers[-1]
    ones = np.ones_like(change_scale)
    factor = np.concatenate((change_scale, ones))
    offset = np.concatenate((_array(network.change_mean), 0 * ones))
    layers[-1] = (weight * factor, bias * factor + offset)
    return graphs.dynamics(
        layers,
        _array(network.log_variance_min),
        _array(network.log_variance_max),
        change_scale,
    )


def _rows(network: nn.Module, contract: Contract, count: int) -> Rows:
    """Inputs around the data that the network was trained on; the same every time."""
    rng = np.random.default_rng(0)
    size = contract.observation_size
    lead: tuple[int, ...] = (count,)
    mean, scale = np.zeros(size), np.ones(size)
    if isinstance(network, DynamicsEnsemble):
        lead = (network.members, count)
        mean, scale = _array(network.input_mean[:size]), _array(network.input_scale[:size])
    elif isinstance(network, LatentTransition):
        lead = (1, count)
    elif not isinstance(network, LatentEncoder):
        scaling = network.scaling
        mean = _array(scaling.observation_mean)[0, 0]
        scale = _array(scaling.observation_scale)[0, 0]
    observation = mean + 1.5 * scale * rng.standard_normal((*lead, size))
    if contracts.image_shape(contract.observation_names) is not None:
        observation = rng.integers(0, 256, observation.shape).astype(np.float64)
    low, high = np.array(contract.action_low), np.array(contract.action_high)
    values = {
        "observation": observation,
        "action": low + (high - low) * rng.random((*lead, contract.action_size)),
        "noise": rng.standard_normal((*lead, size)),
    }
    names = contracts.NAMES[contract.kind][0]
    return {name: values[name].astype(np.float32) for name in names}


def _decided(network: FilteredPolicy, rows: Rows) -> Rows:
    """The rows whose answer does not hang on rounding; none, where all candidates are alike."""
    with torch.no_grad():
        kept = network.decided(torch.from_numpy(rows["observation"])[None]).numpy()
    return {"observation": rows["observation"][kept]}


def _golden(rows: Rows, wanted: Rows) -> dict[str, Any]:
    few = slice(_GOLDEN_ROWS)
    if not wanted:
        return {}
    return {
        "inputs": {name: _few(array, few).tolist() for name, array in rows.items()},
        "outputs": {name: _few(array, few).tolist() for name, array in wanted.items()},
    }


def _evaluate(network: nn.Module, rows: Rows) -> Rows:
    inputs = [torch.from_numpy(array) for array in rows.values()]
    with torch.no_grad():
        if isinstance(network, DynamicsEnsemble):
            return {"next_observation": network(*inputs).numpy()}
        if isinstance(network, LatentTransition):
            return {"next_observation": network(*inputs[:2]).numpy()}
        inputs = [each[None] for each in inputs]  # of the one seed
        if isinstance(network, TwinCritic):
            return {"risk": network.risk(*inputs)[0].numpy()}
        name = "latent" if isinstance(network, LatentEncoder) else "action"
        return {name: network(*inputs)[0].numpy()}


def _check_candidates(model: runtime.Model, network: FilteredPolicy, rows: Rows) -> None:
    """Where rounding decides among equals, the answer has to be one of them at least."""
    with torch.no_grad():
        offered = network.candidates(torch.from_numpy(rows["observation"])[None]).numpy()
    apart = np.abs(model.run(**rows)["action"][:, None] - offered).max(axis=2).min(axis=1)  # (B,)
    allowed = PARITY_TOLERANCE * max(1.0, float(np.abs(offered).max()))
    if not apart.max() <= allowed:
        raise ModelError(
            f"the exported action is {apart.max():.3g} from every candidate; nothing was written"
        )


def _check_parity(model: runtime.Model, rows: Rows, wanted: Rows) -> None:
    for name, array in model.run(**rows).items():
        allowed = PARITY_TOLERANCE * max(1.0, float(np.abs(wanted[name]).max()))
        difference = float(np.abs(array - wanted[name]).max())
        if not difference <= allowed:
            raise ModelError(
                f"the exported {name} is off by {difference:.3g}, allowed {allowed:.3g}; "
                "nothing was written"
            )
