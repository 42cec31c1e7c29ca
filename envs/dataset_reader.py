"""Reads data sets in Minari's HDF5 layout, ours and others that say which steps violated.

Letters: N rows, T steps of an episode, O observation size, A action size.
"""

from __future__ import annotations

import importlib
import json
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from safetypilot.envs.dataset_check import FIELDS, OPTIONAL, Array, check_rows
from safetypilot.envs.dataset_errors import (
    BadValueError,
    DamagedDatasetError,
    DatasetVersionError,
    EmptyDatasetError,
    FieldError,
    MissingLibraryError,
    NotADatasetError,
    ShapeError,
)
from safetypilot.envs.dataset_layout import COLUMNS, DATA, FILE, METADATA, SUCCESS, VERSION

_MINARI = ("0.4.", "0.5.")  # formats of Minari with this layout
_FLAGS = ("terminated", "truncated", "success")


class Metadata(NamedTuple):
    """What a data set says about itself."""

    file: Path  # the HDF5 file
    episodes: int
    rows: int
    env: str  # Gymnasium id; empty if it does not say
    made: list[dict[str, Any]]  # how, one entry per collection
    raw: dict[str, Any]  # all of it


def library() -> Any:
    """The h5py module, which only those need who store data."""
    try:
        return importlib.import_module("h5py")
    except ModuleNotFoundError:
        raise MissingLibraryError(
            "data sets need h5py: pip install -e '.[train]' in the checkout, or pip install h5py"
        ) from None


def read_metadata(path: Path | str) -> Metadata:
    """What the data set in this directory says about itself.

    Raises:
        NotADatasetError: there is none.
        DatasetVersionError: a format that is not read here.
        DamagedDatasetError: its metadata are no JSON, or lack what is needed.
    """
    file = _folder(Path(path)) / METADATA
    try:
        raw = json.loads(file.read_text())
        episodes, rows = int(raw["total_episodes"]), int(raw["total_steps"])
        ours = raw.get("safetypilot", {"version": VERSION})
        version, env, made = ours["version"], ours.get("env", ""), ours.get("made", [])
        space = json.loads(raw.get("observation_space", "{}"))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedDatasetError(
            f"{file} is not the metadata of a data set ({type(error).__name__}: {error}); collect "
            "the data again"
        ) from None
    except OSError as error:
        raise NotADatasetError(f"{file} cannot be read: {error.strerror}") from None
    if version != VERSION:
        raise DatasetVersionError(
            f"{file} has the format version {version!r}, this program reads {VERSION}; collect the "
            "data again, or read them with the program that wrote them"
        )
    _check_format(file, raw, space)
    return Metadata(file.with_name(FILE), episodes, rows, str(env), list(made), raw)


def read(path: Path | str, *, success: bool = False) -> dict[str, Array]:
    """The arrays of a data set; see `dataset.load`."""
    metadata = read_metadata(path)
    h5py = library()
    if not metadata.file.is_file():
        raise DamagedDatasetError(f"{metadata.file} is missing; collect the data again")
    try:
        with h5py.File(metadata.file, "r") as file:
            reading = _Reading(h5py, file, metadata, success)
            data = reading.arrays()
    except (OSError, RuntimeError, KeyError) as error:
        raise DamagedDatasetError(
            f"{metadata.file} is damaged or cut off ({str(error).splitlines()[0][:200]}); collect "
            "the data again"
        ) from None
    except MemoryError:
        raise DamagedDatasetError(
            f"{metadata.file} does not fit into memory: {metadata.rows} rows, say its metadata; "
            "collect fewer"
        ) from None
    check_rows(data, None, None, str(metadata.file), reading.place)
    return data


def _folder(path: Path) -> Path:
    """Where the metadata lie: the data set's directory, its `data`, or the file may be named."""
    for folder in (path / DATA, path, path.parent if path.name == FILE else path):
        if (folder / METADATA).is_file():
            return folder
    problem = "is not a data set" if path.exists() else "does not exist"
    raise NotADatasetError(
        f"{path} {problem}; a data set is a directory with {DATA}/{FILE} and {DATA}/{METADATA}, "
        "as `safetypilot collect` writes it"
    )


