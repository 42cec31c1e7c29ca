"""What files of other makers say of themselves: metadata keys, tensor names, recurrent state.

Isaac Lab's family (rsl_rl runners with `attach_onnx_metadata`: Isaac Lab, mjlab, BeyondMimic's
whole_body_tracking) writes text entries with values between commas: `joint_names`,
`default_joint_pos`, `action_scale`, `observation_names` (terms, not numbers), `command_names`,
`joint_stiffness`, `joint_damping`. Its networks take `obs` and give `actions`; recurrent ones also
take `h_in` (and `c_in`) and give `h_out` (and `c_out`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from safetypilot.models.errors import ModelError

_NUMBERS = ("joint_stiffness", "joint_damping", "default_joint_pos", "action_scale")
_TEXTS = ("joint_names", "command_names", "observation_names")
# tensor of ours -> what makers call it where there is more than one candidate
_KNOWN = {
    "observation": ("obs", "observation", "observations", "input"),
    "action": ("action", "actions"),
    "risk": ("risk", "risks"),
}
_AFFIXES = {"in", "out", "next", "new", "prev", "previous", "n", "0"}


class Tensor(NamedTuple):
    """An input or output of a network, as onnxruntime tells it."""

    name: str
    shape: list[int | str | None]
    type: str

    def __str__(self) -> str:
        return f"{self.name} {self.shape}"


def tensors_of(values: Sequence[Any]) -> list[Tensor]:
    return [Tensor(value.name, list(value.shape), value.type) for value in values]


def isaac(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The contract entries in metadata of Isaac Lab's family; empty if it is not of that family.

    Raises:
        ModelError: an entry is not what it should be.
    """
    if "joint_names" not in metadata:
        return {}
    found: dict[str, Any] = {}
    for key in _TEXTS:
        if key in metadata:
            found[key] = [word.strip() for word in metadata[key].strip("[]").split(",") if word]
    for key in _NUMBERS:
        if key not in metadata:
            continue
        try:
            found[key] = [float(word) for word in metadata[key].strip("[]").split(",")]
        except ValueError:
            raise ModelError(
                f"metadata {key} is {metadata[key][:60]!r}; numbers between commas were expected"
            ) from None
    joints = found["joint_names"]
    for key in _NUMBERS:
        if key in found and len(found[key]) not in (1, len(joints)):
            raise ModelError(f"metadata has {len(joints)} joint_names and {len(found[key])} {key}")
    return found


def entries(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What a maker's metadata says, in the words of a `contract:`."""
    found = isaac(metadata)
    if not found:
        return {}
    joints = found["joint_names"]
    contract: dict[str, Any] = {"action_names": joints, "action_units": ["rad"] * len(joints)}
    if "observation_names" in found:
        contract["observation_terms"] = found["observation_names"]
    if "action_scale" in found:
        contract["action_scale"] = found["action_scale"]
    if "default_joint_pos" in found:
        contract["action_offset"] = found["default_joint_pos"]
        contract["constants"] = {"default_joint_pos": found["default_joint_pos"]}
    kept = ("joint_names", "joint_stiffness", "joint_damping", "default_joint_pos")
    contract["run"] = {"maker": "isaaclab", **{k: found[k] for k in kept if k in found}}
    return contract


def find_tensors(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], wanted: tuple[tuple[str, ...], str],
    said: Mapping[str, str | int], states: Sequence[tuple[str, str]],
) -> dict[str, str]:  # fmt: skip
    """Our tensor names -> the file's, for what is used of a network.

    Args:
        wanted: our names of the inputs, and of the one output.
        said: what the contract says: a name, or a position among inputs or outputs.
        states: recurrent pairs, by the file's names.

    Raises:
        ModelError: it cannot be told, or what was said is not there.
    """
    found: dict[str, str] = {}
    unknown = set(said) - {*wanted[0], wanted[1]}
    if unknown:
        raise ModelError(
            f"tensors names {', '.join(sorted(unknown))}; this kind has "
            f"{', '.join((*wanted[0], wanted[1]))}"
        )
    for ours, among, taken in (
        *((name, inputs, {pair[0] for pair in states}) for name in wanted[0]),
        (wanted[1], outputs, {pair[1] for pair in states}),
    ):
        free = [tensor for tensor in among if tensor.name not in taken]
        if ours in said:
            found[ours] = _named(ours, said[ours], among)
            continue
        alike = [tensor for tensor in free if tensor.name in _KNOWN[ours]]
        only = alike if len(alike) == 1 else free
        if len(only) != 1:
            listed = ", ".join(map(str, free))
            raise ModelError(
                f"which of {listed} is the {ours}? say so: tensors: {{{ours}: NAME or position}}"
            )
        found[ours] = only[0].name
    return found


