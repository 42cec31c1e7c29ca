"""Files from other tools: a contract put together from their metadata and from the launch file.

What a `contract:` may say, beyond the entries of models/contract.py; nothing is guessed, and what
the file says itself may be repeated but not contradicted:

    observation_names, observation_units, action_names, action_units, action_low, action_high
                       lists in the network's order; or `plant`: as the plant has them
    rename             {the file's name: the plant's}, of observations and actions
    remap              `names`: the network may have another order, and fewer observations, than
                       the plant; each is found by its name. Otherwise another order is refused.
    tensors            {observation: NAME or position, action: ...}, where it cannot be told
    recurrent          [[input, output], ...], where it cannot be told
    observation_mean, observation_std, observation_clip
                       (value - mean) / std, within plus and minus clip; numbers or lists
    action_scale, action_offset
                       action = output * scale + offset; numbers or lists. A scale of `limits`
                       takes outputs of -1 to 1 to the action limits.
    action_clip        true: the action is clipped to its limits, as the maker's own code does
    observation_terms  blocks that make up the network's input, in order (Isaac Lab's
                       observation_names are such)
    terms              {block: names}: a list of the plant's names, a text with {joint} in it (one
                       for each action name), `previous_action` for the network's own last output,
                       or {names: ..., minus: number, list or default_joint_pos, times: number}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from safetypilot.models import contract as contracts
from safetypilot.models import makers
from safetypilot.models.adapted import PREVIOUS, RAW, Adapted, Around
from safetypilot.models.contract import Contract, Expected
from safetypilot.models.errors import ModelError
from safetypilot.models.terms import Inputs, network_inputs, vector

_OF_PLANT = (
    "observation_names",
    "observation_units",
    "action_names",
    "action_units",
    "action_low",
    "action_high",
)
_OURS = {
    *("rename", "remap", "tensors", "recurrent", "observation_mean", "observation_std"),
    *("observation_clip", "action_scale", "action_offset", "action_clip", "observation_terms"),
    *("terms", "constants"),
}
KNOWN = {*Contract.__dataclass_fields__, *_OURS}
_WANTED = {
    "task_policy": (("observation",), "action"),
    "safety_critic": (("observation", "action"), "risk"),
}


def adapt(
    path: Path,
    session: Any,
    sha256: str,
    metadata: Mapping[str, str],
    said: Mapping[str, Any],
    expected: Expected | None,
) -> Adapted:
    """A model of a file that has no contract of ours.

    Args:
        session: an onnxruntime session of it.
        sha256: of its bytes.
        metadata: its entries.
        said: the launch file's `contract:`, with the kind.
        expected: the plant.

    Raises:
        ModelError: something is missing or does not fit, and what to do.
    """
    entries = _merged(makers.entries(metadata), said)
    kind = entries.get("kind")
    if kind not in _WANTED:
        raise ModelError(
            f"from another tool only a {' or a '.join(_WANTED)} can be adapted, this is to be a "
            f"{kind or 'model of unknown kind'}; export it with a contract"
        )
    entries = _with_plant(entries, expected)
    inputs = makers.tensors_of(session.get_inputs())
    outputs = makers.tensors_of(session.get_outputs())
    wanted, tensors = _WANTED[kind], entries.get("tensors", {})
    states = makers.find_states(
        inputs, outputs, entries.get("recurrent"), tensors.get("observation"), len(wanted[0])
    )
    found = makers.find_tensors(inputs, outputs, wanted, tensors, states)
    fed = network_inputs(entries, expected)
    _check_size(next(i for i in inputs if i.name == found["observation"]), fed)
    contract, order = _contract(entries, fed, expected, path.stem)
    around = Around(
        tensors=found,
        pick=fed.pick,
        shift=fed.shift,
        gain=fed.gain,
        clip=_number(entries, "observation_clip"),
        feedback=fed.feedback,
        states=states,
        **_action_side(entries, contract, order, kind),
    )
    feedback = ((PREVIOUS, RAW),) if fed.feedback is not None else ()
    return Adapted(
        path, contracts.with_recurrent(contract, (*states, *feedback)), sha256, session, around
    )


def _merged(file: dict[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(said) - KNOWN)
    if unknown:
        raise ModelError(
            f"contract: {', '.join(unknown)} is not known; known are {', '.join(sorted(_OURS))} "
            "and the entries of the model's own contract"
        )
    for key, value in said.items():
        if key in file and _plain(file[key]) != _plain(value):
            raise ModelError(
                f"the file says {key} = {file[key]!r}, the launch file says {value!r}; "
                "remove it from the launch file (rename: gives names of the plant's)"
            )
    return {**file, **said}


def _plain(value: Any) -> Any:
    data = json.loads(json.dumps(value), parse_int=float)
    return data[0] if isinstance(data, list) and len(data) == 1 else data


def _with_plant(entries: dict[str, Any], expected: Expected | None) -> dict[str, Any]:
    """`plant` in place of an entry stands for the plant's; names are renamed."""
    entries = dict(entries)
    terms = "observation_terms" in entries
    needed = [k for k in _OF_PLANT if not (terms and k.startswith("observation"))]
    missing = [key for key in needed if key not in entries]
    if missing:
        raise ModelError(
            f"the model says nothing about {', '.join(missing)}; give them under `contract:` in "
            "the launch file: lists in the network's order, or `plant` for as the plant has them"
        )
    renamed = entries.get("rename", {})
    for key in ("observation_names", "action_names"):
        if key in entries and entries[key] != "plant":
            entries[key] = [renamed.get(name, name) for name in entries[key]]
    for key in needed:
        if entries[key] != "plant":
            continue
        if expected is None:
            raise ModelError(f"{key}: plant says nothing without a plant; give a list")
        side = key.split("_")[0]
        names = list(getattr(expected, f"{side}_names"))
        values = dict(zip(names, getattr(expected, key), strict=True))
        own = entries[f"{side}_names"]
        entries[key] = [_found(name, values, key) for name in (names if own == "plant" else own)]
    return entries