def _check_format(file: Path, raw: Mapping[str, Any], space: Mapping[str, Any]) -> None:
    kind, minari = raw.get("data_format", "hdf5"), str(raw.get("minari_version"))
    if kind != "hdf5":
        raise DatasetVersionError(f"{file}: the data are kept as {kind!r}, only hdf5 is read")
    if not minari.startswith(_MINARI):
        raise DatasetVersionError(
            f"{file} is in the format of Minari {minari}; 0.4 and 0.5 are read"
        )
    if space.get("type", "Box") != "Box":
        raise DatasetVersionError(
            f"{file}: observations are a {space['type']}, a Box is needed; flatten them with "
            "gymnasium.wrappers.FlattenObservation before collecting"
        )
    shape = space.get("shape", [])
    is_image = space.get("dtype") == "uint8" and len(shape) in (2, 3) and min(shape[:2]) >= 32
    if is_image and raw.get("jpeg_encoding", True):
        raise DatasetVersionError(
            f"{file}: the images are JPEG-coded, which loses detail; collect them with "
            "`safetypilot collect`, or with Minari's jpeg_encoding=False"
        )


class _Reading:
    """Fills arrays of N rows, one episode after the other."""

    def __init__(self, h5py: Any, file: Any, metadata: Metadata, success: bool) -> None:
        self._h5py, self._file, self._metadata = h5py, file, metadata
        self._name = metadata.file
        present = sum(1 for name in file if name.startswith("episode_"))
        if present != metadata.episodes:
            raise DamagedDatasetError(
                f"{self._name} holds {present} episodes, its metadata say {metadata.episodes}; it "
                "is cut off or was changed: collect the data again"
            )
        if not metadata.episodes:
            raise EmptyDatasetError(f"{self._name} has no episodes; collect some")
        self._starts: list[int] = []  # first row of each episode
        self._columns = dict(COLUMNS)
        if success and self._get(0, SUCCESS) is not None:
            self._columns["success"] = SUCCESS

    def arrays(self) -> dict[str, Array]:
        data: dict[str, Array] = {}
        row = 0
        for number in range(self._metadata.episodes):
            columns = self._episode(number, row)
            if not data:
                data = _allocate(self._metadata.rows, columns)
            self._starts.append(row)
            stop = row + len(columns["reward"])
            for name, column in columns.items():
                self._same(number, name, column, data[name])
                data[name][row:stop] = column
            # An episode that merely stops was cut short: the row after it is another's.
            data["truncated"][stop - 1] |= not data["terminated"][stop - 1]
            row = stop
        if row != self._metadata.rows:
            raise DamagedDatasetError(
                f"{self._name} holds {row} rows, its metadata say {self._metadata.rows}; it is cut "
                "off or was changed: collect the data again"
            )
        return data

    def place(self, row: int) -> str:
        """Row of the data -> episode and row in it, both from 0."""
        episode = bisect_right(self._starts, row) - 1
        return f"episode {episode}, row {row - self._starts[episode]}"

    def _episode(self, number: int, row: int) -> dict[str, Array]:
        """The columns of one episode, (T, ...), observations flat."""
        found = {name: self._get(number, theirs) for name, theirs in self._columns.items()}
        for name, column in found.items():
            if column is None:
                raise FieldError(self._lacks(number, self._columns[name]))
        steps = found["reward"].shape[0] if found["reward"].ndim == 1 else 0
        if not 0 < steps <= self._metadata.rows - row:
            raise DamagedDatasetError(
                f"{self._name}: rewards of episode {number} have the shape "
                f"{found['reward'].shape}; at least 1 step and at most the "
                f"{self._metadata.rows - row} that the metadata leave are possible: collect again"
            )
        for name, column in found.items():
            self._check_rows(number, name, column, steps)
        columns = {name: self._numbers(number, name, column[()]) for name, column in found.items()}
        observations = columns["observation"].reshape(steps + 1, -1)
        columns["observation"], columns["next_observation"] = observations[:-1], observations[1:]
        columns["action"] = columns["action"].reshape(steps, -1)
        # Minari keeps one more info than steps, the reset's; buffers written by hand may not.
        return {name: column[-steps:] for name, column in columns.items()}

    def _get(self, number: int, name: str) -> Any:
        """A column in the file, None if it is not there. Links to other files are not followed."""
        group = self._file
        for part in (f"episode_{number}", *name.split("/")):
            link = group.get(part, getlink=True) if isinstance(group, self._h5py.Group) else None
            if link is None:
                return None
            if not isinstance(link, self._h5py.HardLink):
                raise DamagedDatasetError(
                    f"{self._name}: {name} of episode {number} is a link to elsewhere, which is "
                    "not followed; copy the data into the file"
                )
            group = group[part]
        if not isinstance(group, self._h5py.Dataset):
            return None
        if group.external or group.is_virtual:
            raise DamagedDatasetError(
                f"{self._name}: {name} of episode {number} lies in another file, which is not "
                "read; copy the data into this one"
            )
        if group.dtype.kind not in "biuf":
            raise BadValueError(
                f"{self._name}: {name} of episode {number} holds {group.dtype}, numbers are needed"
            )
        return group

    def _check_rows(self, number: int, name: str, column: Any, steps: int) -> None:
        rows = column.shape[0] if column.ndim else 0
        wanted = {"observation": (steps + 1,), "cost": (steps, steps + 1)}
        wanted["success"] = wanted["cost"]
        if rows not in wanted.get(name, (steps,)):
            counts = " or ".join(map(str, wanted.get(name, (steps,))))
            raise ShapeError(
                f"{self._name}: {self._columns[name]} of episode {number} have the shape "
                f"{column.shape}; {counts} rows are wanted for {steps} steps"
            )
        if column.ndim != 1 and name not in ("observation", "action"):
            raise ShapeError(
                f"{self._name}: {self._columns[name]} of episode {number} have the shape "
                f"{column.shape}; one number per step is wanted"
            )

    def _numbers(self, number: int, name: str, column: Array) -> Array:
        """bool for flags, uint8 observations as they are, everything else as float32."""
        if name in _FLAGS:
            bad = np.flatnonzero((column != 0) & (column != 1))
            if len(bad):
                raise BadValueError(
                    f"{self._name}: {name}, episode {number}, row {bad[0]}: {column[bad[0]]}; 0 or "
                    "1 is wanted; collect the data again or leave that episode out"
                )
            return column.astype(bool)
        is_image = name == "observation" and column.dtype == np.uint8
        return column if is_image else column.astype(np.float32)

    def _same(self, number: int, name: str, column: Array, whole: Array) -> None:
        if column.shape[1:] != whole.shape[1:] or column.dtype != whole.dtype:
            raise ShapeError(
                f"{self._name}: {name} of episode {number} has {column.shape[1:]} values of type "
                f"{column.dtype} per row, those before it {whole.shape[1:]} of type {whole.dtype}; "
                "keep them in data sets of their own"
            )

    def _lacks(self, number: int, name: str) -> str:
        mend = "collect the data again"
        if name == "infos/cost":
            mend = (
                "without it nobody knows which steps violated: add one number per step, 0 or 1, or "
                "collect with `safetypilot collect`"
            )
        group = self._file.get(f"episode_{number}")
        if group is None:
            return f"{self._name} has no episode {number}; it is cut off: {mend}"
        return f"{self._name}: episode {number} has no {name}, only {', '.join(group)}; {mend}"


def _allocate(rows: int, columns: Mapping[str, Array]) -> dict[str, Array]:
    """Empty arrays of N rows, in the order in which they are documented."""
    names = (name for name in (*FIELDS, *OPTIONAL) if name in columns)
    return {name: np.empty((rows, *columns[name].shape[1:]), columns[name].dtype) for name in names}
