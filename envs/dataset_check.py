"""Checks of offline data in memory: fields, shapes and values, each error with its place.

Letters: N rows, O observation size, A action size.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from safetypilot.envs.dataset_errors import (
    BadValueError,
    EmptyDatasetError,
    FieldError,
    ShapeError,
)

Array: TypeAlias = npt.NDArray[Any]

FIELDS = (
    "observation",
    "action",
    "cost",
    "reward",
    "next_observation",
    "terminated",
    "truncated",
)
OPTIONAL = ("success",)
_MATRICES = ("observation", "action", "next_observation")
_ZERO_OR_ONE = ("cost", "terminated", "truncated", "success")
_BLOCK = 1024  # rows compared at once, so that images need no second copy of all of them


def check(
    data: Mapping[str, Any],
    observation_size: int | None = None,
    action_size: int | None = None,
    *,
    source: str = "offline data",
) -> None:
    """Refuse data that would train a model on nonsense.

    Args:
        data: Arrays by name, the fields of `FIELDS`, N rows each; others are ignored.
        observation_size: O of the environment; None takes the data's own.
        action_size: A of the environment; None takes the data's own.
        source: What to call the data in errors: its file.

    Raises:
        DatasetError: The first thing that is wrong: FieldError, ShapeError, EmptyDatasetError or
            BadValueError, with field, episode, row, value and mend.
    """
    arrays = {name: np.asarray(data[name]) for name in (*FIELDS, *OPTIONAL) if name in data}
    check_rows(arrays, observation_size, action_size, source, lambda row: _place(arrays, row))


def check_rows(
    data: Mapping[str, Array],
    observation_size: int | None,
    action_size: int | None,
    source: str,
    place: Callable[[int], str],
) -> None:
    """As `check`; `place` says of a row which row of which episode it is."""
    missing = [name for name in FIELDS if name not in data]
    if missing:
        raise FieldError(
            f"{source} lacks {', '.join(missing)} (it has {', '.join(map(str, data)) or 'nothing'})"
            f"; data needs {', '.join(FIELDS)}"
        )
    _check_shapes(data, source)
    _check_sizes(data, observation_size, action_size, source)
    for name, array in data.items():
        if array.dtype.kind not in "biuf":
            raise BadValueError(f"{source}: {name} holds {array.dtype}, numbers are needed")
    for name, array in data.items():
        problem = _first_problem(name, array)
        if problem is not None:
            where, wanted, count = problem
            column = f", column {where[1]}" if array.ndim == 2 else ""
            others = f" ({count} such values)" if count > 1 else ""
            raise BadValueError(
                f"{source}: {name}, {place(where[0])}{column}: {array[where]}{others}; {wanted}; "
                "collect the data again or leave that episode out"
            )


def episode_ends(data: Mapping[str, Array]) -> npt.NDArray[np.bool_]:
    """The rows (N,) after which another episode begins.

    These are the terminated, the truncated and the last row, and every row whose next observation
    is not the observation of the row after it.
    """
    ends = np.asarray(data["terminated"], bool) | np.asarray(data["truncated"], bool)
    observation, following = data["observation"], data["next_observation"]
    for start in range(0, len(ends) - 1, _BLOCK):
        stop = min(start + _BLOCK, len(ends) - 1)
        before, after = following[start:stop], observation[start + 1 : stop + 1]
        jumps = before != after
        if before.dtype.kind == after.dtype.kind == "f":  # NaN will be complained of: no jump
            jumps &= ~(np.isnan(before) & np.isnan(after))
        ends[start:stop] |= jumps.any(axis=1)
    ends[-1:] = True
    return np.asarray(ends, np.bool_)


def _check_shapes(arrays: Mapping[str, Array], source: str) -> None:
    rows = len(arrays["cost"]) if arrays["cost"].ndim else 0
    for name, array in arrays.items():
        wanted = 2 if name in _MATRICES else 1
        if array.ndim != wanted:
            form = "(rows, size)" if wanted == 2 else "(rows,)"
            raise ShapeError(f"{source}: {name} has the shape {array.shape}, {form} is wanted")
        if len(array) != rows:
            raise ShapeError(
                f"{source}: {name} has {len(array)} rows and cost {rows}; every field needs one "
                "entry per step"
            )
    if not rows:
        raise EmptyDatasetError(f"{source} has no rows; collect some")


def _check_sizes(
    arrays: Mapping[str, Array], observation_size: int | None, action_size: int | None, source: str
) -> None:
    if observation_size is None:
        observation_size = arrays["observation"].shape[1]
    for name, size in (
        ("observation", observation_size),
        ("next_observation", observation_size),
        ("action", action_size),
    ):
        got = arrays[name].shape[1]
        if size is not None and got != size:
            raise ShapeError(
                f"{source}: {name} has {got} values per row, {size} are wanted; it was made in "
                "another environment, choose one made in this"
            )


def _first_problem(name: str, array: Array) -> tuple[tuple[int, ...], str, int] | None:
    """Where the first bad value is, what it should be, and how many there are."""
    bad, wanted = np.zeros(0, bool), ""
    if array.dtype.kind == "f":
        bad, wanted = ~np.isfinite(array), "every value must be finite"
    if not bad.any() and name in _ZERO_OR_ONE and array.dtype.kind != "b":
        bad, wanted = (array != 0) & (array != 1), "0 or 1 is wanted"
    if not bad.any():
        return None
    return tuple(map(int, np.argwhere(bad)[0])), wanted, int(bad.sum())


def _place(data: Mapping[str, Array], row: int) -> str:
    """Row of the data -> episode and row in it, both from 0."""
    ends = np.flatnonzero(episode_ends(data)[:row])
    first = int(ends[-1]) + 1 if len(ends) else 0
    return f"episode {len(ends)}, row {row - first}"