def _found(name: str, values: Mapping[str, Any], key: str) -> Any:
    if name not in values:
        raise ModelError(
            f"{key}: the plant has no {name!r}, only {', '.join(values)}; give the plant's name "
            "with rename"
        )
    return values[name]


def _check_size(tensor: makers.Tensor, fed: Inputs) -> None:
    sizes = [size for size in tensor.shape[-1:] if isinstance(size, int)]
    if sizes and sizes[0] != len(fed.pick):
        raise ModelError(
            f"input {tensor} takes {sizes[0]} values, the contract names {len(fed.pick)}; name "
            "what the network takes, in its order"
        )


def _contract(
    entries: Mapping[str, Any], fed: Inputs, expected: Expected | None, stem: str
) -> tuple[Contract, list[int]]:
    """In the plant's words and order; for each of the plant's actions, the network's."""
    names = list(entries["action_names"])
    order = list(range(len(names)))
    if expected is not None and list(expected.action_names) != names:
        if sorted(expected.action_names) == sorted(names) and entries.get("remap") == "names":
            order = [names.index(name) for name in expected.action_names]
        # otherwise the contract keeps its own names, and the check against the plant says no
    ours = {key: [entries[key][i] for i in order] for key in _OF_PLANT if key.startswith("action")}
    digest = hashlib.sha256(json.dumps(entries, sort_keys=True, default=str).encode()).hexdigest()
    data = {
        **{k: v for k, v in entries.items() if k in Contract.__dataclass_fields__},
        **ours,
        "observation_names": fed.names,
        "observation_units": fed.units,
        "version": f"{entries.get('version', stem)}+{digest[:6]}",
        "recurrent": (),
        "tensors": {},
    }
    return contracts.from_dict(data), order


def _action_side(
    entries: Mapping[str, Any], contract: Contract, order: list[int], kind: str
) -> dict[str, Any]:
    """Scale, offset, order and limits between the network's output and the plant's action."""
    count = len(order)
    straight = order == list(range(count))
    if kind == "safety_critic":
        extra = [k for k in ("action_scale", "action_offset", "action_clip") if entries.get(k)]
        if extra:
            raise ModelError(f"a critic takes actions as they are; remove {', '.join(extra)}")
        back = np.argsort(order)  # for each of the network's actions, the plant's
        return {"order": None if straight else back.astype(np.intp)}
    low, high = np.array(contract.action_low), np.array(contract.action_high)
    scale, offset = entries.get("action_scale"), entries.get("action_offset")
    found: dict[str, Any] = {"order": None if straight else np.array(order, np.intp)}
    if scale == "limits":
        if offset is not None:
            raise ModelError("action_scale: limits leaves nothing to offset; remove action_offset")
        back = np.argsort(order)
        found["scale"] = ((high - low) / 2)[back].astype(np.float32)
        found["offset"] = ((high + low) / 2)[back].astype(np.float32)
    else:
        found["scale"] = vector("action_scale", scale, count)
        found["offset"] = vector("action_offset", offset, count)
    if entries.get("action_clip"):
        found |= {"low": low.astype(np.float32), "high": high.astype(np.float32)}
    return found


def _number(entries: Mapping[str, Any], key: str) -> float | None:
    found = vector(key, entries.get(key), 1)
    return None if found is None else float(found[0])
