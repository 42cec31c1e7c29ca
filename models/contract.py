"""What a model file promises: kind, names, units, limits, rate and golden rows.

The contract travels as JSON in the metadata entry `safetypilot` of the ONNX file. Letters: B batch,
O observation size, A action size, E ensemble members, N rows per member.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Protocol

from safetypilot.models.errors import ModelError
from safetypilot.models.images import latent_name

SCHEMA = 1
METADATA_KEY = "safetypilot"
LIMIT_TOLERANCE = 1e-5  # relative to the range: float32 in the file, float64 in a launch file
RATE_TOLERANCE = 0.01  # relative

# kind -> (input names, output names), in order
NAMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "task_policy": (("observation",), ("action",)),
    "safety_critic": (("observation", "action"), ("risk",)),
    "dynamics": (("observation", "action", "noise"), ("next_observation",)),
    "encoder": (("observation",), ("latent",)),
}

_TUPLES = (
    "observation_names",
    "observation_units",
    "action_names",
    "action_units",
    "action_low",
    "action_high",
)
_REQUIRED = ("kind", *_TUPLES)
_SHAPED = re.compile(r"\[([1-9]\d*(?:,[1-9]\d*)*)\]$")


def observation_size(names: Sequence[str]) -> int:
    """How many values observation names stand for; `image[64,64,3]` is one name for 12288."""
    return sum(math.prod(_shape(name)) for name in names)


def image_shape(names: Sequence[str]) -> tuple[int, int, int] | None:
    """Height, width and channels if the observation is one image, else None."""
    shape = _shape(names[0]) if len(names) == 1 else ()
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else None


def of_latents(encoder: Contract, size: int) -> Contract:
    """What dynamics and critics of an encoder's latents (L = `size`) are compared with."""
    name = latent_name(encoder.graph_sha256, size)
    return replace(encoder, observation_names=(name,), observation_units=("",), golden={})


def with_recurrent(contract: Contract, pairs: tuple[tuple[str, str], ...]) -> Contract:
    """The same contract, with these pairs of recurrent state."""
    return replace(contract, recurrent=pairs)


def _shape(name: str) -> tuple[int, ...]:
    """The shape at the end of a name; empty where there is none."""
    found = _SHAPED.search(name)
    return tuple(int(side) for side in found[1].split(",")) if found else ()


class Expected(Protocol):
    """What a contract is compared with; `nodes.kernel.interface.Interface` satisfies it."""

    @property
    def observation_names(self) -> Sequence[str]: ...
    @property
    def observation_units(self) -> Sequence[str]: ...
    @property
    def action_names(self) -> Sequence[str]: ...
    @property
    def action_units(self) -> Sequence[str]: ...
    @property
    def action_low(self) -> Sequence[float]: ...
    @property
    def action_high(self) -> Sequence[float]: ...


