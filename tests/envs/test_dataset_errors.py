"""Whatever is wrong with offline data is said with its place, the value and the mend."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_helpers import edit_metadata, main_file, replace, saved, transitions

from safetypilot.envs import dataset
from safetypilot.envs.dataset import (
    BadValueError,
    DamagedDatasetError,
    DatasetExistsError,
    DatasetVersionError,
    EmptyDatasetError,
    FieldError,
    NotADatasetError,
    ShapeError,
)

h5py = pytest.importorskip("h5py")


def changed(**changes: Any) -> dict[str, Any]:
    """Good rows but for some fields; None leaves one out."""
    data = {**transitions(), **changes}
    return {name: array for name, array in data.items() if array is not None}


def spoiled(name: str, place: Any, value: float) -> dict[str, Any]:
    array = transitions()[name].astype(np.float32)
    array[place] = value
    return changed(**{name: array})


def test_good_data_pass() -> None:
    dataset.check(transitions(), 2, 2)
    dataset.check({**transitions(), "return": "ignored"}, 2, 2)


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        (changed(cost=None, reward=None), FieldError, "lacks cost, reward (it has observation,"),
        ({}, FieldError, "(it has nothing)"),
        (changed(cost=np.zeros(7)), ShapeError, "observation has 8 rows and cost 7"),
        (changed(observation=np.zeros(8)), ShapeError, "observation has the shape (8,), (rows, s"),
        (changed(cost=np.zeros((8, 1))), ShapeError, "cost has the shape (8, 1), (rows,) is"),
        (changed(observation=np.zeros((8, 3))), ShapeError, "observation has 3 values per row, 2"),
        (changed(next_observation=np.zeros((8, 1))), ShapeError, "next_observation has 1 values"),
        (changed(action=np.zeros((8, 4))), ShapeError, "action has 4 values per row, 2 are wanted"),
        ({k: v[:0] for k, v in transitions().items()}, EmptyDatasetError, "no rows; collect"),
        (spoiled("observation", (4, 1), np.nan), BadValueError,
         "file.h5: observation, episode 2, row 0, column 1: nan; every value must be finite"),
        (spoiled("next_observation", (3, 0), np.inf), BadValueError, "episode 1, row 0, column 0"),
        (spoiled("action", (7, 0), -np.inf), BadValueError, "action, episode 2, row 3, column 0"),
        (spoiled("reward", [1, 3], np.nan), BadValueError,
         "reward, episode 0, row 1: nan (2 such values)"),
        (spoiled("cost", 5, 0.5), BadValueError, "cost, episode 2, row 1: 0.5; 0 or 1 is wanted"),
        (spoiled("cost", 5, np.nan), BadValueError, "cost, episode 2, row 1: nan"),
        (spoiled("terminated", 2, 3), BadValueError, "terminated, episode 0, row 2: 3.0; 0 or 1"),
        (changed(success=np.full(8, 2)), BadValueError, "success, episode 0, row 0: 2"),
        (changed(action=np.full((8, 2), "a")), BadValueError, "action holds <U1, numbers"),
        (changed(reward=np.array([None] * 8)), BadValueError, "reward holds object"),
    ],
)  # fmt: skip
def test_bad_rows_are_refused_with_their_place(data: Any, kind: type, said: str) -> None:
    with pytest.raises(kind, match=re.escape(said)) as caught:
        dataset.check(data, 2, 2, source="file.h5")
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith("file.h5")


def test_bad_rows_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(BadValueError, match="episode 0, row 2"):
        dataset.save(tmp_path / "a", spoiled("cost", 2, 7))
    with pytest.raises(EmptyDatasetError):
        dataset.save(tmp_path / "a", {name: array[:0] for name, array in transitions().items()})
    with pytest.raises(FieldError, match="value, which no data set stores"):
        dataset.save(tmp_path / "a", changed(value=np.zeros(8)))
    assert not list(tmp_path.iterdir())


def test_episodes_of_other_sizes_do_not_go_together(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with pytest.raises(ShapeError, match=r"episode 3 has observations of 3 x float32 .* 2 x float"):
        dataset.save(path, transitions(observation_size=3), append=True)
    with pytest.raises(DatasetExistsError, match="episodes of safetypilot/Maze-v0, these would"):
        dataset.save(path, transitions(), dataset.About(env="Hopper-v5"), append=True)
    assert len(dataset.load(path)["cost"]) == 8


def _write(path: Path, content: bytes) -> None:
    main_file(path).write_bytes(content)


def _cut(path: Path) -> None:
    content = main_file(path).read_bytes()
    _write(path, content[: len(content) // 2])


def _link(path: Path) -> None:
    replace(path, "episode_1/rewards", None)
    with h5py.File(main_file(path), "a") as file:
        file["episode_1/rewards"] = h5py.ExternalLink("/etc/passwd", "rewards")


def _outside(path: Path) -> None:
    replace(path, "episode_1/rewards", None)
    with h5py.File(main_file(path), "a") as file:
        file.create_dataset("episode_1/rewards", (1,), "u1", external=[("/etc/passwd", 0, 1)])


def _put(name: str, values: Any) -> Callable[[Path], None]:
    return lambda path: replace(path, name, values)


def _say(**changes: Any) -> Callable[[Path], None]:
    return lambda path: edit_metadata(path, **changes)


def _metadata(text: str) -> Callable[[Path], Any]:
    return lambda path: (path / "data" / "metadata.json").write_text(text)


IMAGES = '{"type": "Box", "dtype": "uint8", "shape": [64, 64, 3], "low": 0, "high": 255}'


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (_cut, DamagedDatasetError, "main_data.hdf5 is damaged or cut off"),
        (lambda path: _write(path, b"not hdf5"), DamagedDatasetError, "damaged or cut off"),
        (lambda path: _write(path, b""), DamagedDatasetError, "damaged or cut off"),
        (lambda path: main_file(path).unlink(), DamagedDatasetError, "main_data.hdf5 is missing"),
        (_put("episode_2", None), DamagedDatasetError, "holds 2 episodes, its metadata say 3"),
        (_say(total_steps=9), DamagedDatasetError, "holds 8 rows, its metadata say 9"),
        (_say(total_steps=5), DamagedDatasetError, "at most the 1 that the metadata leave"),
        (_say(total_steps=10**15), DamagedDatasetError, "does not fit into memory"),
        (_say(total_episodes=0, total_steps=0), DamagedDatasetError, "holds 3 episodes"),
        (_metadata("{"), DamagedDatasetError, "metadata.json is not the metadata of a data set"),
        (_metadata("[]"), DamagedDatasetError, "is not the metadata of a data set"),
        (_metadata('{"total_steps": 8}'), DamagedDatasetError, "total_episodes"),
        (_say(safetypilot={"version": 2}), DatasetVersionError, "version 2, this program reads 1"),
        (_say(minari_version="0.3.1"), DatasetVersionError, "Minari 0.3.1; 0.4 and 0.5 are read"),
        (_say(minari_version=None), DatasetVersionError, "format of Minari None"),
        (_say(data_format="arrow"), DatasetVersionError, "kept as 'arrow', only hdf5"),
        (_say(observation_space='{"type": "Dict"}'), DatasetVersionError, "observations are a Dic"),
        (_say(observation_space=IMAGES, jpeg_encoding=None), DatasetVersionError, "JPEG-coded"),
        (_put("episode_1/infos", None), FieldError, "episode 1 has no infos/cost, only actions"),
        (_put("episode_1/infos", None), FieldError, "which steps violated"),
        (_put("episode_0/rewards", None), FieldError, "episode 0 has no rewards"),
        (_put("episode_0/rewards", 1.0), DamagedDatasetError, "rewards of episode 0 have the sh"),
        (_put("episode_0/rewards", []), DamagedDatasetError, "at least 1 step"),
        (_put("episode_0/actions", np.zeros((4, 2))), ShapeError, "3 rows are wanted for 3 steps"),
        (_put("episode_0/actions", np.zeros((3, 5))), ShapeError, "action of episode 1 has (2,)"),
        (_put("episode_2/actions", np.zeros((4, 5))), ShapeError, "action of episode 2 has (5,)"),
        (_put("episode_0/observations", np.zeros((3, 2))), ShapeError, "4 rows are wanted"),
        (_put("episode_1/observations", np.zeros((2, 2), np.uint8)), ShapeError, "type uint8"),
        (_put("episode_1/infos/cost", np.zeros(5)), ShapeError, "1 or 2 rows are wanted"),
        (_put("episode_1/infos/cost", np.zeros((2, 2))), ShapeError, "one number per step"),
        (_put("episode_1/infos/cost", [0, 0.3]), BadValueError, "cost, episode 1, row 0: 0.3"),
        (_put("episode_2/rewards", [0, 0, np.nan, 0]), BadValueError, "reward, episode 2, row 2"),
        (_put("episode_2/actions", np.full((4, 2), np.inf)), BadValueError,
         "main_data.hdf5: action, episode 2, row 0, column 0: inf (8 such values); every value"),
        (_put("episode_2/terminations", [0, 0, 7, 0]), BadValueError,
         "terminated, episode 2, row 2: 7; 0 or 1"),
        (_put("episode_2/rewards", [b"a", b"b", b"c", b"d"]), BadValueError, "numbers are needed"),
        (_link, DamagedDatasetError, "rewards of episode 1 is a link to elsewhere"),
        (_outside, DamagedDatasetError, "rewards of episode 1 lies in another file"),
    ],
)  # fmt: skip
def test_a_spoiled_file_is_refused(tmp_path: Path, spoil: Any, kind: type, said: str) -> None:
    path = saved(tmp_path)
    spoil(path)
    with pytest.raises(kind, match=re.escape(said)) as caught:
        dataset.load(path)
    assert str(path) in str(caught.value)


def test_every_cut_of_a_file_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content = main_file(path).read_bytes()
    for length in range(0, len(content), 97):
        _write(path, content[:length])
        with pytest.raises(DamagedDatasetError):
            dataset.load(path)


def test_nothing_is_added_to_a_damaged_one(tmp_path: Path) -> None:
    path = saved(tmp_path)
    _cut(path)
    with pytest.raises(DamagedDatasetError, match="nothing can be added"):
        dataset.save(path, transitions(), append=True)
    assert [p.name for p in tmp_path.iterdir()] == ["test-v0"]


@pytest.mark.parametrize("place", ["nowhere", "folder", "file.txt"])
def test_what_is_no_data_set_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("hello")
    said = "does not exist" if place == "nowhere" else "is not a data set"
    with pytest.raises(NotADatasetError, match=said):
        dataset.load(tmp_path / place)


def test_an_empty_set_is_none(tmp_path: Path) -> None:
    path = saved(tmp_path)
    for number in range(3):
        replace(path, f"episode_{number}", None)
    edit_metadata(path, total_episodes=0, total_steps=0)
    with pytest.raises(EmptyDatasetError, match="no episodes"):
        dataset.load(path)
