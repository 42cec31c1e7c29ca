"""A run's curve on disk: one line per entry, cut where a resumed run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safetypilot.policies.learn.logbook import Display, Logbook


def entries(directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_each_entry_is_a_line_at_once(tmp_path: Path) -> None:
    book = Logbook(tmp_path / "run")
    book.write(3, {"loss": 0.5})
    assert entries(tmp_path / "run") == [{"step": 3, "loss": 0.5}]
    book.write(4, {"loss": 0.25, "other": 1.0})
    book.close()
    assert [entry["step"] for entry in entries(tmp_path / "run")] == [3, 4]
    assert list((tmp_path / "run" / "tensorboard").iterdir())


@pytest.mark.parametrize(("keep", "steps"), [(None, []), (2, [1, 2]), (9, [1, 2, 3])])
def test_a_resumed_run_keeps_what_came_before(
    keep: int | None, steps: list[int], tmp_path: Path
) -> None:
    lines = [json.dumps({"step": step}) for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 4')  # killed mid-line
    book = Logbook(tmp_path, keep)
    book.write(10, {})
    book.close()
    assert [entry["step"] for entry in entries(tmp_path)] == [*steps, 10]


def test_a_resumed_run_may_find_nothing(tmp_path: Path) -> None:
    Logbook(tmp_path, 5).close()
    assert entries(tmp_path) == []


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    book = Logbook(tmp_path)
    book._file.close()
    book._file = open("/dev/full", "a")
    with pytest.raises(OSError, match="No space left on device") as caught:
        book.write(1, {"loss": 1.0})
    assert caught.value.filename == str(tmp_path / "metrics.jsonl")
    book.close()


def test_a_display_that_shows_nothing() -> None:
    with Display(show=False) as display:
        display.report("training", 1, 2)