@dataclass(frozen=True, kw_only=True)
class Contract:
    """A model's own account of itself (the table in ARCHITECTURE.md).

    Attributes:
        kind: a key of `NAMES`.
        version: free text, such as `maze-seed0-trained`.
        action_low: smallest action, in `action_units`, (A,).
        action_high: largest action, (A,).
        rate_hz: step rate it was trained for, or None.
        recurrent: pairs of input and output that carry state from step to step.
        run: the command, commit, seed, env ... that made it.
        graph_sha256: of the serialised graph before metadata was attached.
        golden: `{"inputs": {name: rows}, "outputs": {name: rows}}`, a few rows.
        tensors: this project's tensor name -> the file's, for files from other tools.
    """

    kind: str
    observation_names: tuple[str, ...]
    observation_units: tuple[str, ...]
    action_names: tuple[str, ...]
    action_units: tuple[str, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    version: str = "unversioned"
    rate_hz: float | None = None
    recurrent: tuple[tuple[str, str], ...] = ()
    run: Mapping[str, Any] = field(default_factory=dict)
    graph_sha256: str = ""
    golden: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        """Refuse a contract that contradicts itself."""
        if self.schema != SCHEMA:
            raise ModelError(
                f"contract schema {self.schema!r}, this version reads {SCHEMA}; export again"
            )
        if self.kind not in NAMES:
            raise ModelError(f"model kind {self.kind!r} is unknown; known: {', '.join(NAMES)}")
        for names, units in (
            ("observation_names", "observation_units"),
            ("action_names", "action_units"),
            ("action_names", "action_low"),
            ("action_names", "action_high"),
        ):
            wanted, got = len(getattr(self, names)), len(getattr(self, units))
            if wanted != got or not wanted:
                raise ModelError(
                    f"contract lists {wanted} {names} and {got} {units}; they must agree"
                )
        for name, low, high in zip(
            self.action_names, self.action_low, self.action_high, strict=True
        ):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ModelError(
                    f"contract limits action {name!r} to {low} .. {high}; "
                    "both must be finite, the first the smaller"
                )
        if self.rate_hz is not None and not (math.isfinite(self.rate_hz) and self.rate_hz > 0):
            raise ModelError(f"contract rate_hz {self.rate_hz} must be above 0, or null")

    @property
    def observation_size(self) -> int:
        return observation_size(self.observation_names)

    @property
    def action_size(self) -> int:
        return len(self.action_names)

    def to_json(self) -> str:
        """The metadata entry; the same contract gives the same text."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False)


def from_json(text: str, supplement: Mapping[str, Any] | None = None) -> Contract:
    """Read a metadata entry; `supplement` fills in what it lacks, and may not contradict it."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ModelError(f"the model's metadata is not JSON ({error}); export it again") from None
    if not isinstance(data, dict):
        raise ModelError(f"the model's metadata is a {type(data).__name__}, not an object")
    for key, value in (supplement or {}).items():
        if key in data and _plain(data[key]) != _plain(value):
            raise ModelError(
                f"the file says {key} = {data[key]!r}, the launch file says {value!r}; "
                "remove it from the launch file or correct the model"
            )
        data[key] = value
    return from_dict(data)


def from_dict(data: Mapping[str, Any]) -> Contract:
    """A contract from plain lists and numbers; unknown keys are ignored (newer writers)."""
    missing = [key for key in _REQUIRED if key not in data]
    if missing:
        raise ModelError(
            f"the model says nothing about {', '.join(missing)}; "
            "give them under `contract:` in the launch file, or export with safetypilot"
        )
    known = {f.name for f in fields(Contract)}
    values = {key: value for key, value in data.items() if key in known}
    try:
        for key in _TUPLES:
            values[key] = tuple(values[key])
        values["action_low"] = tuple(float(value) for value in values["action_low"])
        values["action_high"] = tuple(float(value) for value in values["action_high"])
        values["recurrent"] = tuple((str(a), str(b)) for a, b in values.get("recurrent", ()))
        return Contract(**values)
    except (TypeError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"the model's contract is malformed: {error}") from None


def check(
    contract: Contract, kind: str, expected: Expected | None = None, rate_hz: float | None = None
) -> None:
    """Compare a contract with the role it is to play.

    Args:
        contract: what the file says.
        kind: what the node needs.
        expected: the plant's names, units and limits; None checks the kind alone.
        rate_hz: the step rate it will run at; None, or a contract without one, is not compared.

    Raises:
        ModelError: the first disagreement, with the mend.
    """
    if contract.kind != kind:
        raise ModelError(f"this is a {contract.kind} model, a {kind} was wanted; give another file")
    if expected is not None:
        for name in ("observation_names", "observation_units", "action_names", "action_units"):
            _same_names(name, getattr(contract, name), tuple(getattr(expected, name)))
        for name in ("action_low", "action_high"):
            _same_limits(name, contract, tuple(getattr(expected, name)))
    if rate_hz is not None and contract.rate_hz is not None:
        check_rate(contract.rate_hz, rate_hz)


def check_rate(trained_hz: float, rate_hz: float) -> None:
    """Compare the step rate that a model was trained for with the one it is to run at.

    Raises:
        ModelError: they differ.
    """
    if abs(trained_hz - rate_hz) > RATE_TOLERANCE * rate_hz:
        raise ModelError(
            f"trained at {trained_hz:g} Hz, to be run at {rate_hz:g} Hz; "
            "change the rate, or train again"
        )


def _same_names(what: str, got: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    if got == wanted:
        return
    side, quantity = what.split("_")
    sizes = [observation_size(names) for names in (got, wanted)]
    if quantity == "names" and sizes[0] != sizes[1]:
        problem = f"{side} size {sizes[0]}, the plant has {sizes[1]}"
    elif sorted(got) == sorted(wanted):
        problem = f"{side} {quantity} in another order"
    else:
        problem = f"{side} {quantity} differ"
    raise ModelError(
        f"{problem}: model {list(got)}, plant {list(wanted)}; use a model of this plant"
    )


def _same_limits(what: str, contract: Contract, wanted: tuple[float, ...]) -> None:
    got = getattr(contract, what)
    width = [
        high - low for low, high in zip(contract.action_low, contract.action_high, strict=True)
    ]
    for name, a, b, w in zip(contract.action_names, got, wanted, width, strict=True):
        if not abs(a - b) <= LIMIT_TOLERANCE * w:
            raise ModelError(
                f"{what} of {name!r} is {a:g} in the model and {b:g} on the plant; "
                "use a model trained for these limits"
            )


def _plain(value: Any) -> Any:
    """Tuples as lists and ints as floats, so that YAML and JSON compare."""
    return json.loads(json.dumps(value), parse_int=float)
