"""A checkpoint is written whole or not at all, and a full disk says so."""

import builtins
import errno
import os

import numpy as np
import pytest
import torch
from ledge import tiny

from safetypilot.policies.learn import checkpoint, trainer
from safetypilot.policies.learn.errors import LearnError

FULL = OSError(errno.ENOSPC, "No space left on device")


def fails(*_):
    raise FULL


def test_what_is_saved_is_what_is_loaded(tmp_path):
    path = tmp_path / "deep" / "checkpoint.pt"
    checkpoint.save(path, {"weights": torch.arange(3.0), "rest": [1, "two", None, {"x": True}]})
    state = checkpoint.load(str(path))
    assert state["weights"].tolist() == [0.0, 1.0, 2.0]
    assert state["rest"] == [1, "two", None, {"x": True}]
    assert [entry.name for entry in path.parent.iterdir()] == ["checkpoint.pt"]


def test_random_numbers_go_on(tmp_path):
    rng, other = np.random.default_rng(3), np.random.default_rng(4)
    rng.random(5)
    checkpoint.restore_rng(other, checkpoint.rng_state(rng))
    assert rng.random() == other.random()


def test_code_in_a_file_is_not_run(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'pwned'}",)

    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"format": checkpoint.FORMAT, "x": Evil()}))
    torch.save({"format": checkpoint.FORMAT, "x": Evil()}, tmp_path / "evil2.pt")
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(LearnError, match="is not a checkpoint"):
            checkpoint.load(tmp_path / name)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02}q\x00."])
def test_broken_files_are_refused(content, tmp_path):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(LearnError, match=r"checkpoint\.pt is"):
        checkpoint.load(path)


def test_half_a_checkpoint_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"weights": torch.zeros(10_000)})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(LearnError, match="is not a checkpoint"):
        checkpoint.load(path)


class Stingy:
    """A file on a disk that has room for so many bytes more."""

    def __init__(self, file, room):
        self._file, self._room = file, room

    def write(self, data):
        self._room -= len(data)
        if self._room < 0:
            raise FULL
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()


@pytest.mark.parametrize("where", ["fsync", "replace", 0, 3000, 30_000])
def test_a_full_disk_is_named_and_leaves_the_old_checkpoint(where, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"x": 1})
    if isinstance(where, str):
        monkeypatch.setattr(os, where, fails)
    else:
        opened = builtins.open
        monkeypatch.setattr(
            type(path), "open", lambda self, *a, **o: Stingy(opened(self, *a, **o), where)
        )
    message = r"cannot write the checkpoint .*/checkpoint\.pt: No space left on device; the one bef"
    with pytest.raises(LearnError, match=message):
        checkpoint.save(path, {"x": torch.zeros(10_000)})
    monkeypatch.undo()
    assert checkpoint.load(path)["x"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_without_an_old_one_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(LearnError, match="there is none yet"):
        checkpoint.save(tmp_path / "checkpoint.pt", {"x": 1})


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises((AttributeError, TypeError), match=r"pickle|local"):
        checkpoint.save(tmp_path / "checkpoint.pt", {"x": lambda: None})
    assert list(tmp_path.iterdir()) == []


def test_a_run_on_a_full_disk_keeps_its_last_checkpoint(tmp_path, monkeypatch):
    small = {"final_episodes": "0", "evaluate_episodes": "0", "checkpoint_every": "1"}
    saved, count = checkpoint.save, []

    def save(path, state):
        count.append(path)
        if len(count) == 3:
            monkeypatch.setattr(os, "fsync", fails)
        saved(path, state)

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(LearnError, match=r"cannot write the checkpoint .*--resume"):
        tiny(tmp_path, 5, algorithm="sac", settings=small)
    monkeypatch.undo()
    assert checkpoint.load(tmp_path / trainer.CHECKPOINT)["tallies"][0]["episodes"] == 1
    (summary,) = tiny(tmp_path, 5, algorithm="sac", resume=tmp_path)
    assert summary["episodes"] == 5
