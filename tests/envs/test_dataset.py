"""Data sets on disk: what is written is read back, Minari reads it too, and nothing gets lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dataset_helpers import edit_metadata, main_file, replace, saved, transitions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from safetypilot.envs import dataset, registry
from safetypilot.envs.dataset_check import FIELDS, episode_ends

h5py = pytest.importorskip("h5py")


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert list(one) == list(other)
    for name, array in one.items():
        assert array.dtype == other[name].dtype, name
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    data = transitions()
    dataset.save(tmp_path / "a", data)
    loaded = dataset.load(tmp_path / "a")
    assert tuple(loaded) == FIELDS
    same(data, loaded)
    same(loaded, dataset.load(tmp_path / "a" / "data"))
    same(loaded, dataset.load(main_file(tmp_path / "a")))


_NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def any_data(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """Rows in any order: they need not go on from one another."""
    rows, size, actions = (draw(st.integers(1, 12)), *draw(st.tuples(*[st.integers(1, 4)] * 2)))
    is_image = draw(st.booleans())
    values = st.integers(0, 255) if is_image else _NUMBERS
    kind = np.uint8 if is_image else np.float32
    chain = draw(hnp.arrays(kind, (rows + 1, size), elements=values))
    following = chain[1:].copy()
    jumps = draw(hnp.arrays(bool, rows))
    following[jumps] = draw(hnp.arrays(kind, (rows, size), elements=values))[jumps]
    data = {
        "observation": chain[:-1],
        "action": draw(hnp.arrays(np.float32, (rows, actions), elements=_NUMBERS)),
        "cost": draw(hnp.arrays(bool, rows)).astype(np.float32),
        "reward": draw(hnp.arrays(np.float32, rows, elements=_NUMBERS)),
        "next_observation": following,
        "terminated": draw(hnp.arrays(bool, rows)),
        "truncated": draw(hnp.arrays(bool, rows)),
    }
    return {**data, "success": draw(hnp.arrays(bool, rows))} if draw(st.booleans()) else data


@given(any_data())
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
def test_any_rows_come_back_with_breaks_marked(tmp_path: Path, data: dict[str, np.ndarray]) -> None:
    path = tmp_path / "any"
    dataset.save(path, data, force=True)
    loaded = dataset.load(path, success=True)
    ends = episode_ends(data)
    expected = {**data, "truncated": data["truncated"] | (ends & ~data["terminated"])}
    same(expected, loaded)
    # Saved once more nothing changes, and the end of every episode is marked.
    dataset.save(path, loaded, force=True)
    same(loaded, dataset.load(path, success=True))
    ends = episode_ends(loaded)
    np.testing.assert_array_equal(ends, loaded["terminated"] | loaded["truncated"])


def test_rows_that_do_not_go_on_begin_an_episode(tmp_path: Path) -> None:
    data = transitions((4,))
    data["observation"] = data["observation"].copy()
    data["observation"][2] += 1
    dataset.save(tmp_path / "a", data)
    loaded = dataset.load(tmp_path / "a")
    assert loaded["truncated"].tolist() == [False, True, False, False]
    assert dataset.summary(loaded)["episodes"] == 2


def test_float64_and_flags_as_numbers_are_taken(tmp_path: Path) -> None:
    data = transitions()
    wide = {name: array.astype(np.float64) for name, array in data.items()}
    dataset.save(tmp_path / "a", wide)
    same(data, dataset.load(tmp_path / "a"))


def test_minari_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    import gymnasium

    registry.register()
    data = transitions()
    data["success"] = data["terminated"] & False
    about = dataset.About(
        env="safetypilot/Maze-v0",
        action_low=(-0.1, -0.1),
        action_high=(0.1, 0.1),
        env_spec=gymnasium.spec("safetypilot/Maze-v0").to_json(),
        made={"policy": "random"},
    )
    dataset.save(tmp_path / "maze-test-v3", data, about)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert list(minari.list_local_datasets()) == ["maze-test-v3"]
    theirs = minari.load_dataset("maze-test-v3")
    assert (theirs.spec.dataset_name, theirs.spec.version) == ("maze-test", 3)
    assert (theirs.total_episodes, theirs.total_steps) == (3, 8)
    assert theirs.action_space == gymnasium.spaces.Box(np.float32(-0.1), np.float32(0.1), (2,))
    first = theirs[0]
    np.testing.assert_array_equal(first.observations[:-1], data["observation"][:3])
    np.testing.assert_array_equal(first.observations[1:], data["next_observation"][:3])
    np.testing.assert_array_equal(first.actions, data["action"][:3])
    np.testing.assert_array_equal(first.rewards, data["reward"][:3])
    assert first.terminations.tolist() == [False, False, True]
    assert first.truncations.tolist() == [False, False, False]
    assert first.infos["cost"].tolist() == [0, 0, 0, 1]  # the first belongs to the reset
    assert first.infos["success"].tolist() == [False] * 4
    env = theirs.recover_environment()
    assert env.unwrapped.__class__.__name__ == "Maze"
    env.close()


def test_minari_reads_images_without_loss(tmp_path: Path) -> None:
    minari = pytest.importorskip("minari")
    data = transitions((3, 20), observation_size=32 * 48 * 3, kind=np.uint8)
    about = dataset.About(observation_shape=(32, 48, 3))
    dataset.save(tmp_path / "images-v0", data, about)
    theirs = minari.MinariDataset(str(tmp_path / "images-v0" / "data"))
    assert theirs.observation_space.shape == (32, 48, 3)
    images = theirs[1].observations
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[:-1].reshape(20, -1), data["observation"][3:])
    same(data, dataset.load(tmp_path / "images-v0"))


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    data = transitions((2, 5), observation_size=48, kind=np.uint8)
    dataset.save(tmp_path / "a", data, dataset.About(observation_shape=(4, 4, 3)))
    with h5py.File(main_file(tmp_path / "a")) as file:
        group = file["episode_1"]
        assert group["observations"].shape == (6, 4, 4, 3)
        assert group["observations"].dtype == np.uint8
        assert group["observations"].compression == "gzip"
        shapes = {name: group[name].shape[0] for name in ("actions", "rewards", "infos/cost")}
        assert shapes == {"actions": 5, "rewards": 5, "infos/cost": 6}
        assert (group.attrs["id"], group.attrs["total_steps"]) == (1, 5)
    raw = json.loads((tmp_path / "a" / "data" / "metadata.json").read_text())
    assert raw["jpeg_encoding"] is False and raw["dataset_id"] == "a-v0"
    assert raw["minari_version"] == "0.5.4"  # older ones would take the images for JPEG


def test_a_set_of_minaris_own_making_is_read(tmp_path: Path) -> None:
    minari = pytest.importorskip("minari")
    from gymnasium.spaces import Box
    from minari.dataset.minari_storage import MinariStorage

    box = Box(-1.0, 1.0, (2,), np.float32)
    (tmp_path / "data").mkdir()
    storage = MinariStorage.new(tmp_path / "data", box, box)
    buffer = minari.data_collector.EpisodeBuffer(
        observations=np.zeros((4, 2), np.float32),
        actions=np.ones((3, 2), np.float32),
        rewards=[1.0, 2.0, 3.0],
        terminations=[False] * 3,
        truncations=[False] * 3,
        infos={"cost": [0, 0, 1]},  # one per step, none for the reset
    )
    storage.update_episodes([buffer, buffer])
    storage.update_metadata({"dataset_id": "x-v0", "minari_version": minari.__version__})
    loaded = dataset.load(tmp_path)
    assert loaded["cost"].tolist() == [0, 0, 1] * 2
    assert loaded["truncated"].tolist() == [False, False, True] * 2  # an episode that just stops


def test_appending_keeps_what_was_there(tmp_path: Path) -> None:
    path = saved(tmp_path)
    more = transitions((2, 2), seed=5)
    dataset.save(path, more, dataset.About(made={"policy": "expert"}), append=True)
    both = dataset.load(path)
    for name in FIELDS:
        joined = np.concatenate([transitions()[name], more[name]])
        np.testing.assert_array_equal(both[name], joined)
    found = dataset.describe(path)
    assert (found["rows"], found["episodes"]) == (12, 5)
    assert [part["rows"] for part in found["made"]] == [8, 4]


def test_summary_counts(tmp_path: Path) -> None:
    data = transitions()
    data["success"] = np.array([0, 0, 0, 1, 0, 0, 1, 1], bool)
    found = dataset.summary(data)
    assert (found["rows"], found["episodes"], found["violations"]) == (8, 3, 1)
    assert found["successes"] == 2  # episodes, however many steps of them
    assert found["return_mean"] == pytest.approx(data["reward"].sum(dtype=float) / 3)
    assert dataset.describe(saved(tmp_path))["successes"] is None


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with pytest.raises(dataset.DatasetExistsError, match=r"8 rows already.*--force"):
        dataset.save(path, transitions(seed=1))
    same(transitions(), dataset.load(path))
    dataset.save(path, transitions(seed=1), force=True)
    same(transitions(seed=1), dataset.load(path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["test-v0"]  # no scratch is left


def test_force_never_removes_what_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    with pytest.raises(dataset.DatasetExistsError, match="no data set"):
        dataset.save(tmp_path / "mine", transitions(), force=True)
    with pytest.raises(dataset.DatasetExistsError, match="no data set"):
        dataset.save(tmp_path / "mine" / "thesis.tex", transitions(), force=True)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years"


def test_an_empty_directory_and_a_link_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    dataset.save(tmp_path / "link", transitions())
    dataset.save(tmp_path / "link", transitions(seed=2), force=True)
    assert (tmp_path / "link").is_symlink()
    same(transitions(seed=2), dataset.load(tmp_path / "real"))


@pytest.mark.parametrize("spoil", ["metadata", "file"])
def test_a_damaged_one_can_be_replaced(tmp_path: Path, spoil: str) -> None:
    path = saved(tmp_path)
    if spoil == "file":
        main_file(path).write_bytes(b"")
    else:
        (path / "data" / "metadata.json").write_text("{")
    dataset.save(path, transitions(), force=True)
    same(transitions(), dataset.load(path))


def test_an_error_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    path = saved(tmp_path)
    episodes = [transitions((3,), seed=1), transitions((3,), seed=2)]
    episodes[1]["reward"][1] = np.nan
    with (
        pytest.raises(dataset.BadValueError, match="reward, episode 1, row 1: nan"),
        dataset.Writer(path, dataset.About(), force=True) as writer,
    ):
        for data in episodes:
            observations = np.concatenate([data["observation"], data["next_observation"][-1:]])
            writer.add(
                dataset.Episode(observations, data["action"], data["cost"], data["reward"],
                                data["terminated"], data["truncated"])
            )  # fmt: skip
    same(transitions(), dataset.load(path))
    assert [p.name for p in tmp_path.iterdir()] == ["test-v0"]


FULL_DISK = """
import resource, signal, sys
import numpy as np
from safetypilot.envs import dataset
sys.path.append({here!r})
from dataset_helpers import transitions
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    dataset.save({path!r}, transitions((400,) * 40), force=True)
except dataset.DatasetWriteError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [0, 10_000, 300_000])
def test_a_full_disk_leaves_the_old_one(tmp_path: Path, limit: int) -> None:
    path = saved(tmp_path)
    program = FULL_DISK.format(here=str(Path(__file__).parent), path=str(path), limit=limit)
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "cannot be written: File too large; nothing was replaced" in done.stdout
    same(transitions(), dataset.load(path))
    assert [p.name for p in tmp_path.iterdir()] == ["test-v0"]


def test_it_needs_neither_torch_nor_typer_and_says_so_of_h5py(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from safetypilot.envs import dataset, dataset_collect\n"
        "assert not {'torch', 'typer', 'h5py', 'gymnasium', 'zmq'} & set(sys.modules)\n"
        "sys.modules['h5py'] = None\n"
        "try:\n"
        f"    dataset.load({str(saved(tmp_path))!r})\n"
        "except dataset.MissingLibraryError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "need h5py: pip install -e '.[train]'" in done.stdout


def test_metadata_that_minari_changed_are_followed(tmp_path: Path) -> None:
    path = saved(tmp_path)
    edit_metadata(path, safetypilot=None)  # as if Minari had copied the episodes elsewhere
    assert dataset.describe(path)["env"] == ""
    replace(path, "episode_0/infos/cost", [0, 0, 0, 0])
    assert dataset.load(path)["cost"].sum() == 0
    os.rename(path, tmp_path / "elsewhere")
    assert len(dataset.load(tmp_path / "elsewhere")["cost"]) == 8
