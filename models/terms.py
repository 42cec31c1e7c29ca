"""Which of the plant's values a network of another maker takes, in which order and scaling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from safetypilot.models import contract as contracts
from safetypilot.models.contract import Expected
from safetypilot.models.errors import ModelError
from safetypilot.models.session import Array

_PREVIOUS = "previous_action"


class Inputs(NamedTuple):
    """The network's observation; o is its size.

    Attributes:
        names: of the plant's observation, or the network's own where it must not be mapped.
        units: likewise.
        pick: (o,), see models/adapted.py, Around; and so are the others.
    """

    names: list[str]
    units: list[str]
    pick: NDArray[np.intp]
    shift: Array | None
    gain: Array | None
    feedback: NDArray[np.intp] | None


class _Block(NamedTuple):
    names: list[str]
    minus: list[float]
    times: list[float]


def network_inputs(entries: Mapping[str, Any], expected: Expected | None) -> Inputs:
    """What to feed a network, by its contract and the plant.

    Raises:
        ModelError: a name is not the plant's, the order differs and nobody allowed it, or a number
            does not fit.
    """
    if "observation_terms" in entries:
        return _of_terms(entries, expected)
    names, units = list(entries["observation_names"]), list(entries["observation_units"])
    size = contracts.observation_size(names)
    pick = np.arange(size)
    if expected is not None and names != list(expected.observation_names):
        if entries.get("remap") == "names":
            pick = _places(names, expected)
            _same_units(names, units, expected)
            names, units = list(expected.observation_names), list(expected.observation_units)
        # otherwise the contract keeps its own names, and the check against the plant says no
    shift, gain = _normalisation(entries, size)
    return Inputs(names, units, pick, shift, gain, None)


def _of_terms(entries: Mapping[str, Any], expected: Expected | None) -> Inputs:
    """Isaac Lab's way: blocks one after the other, each of some of the plant's values."""
    if expected is None:
        raise ModelError("observation_terms are looked up at a plant; there is none")
    joints = list(entries["action_names"])
    pick: list[int] = []
    minus: list[float] = []
    times: list[float] = []
    feedback: list[int] = []
    for term in entries["observation_terms"]:
        said = entries.get("terms", {}).get(term)
        if said == _PREVIOUS:
            feedback += range(len(pick), len(pick) + len(joints))
            block = _Block([], [0.0] * len(joints), [1.0] * len(joints))
            pick += [-1] * len(joints)
        else:
            block = _block(term, said, entries, expected)
            pick += _places(block.names, expected).tolist()
        minus += block.minus
        times += block.times
    if len(feedback) > len(joints):
        raise ModelError("two observation terms are previous_action; there is one")
    mean, gain = _normalisation(entries, len(pick))
    scale = np.array(times, np.float32) if mean is None or gain is None else times * gain
    if mean is not None and not np.all(np.array(times) == 1.0):
        raise ModelError("give either observation_mean and observation_std or times, not both")
    shift = -np.array(minus, np.float32) + (0.0 if mean is None else mean)
    return Inputs(
        list(expected.observation_names),
        list(expected.observation_units),
        np.array(pick, np.intp),
        shift if shift.any() else None,
        None if np.all(scale == 1.0) else np.asarray(scale, np.float32),
        np.array(feedback, np.intp) if feedback else None,
    )


def _block(term: str, said: Any, entries: Mapping[str, Any], expected: Expected) -> _Block:
    """The plant's names of a term, and what is done to their values."""
    about = said if isinstance(said, Mapping) else {"names": said}
    unknown = set(about) - {"names", "minus", "times"}
    if unknown:
        raise ModelError(f"terms: {term} says {', '.join(sorted(unknown))}; names, minus, times")
    names = about.get("names")
    if names is None:
        names = [n for n in expected.observation_names if n.partition("[")[0] == term]
        if not names:
            raise ModelError(
                f"observation term {term!r} is not an observation of the plant, which has "
                f"{', '.join(expected.observation_names)}; say which it is made of: "
                f"terms: {{{term}: [...]}}"
            )
    elif isinstance(names, str):
        joints = entries["action_names"] if "{joint}" in names else [""]
        names = [names.replace("{joint}", joint) for joint in joints]
    size = contracts.observation_size(_spelled(names, expected))
    minus = about.get("minus", 0.0)
    if isinstance(minus, str):
        constants = entries.get("constants", {})
        if minus not in constants:
            raise ModelError(f"terms: {term}: minus {minus!r}; the file has no such entry")
        minus = constants[minus]
    times = about.get("times", 1.0)
    return _Block(names, _numbers(term, "minus", minus, size), _numbers(term, "times", times, size))


def _numbers(term: str, key: str, value: Any, size: int) -> list[float]:
    values = list(value) if isinstance(value, list | tuple) else [value] * size
    if len(values) != size or not all(isinstance(v, int | float) for v in values):
        raise ModelError(f"terms: {term}: {key} is {value!r}; a number, or {size}, was wanted")
    return [float(v) for v in values]


def _spelled(names: Sequence[str], expected: Expected) -> list[str]:
    """Names as the plant spells them: `gravity` may be its `gravity[3]`."""
    known = {name: name for name in expected.observation_names}
    known |= {n.partition("[")[0]: n for n in expected.observation_names if n.endswith("]")}
    missing = [name for name in names if name not in known]
    if missing:
        raise ModelError(
            f"the plant has no observation {', '.join(map(repr, missing))}, only "
            f"{', '.join(expected.observation_names)}; give the plant's name with rename or terms"
        )
    return [known[name] for name in names]


def _places(names: Sequence[str], expected: Expected) -> NDArray[np.intp]:
    """Where names lie in the plant's observation, value by value."""
    begins: dict[str, tuple[int, int]] = {}
    at = 0
    for name in expected.observation_names:
        size = contracts.observation_size([name])
        begins[name] = (at, size)
        at += size
    places: list[int] = []
    for name in _spelled(names, expected):
        begin, size = begins[name]
        places += range(begin, begin + size)
    return np.array(places, np.intp)


def _same_units(names: Sequence[str], units: Sequence[str], expected: Expected) -> None:
    theirs = dict(zip(expected.observation_names, expected.observation_units, strict=True))
    for name, unit in zip(_spelled(names, expected), units, strict=True):
        if theirs[name] != unit:
            raise ModelError(
                f"observation {name!r} is in {unit!r} for the model and in {theirs[name]!r} on the "
                "plant; units are not converted, scale it with observation_std"
            )


def _normalisation(
    entries: Mapping[str, Any], size: int
) -> tuple[Array | None, Array | None]:  # fmt: skip
    """Shift and gain of (value - mean) / std."""
    mean = vector("observation_mean", entries.get("observation_mean"), size)
    std = vector("observation_std", entries.get("observation_std"), size)
    if std is not None and not (std > 0).all():
        raise ModelError(f"observation_std is {entries['observation_std']!r}; all above 0")
    return (None if mean is None else -mean, None if std is None else 1.0 / std)


def vector(key: str, value: Any, size: int) -> Any:
    """A number, or one for each, as an array; None stays None.

    Raises:
        ModelError: it is neither, or not finite.
    """
    if value is None:
        return None
    values: Sequence[Any] = value if isinstance(value, list | tuple) else [value]
    good = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not good or len(values) not in (1, size) or not np.isfinite(values).all():
        raise ModelError(f"{key} is {value!r}; a finite number, or {size} of them, was wanted")
    return np.broadcast_to(np.array(values, np.float32), size).copy()