def _named(ours: str, said: str | int, among: Sequence[Tensor]) -> str:
    names = [tensor.name for tensor in among]
    if type(said) is int and 0 <= said < len(names):
        return names[said]
    if said in names:
        return str(said)
    raise ModelError(f"tensors: {ours} is {said!r}; the file has {', '.join(map(str, among))}")


def find_states(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], said: Sequence[Sequence[str]] | None,
    observation: str | int | None, least: int,
) -> tuple[tuple[str, str], ...]:  # fmt: skip
    """Pairs of input and output that carry recurrent state, by the file's names.

    Args:
        said: what the contract says; None: they are told by name and shape, if that is possible
            without a guess.
        observation: what the contract says of the observation, if anything.
        least: inputs that are not state: one for a policy, two for a critic.

    Raises:
        ModelError: a pair is not there or does not fit, or the pairs cannot be told.
    """
    by_in, by_out = ({tensor.name: tensor for tensor in side} for side in (inputs, outputs))
    if said is not None:
        for pair in said:
            if len(pair) != 2 or pair[0] not in by_in or pair[1] not in by_out:
                raise ModelError(
                    f"recurrent pair {list(pair)}: the file takes {', '.join(by_in)} and gives "
                    f"{', '.join(by_out)}"
                )
            _same_shape(by_in[pair[0]], by_out[pair[1]])
        return tuple((pair[0], pair[1]) for pair in said)
    if len(inputs) <= least:
        return ()
    seen = inputs[observation].name if isinstance(observation, int) else observation
    ours = {*_KNOWN["observation"], *_KNOWN["action"], seen}
    states = [tensor for tensor in inputs if tensor.name not in ours]
    pairs = [_partner(tensor, states, outputs) for tensor in states]
    missing = [tensor for tensor, pair in zip(states, pairs, strict=True) if pair is None]
    if missing or len(inputs) - len(states) != least:
        raise ModelError(
            f"its inputs are {', '.join(map(str, inputs))}, its outputs "
            f"{', '.join(map(str, outputs))}; which carry recurrent state cannot be told from "
            "their names: say so, recurrent: [[INPUT, OUTPUT], ...]"
        )
    return tuple(pair for pair in pairs if pair is not None)


def _partner(
    state: Tensor, states: Sequence[Tensor], outputs: Sequence[Tensor]
) -> tuple[str, str] | None:
    """The output that goes on with a state: the only one of its stem and shape."""
    stem = _stem(state.name)
    rivals = [other for other in states if _stem(other.name) == stem]
    alike = [out for out in outputs if _stem(out.name) == stem and _fits(state, out)]
    return (state.name, alike[0].name) if len(alike) == len(rivals) == 1 else None


def _stem(name: str) -> str:
    """`h` of h_in, h_out, next_h, hn and h0."""
    words = [word for word in name.lower().split("_") if word not in _AFFIXES]
    stem = "_".join(words) or name.lower()
    return stem[0] if re.fullmatch(r"[a-z][0n]", stem) else stem


def _fits(state: Tensor, following: Tensor) -> bool:
    if state.type != following.type or len(state.shape) != len(following.shape):
        return False
    sizes = zip(state.shape, following.shape, strict=True)
    return all(a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in sizes)


def _same_shape(state: Tensor, following: Tensor) -> None:
    if not _fits(state, following):
        raise ModelError(
            f"recurrent pair {state.name}, {following.name}: {state.shape} {state.type} goes in, "
            f"{following.shape} {following.type} comes out; they must agree"
        )
