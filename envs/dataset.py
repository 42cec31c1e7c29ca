"""Offline data on disk: transitions with their costs, in the layout of Minari.

A data set is a directory; `minari.MinariDataset("NAME/data")` opens it, and so does
`minari.load_dataset("NAME")` where `MINARI_DATASETS_PATH` is the directory above it (Minari wants
names that end in a version: `maze-random-v0`).

    NAME/data/metadata.json     Minari's: total_episodes, total_steps, spaces, env_spec ...; ours
                                under "safetypilot": version (1), env, made (one entry per
                                collection: policy, noise, seed, cost, episodes, rows)
    NAME/data/main_data.hdf5    a group `episode_0`, `episode_1`, ... of T steps each, with
        observations            (T + 1, O) float32, or (T + 1, H, W, C) uint8, gzip
        actions                 (T, A) float32, as executed
        rewards                 (T,) float32
        terminations            (T,) bool
        truncations             (T,) bool; the last row of an episode is terminated or truncated
        infos/cost              (T + 1,) float32, 0 or 1; the first belongs to the reset
        infos/success           (T + 1,) bool, in environments with a goal
        attributes              id, total_steps, seed (of the reset, where known)

In memory it is a dict of arrays of N rows, images flattened (row-major H, W, C):

    observation, next_observation   (N, O) uint8 for images, else float32
    action                          (N, A) float32
    cost, reward                    (N,) float32
    terminated, truncated           (N,) bool

The row after one that is terminated or truncated belongs to another episode. Nothing here needs
torch; storing needs h5py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from safetypilot.envs.dataset_check import FIELDS, OPTIONAL, Array, check, episode_ends
from safetypilot.envs.dataset_errors import (
    BadValueError,
    DamagedDatasetError,
    DatasetError,
    DatasetExistsError,
    DatasetVersionError,
    DatasetWriteError,
    EmptyDatasetError,
    FieldError,
    MissingLibraryError,
    NotADatasetError,
    ShapeError,
)
from safetypilot.envs.dataset_layout import About, Episode
from safetypilot.envs.dataset_reader import read, read_metadata
from safetypilot.envs.dataset_writer import Writer

__all__ = [
    "About",
    "BadValueError",
    "DamagedDatasetError",
    "DatasetError",
    "DatasetExistsError",
    "DatasetVersionError",
    "DatasetWriteError",
    "EmptyDatasetError",
    "Episode",
    "FieldError",
    "MissingLibraryError",
    "NotADatasetError",
    "ShapeError",
    "Writer",
    "check",
    "describe",
    "load",
    "save",
    "summary",
    "write",
]


def save(
    path: Path | str,
    data: Mapping[str, Array],
    about: About | None = None,
    *,
    force: bool = False,
    append: bool = False,
) -> None:
    """Write transitions as a data set, whole or not at all.

    Args:
        path: The data set's directory.
        data: The arrays above, `success` (N,) too if known. Rows that do not go on from the row
            before them begin an episode; the row before them is marked as truncated if need be.
        about: Of the environment and the policy.
        force: Replace a data set that is there.
        append: Add to a data set that is there.

    Raises:
        DatasetError: The data are wrong, something is in the way, or the disk is full.
    """
    with Writer(path, about or About(), force=force, append=append) as writer:
        write(writer, data)


def write(writer: Writer, data: Mapping[str, Array]) -> None:
    """As `save`, into a data set that is open."""
    unknown = set(data) - {*FIELDS, *OPTIONAL}
    if unknown:
        raise FieldError(
            f"offline data has {', '.join(sorted(unknown))}, which no data set stores; leave it "
            f"out, the fields are {', '.join((*FIELDS, *OPTIONAL))}"
        )
    check(data)
    first = 0
    for last in np.flatnonzero(episode_ends(data)):
        writer.add(_episode(data, slice(first, int(last) + 1)))
        first = int(last) + 1


def load(path: Path | str, *, success: bool = False) -> dict[str, Array]:
    """Read a data set, ours or another in Minari's layout that has `infos/cost`, and check it.

    Args:
        path: The data set's directory (or its `data`, or the HDF5 file).
        success: Also give `success` (N,) bool, if it is stored.

    Raises:
        DatasetError: It is none, is damaged, of an unknown version, or has bad fields, shapes or
            values; says where.
    """
    return read(path, success=success)


def summary(data: Mapping[str, Array]) -> dict[str, Any]:
    """Counts for people; `successes` is None where nobody wrote them down.

    Returns:
        rows, episodes, violations (steps with a cost), successes (episodes), return_mean and
        steps_mean (per episode), observation_size, action_size.
    """
    ends = np.flatnonzero(episode_ends(data))
    starts = np.concatenate([[0], ends[:-1] + 1])
    returns = np.add.reduceat(np.asarray(data["reward"], np.float64), starts)
    successes = None
    if "success" in data:
        successes = int(np.logical_or.reduceat(data["success"], starts).sum())
    return {
        "rows": len(data["cost"]),
        "episodes": len(ends),
        "violations": int((data["cost"] > 0).sum()),
        "successes": successes,
        "return_mean": float(returns.mean()),
        "steps_mean": len(data["cost"]) / len(ends),
        "observation_size": data["observation"].shape[1],
        "action_size": data["action"].shape[1],
    }


def describe(path: Path | str) -> dict[str, Any]:
    """What is in a data set: its `summary`, and `env`, `made`, `bytes`, `minari_version`.

    Reads and checks all of it.

    Raises:
        DatasetError: As `load`.
    """
    metadata = read_metadata(path)
    return {
        "env": metadata.env,
        **summary(load(path, success=True)),
        "made": metadata.made,
        "bytes": metadata.file.stat().st_size,
        "minari_version": str(metadata.raw.get("minari_version")),
    }


def _episode(data: Mapping[str, Array], rows: slice) -> Episode:
    observation, following = data["observation"][rows], data["next_observation"][rows]
    return Episode(
        observations=np.concatenate([observation, following[-1:]]),
        actions=data["action"][rows],
        costs=data["cost"][rows],
        rewards=data["reward"][rows],
        terminated=data["terminated"][rows],
        truncated=data["truncated"][rows],
        successes=data["success"][rows] if "success" in data else None,
    )
