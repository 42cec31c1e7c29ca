"""Writes data sets, whole or not at all: into a scratch directory beside, then renamed.

The HDF5 file grows in memory and goes to disk as bytes, because the library crashes where the disk
is full (seen with h5py 3.16: tracebacks from destructors, then a segmentation fault).

Letters: T steps of an episode, O observation size, A action size.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from safetypilot.envs.dataset_check import Array, check_rows
from safetypilot.envs.dataset_errors import (
    DamagedDatasetError,
    DatasetError,
    DatasetExistsError,
    DatasetWriteError,
    EmptyDatasetError,
    NotADatasetError,
    ShapeError,
)
from safetypilot.envs.dataset_layout import DATA, FILE, METADATA, About, Episode, metadata
from safetypilot.envs.dataset_reader import Metadata, library, read_metadata

_FRAMES = 16  # images compressed together
_GROWTH = 2**22  # bytes by which the file grows in memory


class Writer:
    """Takes episodes; the data set appears when the `with` block ends without an exception."""

    def __init__(
        self, path: Path | str, about: About, *, force: bool = False, append: bool = False
    ) -> None:
        """Check that nothing stands in the way; nothing is written yet.

        Args:
            path: the data set's directory.
            about: of the episodes to come.
            force: replace a data set that is there.
            append: keep the episodes of a data set that is there, and add to them.

        Raises:
            DatasetError: something is there already, or the two do not fit together.
        """
        self._h5py = library()
        self._path = Path(os.path.realpath(path))
        self._about = about
        self._old = _what_is_there(self._path, force, append)
        self._scratch = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        self._sizes: tuple[int, int, str] | None = None
        self.episodes = self.rows = 0  # added so far
        if self._old and about.env and self._old.env not in ("", about.env):
            raise DatasetExistsError(
                f"{path} holds episodes of {self._old.env}, these would be of {about.env}; choose "
                "another name"
            )

    def __enter__(self) -> Writer:
        try:
            (self._scratch / DATA).mkdir(parents=True)
        except OSError as error:
            raise self._refusal(error) from None
        try:
            self._open()
        except (OSError, RuntimeError, KeyError) as error:
            self._discard()
            raise DamagedDatasetError(
                f"{self._path} is damaged ({str(error).splitlines()[0]}); nothing can be added to "
                "it, collect it again with --force"
            ) from None
        return self

    def _open(self) -> None:
        self._file = self._h5py.File(
            self._old.file if self._old else self._scratch / DATA / FILE,
            "r+" if self._old else "w",
            track_order=True,
            driver="core",  # in memory
            backing_store=False,
            block_size=_GROWTH,
        )
        if self._old:
            first = self._file["episode_0"]
            size = int(np.prod(first["observations"].shape[1:]))
            self._sizes = size, first["actions"].shape[1], str(first["observations"].dtype)

    def add(self, episode: Episode) -> None:
        """Write one episode; unless it terminated, its last row is marked as truncated.

        Raises:
            DatasetError: it has bad values, or other sizes than those before it.
        """
        number = self.episodes + (self._old.episodes if self._old else 0)
        episode = _tidy(episode)
        self._check(episode, number)
        self._write(self._file.create_group(f"episode_{number}"), episode, number)
        self.episodes += 1
        self.rows += len(episode.rewards)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._commit()
        except OSError as failure:
            raise self._refusal(failure) from None
        finally:
            self._discard()

    def _check(self, episode: Episode, number: int) -> None:
        """All that `check` asks, and the same sizes as the episodes before."""
        check_rows(
            episode.as_rows(),
            None,
            None,
            self._path.name,
            lambda row: f"episode {number}, row {row}",
        )
        observations = episode.observations
        got = (observations.shape[1], episode.actions.shape[1], str(observations.dtype))
        self._sizes = self._sizes or got
        if got != self._sizes:
            words = "observations of {} x {} and actions of {} values"
            (o, a, kind), (got_o, got_a, got_kind) = self._sizes, got
            raise ShapeError(
                f"{self._path.name}: episode {number} has {words.format(got_o, got_kind, got_a)}, "
                f"those before it {words.format(o, kind, a)}; keep them in data sets of their own"
            )

    def _write(self, group: Any, episode: Episode, number: int) -> None:
        steps = len(episode.rewards)
        group.attrs["id"] = number
        group.attrs["total_steps"] = steps
        if episode.seed is not None:
            group.attrs["seed"] = episode.seed
        shape = self._about.observation_shape or episode.observations.shape[1:]
        options: dict[str, Any] = {}
        if episode.observations.dtype == np.uint8:
            chunk = (min(steps + 1, _FRAMES), *shape)
            options = {"chunks": chunk, "compression": "gzip", "compression_opts": 4}
        observations = episode.observations.reshape(steps + 1, *shape)
        group.create_dataset("observations", data=observations, **options)
        group.create_dataset("actions", data=episode.actions)
        group.create_dataset("rewards", data=episode.rewards)
        group.create_dataset("terminations", data=episode.terminated)
        group.create_dataset("truncations", data=episode.truncated)
        # Minari keeps one more info than steps: the first is the reset's.
        group.create_dataset("infos/cost", data=np.concatenate([[np.float32(0)], episode.costs]))
        if episode.successes is not None:
            successes = np.concatenate([[False], episode.successes])
            group.create_dataset("infos/success", data=successes)

    def _commit(self) -> None:
        if not self.episodes or not self._sizes:
            raise EmptyDatasetError(f"{self._path}: no episode was given; nothing was written")
        self._file.flush()
        image = self._file.id.get_file_image()
        made = [{**self._about.made, "episodes": self.episodes, "rows": self.rows}]
        if self._old:
            before = {"episodes": self._old.episodes, "rows": self._old.rows}
            made = [*(self._old.made or [before]), *made]
        about = metadata(self._path.name, self._about, self._sizes, made)
        about["dataset_size"] = round(len(image) / 1e6, 1)
        text = json.dumps(about, indent=1) + "\n"
        for name, content in ((FILE, image), (METADATA, text.encode())):
            with open(self._scratch / DATA / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _swap(self._scratch, self._path)

    def _refusal(self, error: Exception) -> DatasetError:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        return DatasetWriteError(
            f"{self._path} cannot be written: {reason}; nothing was replaced, make room or choose "
            "another place"
        )

    def _discard(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
        shutil.rmtree(self._scratch, ignore_errors=True)


def _tidy(episode: Episode) -> Episode:
    """The types that are stored, and an end."""

    def flags(column: Array) -> Array:
        array = np.asarray(column)
        is_flag = bool(np.isin(array, (0, 1)).all())  # what is none is left for the check
        return array.astype(bool) if is_flag else array

    observations = np.asarray(episode.observations)
    if observations.dtype != np.uint8:
        observations = observations.astype(np.float32)
    terminated, truncated = flags(episode.terminated), flags(episode.truncated).copy()
    if len(truncated) and len(terminated):
        truncated[-1] |= not terminated[-1]
    return episode._replace(
        observations=observations,
        actions=np.asarray(episode.actions, np.float32),
        costs=np.asarray(episode.costs, np.float32),
        rewards=np.asarray(episode.rewards, np.float32),
        terminated=terminated,
        truncated=truncated,
        successes=None if episode.successes is None else flags(episode.successes),
    )


def _what_is_there(path: Path, force: bool, append: bool) -> Metadata | None:
    """The data set to be added to, if there is one; refuses what must not be overwritten."""
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return None
    try:
        found = read_metadata(path)
    except NotADatasetError:
        raise DatasetExistsError(
            f"{path} is there already and is no data set, so it is not replaced; choose another "
            "name"
        ) from None
    except DatasetError:
        if append or not force:
            raise
        return None
    if not (force or append):
        raise DatasetExistsError(
            f"{path} holds a data set of {found.rows} rows already; choose another name, replace "
            "it with --force, or add to it with --append"
        )
    return found if append else None


def _swap(scratch: Path, path: Path) -> None:
    """Put the new data set in place; one that was there goes only once the new one is."""
    if not path.exists():
        os.rename(scratch, path)
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    os.rename(path, aside)
    try:
        os.rename(scratch, path)
    except OSError:
        os.rename(aside, path)
        raise
    shutil.rmtree(aside, ignore_errors=True)
