"""Curves of training runs: reads what runs wrote, groups seeds, computes mean and standard error.

A run is a directory with `metrics.jsonl` and `summary.json`. Formulas: Recovery RL (arXiv
2010.15920), section 6 of its fact sheet. Letters: S seeds, E episodes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safetypilot.launch.cli_common import InputError

Floats = NDArray[np.float64]

METRICS, SUMMARY = "metrics.jsonl", "summary.json"
WINDOW = 100  # episodes of the moving average, as published
_FIELDS = ("episode/success", "episode/violation", "episode/return")


@dataclass(frozen=True)
class Run:
    """One seed of one training.

    Attributes:
        label: the name a person gave it on the command line, or "".
        success, violation: 1.0 or 0.0 per episode, (E,).
        total_reward: per episode, (E,).
        recovering: 1.0 where recovery was active when the episode's violation happened; NaN where
            the run did not say, (E,).
    """

    path: Path
    env: str
    algorithm: str
    preset: str
    seed: int
    settings: Mapping[str, Any]
    success: Floats
    violation: Floats
    total_reward: Floats
    recovering: Floats
    label: str = ""

    @property
    def episodes(self) -> int:
        return len(self.success)


@dataclass
class Found:
    """The runs below some directories, and what a person should know about them."""

    runs: list[Run] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find(directories: Iterable[Path], labelled: Iterable[tuple[str, Path]] = ()) -> Found:
    """Read every run below these directories.

    Args:
        directories: searched to any depth.
        labelled: pairs of a name and a directory; the runs below it bear that name.

    Raises:
        InputError: a directory does not exist, holds no run, or a file is broken (with its line).
    """
    found, seen = Found(), set[Path]()
    asked = [(label, path) for label, path in labelled] + [("", path) for path in directories]
    for label, directory in asked:
        if not directory.is_dir():
            raise InputError(f"there is no directory {directory}; give those of training runs")
        metrics = sorted(directory.rglob(METRICS))
        if not metrics:
            raise InputError(
                f"there is no training run in or below {directory}: a run is a directory with "
                f"{METRICS} and {SUMMARY}, as `safetypilot train NAME --out DIR` writes it"
            )
        for path in metrics:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                _read(path.parent, label, found)
    if not found.runs:
        raise InputError("no run to show; " + "; ".join(found.notes))
    return found


def _read(directory: Path, label: str, found: Found) -> None:
    path = directory / SUMMARY
    if not path.exists():
        found.notes.append(f"{directory} is left out: no {SUMMARY}, it has not ended yet")
        return
    summary = _summary(path)
    rows, whole = _rows(directory / METRICS)
    if not whole:
        found.notes.append(f"{directory / METRICS}: its last line is only half written, left out")
    if not rows:
        found.notes.append(f"{directory} is left out: no episode in it")
        return
    success, violation, total, recovering = np.array(rows, dtype=np.float64).T  # (E, 4) -> 4 x (E,)
    found.runs.append(
        Run(
            directory,
            short_name(str(summary["env"])),
            str(summary["algorithm"]),
            str(summary.get("preset") or ""),
            int(summary["seed"]),
            summary.get("settings") or {},
            success,
            violation,
            total,
            recovering,
            label,
        )
    )


def _summary(path: Path) -> dict[str, Any]:
    """The summary of one run.

    Raises:
        InputError: not JSON, or without the facts by which runs are grouped.
    """
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); restore or remove the run") from None
    known = summary if isinstance(summary, dict) else {}
    missing = [key for key in ("env", "algorithm", "seed") if key not in known]
    if missing:
        raise InputError(f"{path} says nothing about {', '.join(missing)}; it is no training run's")
    return known


def _rows(path: Path) -> tuple[list[tuple[float, ...]], bool]:
    """Success, violation, return and recovering of every episode; whether the last line is whole.

    Raises:
        InputError: a line is broken, or the episodes are not numbered 1, 2, ...
    """
    rows: list[tuple[float, ...]] = []
    for number, line in _lines(path):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise ValueError("not an object")
        except ValueError as error:
            if not line.endswith("\n"):  # of a run that goes on, or of one killed in the middle
                return rows, False
            raise InputError(f"{path}:{number}: {error}; wanted one JSON object a line") from None
        if "episode" not in entry:
            continue
        rows.append(_row(entry, len(rows) + 1, f"{path}:{number}"))
    return rows, True


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from enumerate(file, 1)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text ({error.reason}); is it a metrics file?") from None


def _row(entry: Mapping[str, Any], wanted: int, where: str) -> tuple[float, ...]:
    if entry["episode"] != wanted:
        raise InputError(
            f"{where}: episode {entry['episode']!r}, wanted {wanted}; a run's episodes are "
            "numbered from 1 without gaps"
        )
    values = [entry.get(name) for name in _FIELDS]
    for name, value in zip(_FIELDS, values, strict=True):
        if isinstance(value, str | list | dict | None):
            raise InputError(f"{where}: {name} is {value!r}, wanted a number")
        if name != "episode/return" and value not in (0, 1):
            raise InputError(f"{where}: {name} is {value!r}, wanted 0 or 1")
    recovering = entry.get("episode/recovering")
    return *(float(v) for v in values if v is not None), _number(recovering)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def short_name(env: str) -> str:
    """`maze` for `safetypilot/Maze-v0`; other ids as they are."""
    from safetypilot.envs.registry import IDS

    return next((name for name, full in IDS.items() if env == full), env)


def ratio(success: Floats, violation: Floats) -> Floats:
    """(S_e + 1) / (V_e + 1) after each episode, from counts up to there; (..., E) -> (..., E)."""
    return (np.cumsum(success, axis=-1) + 1) / (np.cumsum(violation, axis=-1) + 1)


def smooth_return(total_reward: Floats, violation: Floats, window: int = WINDOW) -> Floats:
    """Mean return of the violation-free among the last `window` episodes; (..., E) -> (..., E).

    NaN where there was none. The original masked every episode after the first violation, because
    it took the count so far for the mask; here an episode is masked for its own violation.
    """
    counted = (violation == 0) & np.isfinite(total_reward)
    totals = _window_sum(np.where(counted, total_reward, 0.0), window)
    counts = np.rint(_window_sum(counted.astype(np.float64), window))
    return np.divide(totals, counts, out=np.full_like(totals, np.nan), where=counts > 0)


def _window_sum(values: Floats, window: int) -> Floats:
    """Sum over the last `window` entries of the last axis, fewer at the start."""
    sums = np.cumsum(values, axis=-1)
    before = np.zeros_like(sums)
    before[..., window:] = sums[..., :-window]
    return sums - before


def mean_and_error(values: Floats) -> tuple[Floats, Floats]:
    """Mean over seeds and its standard error, population std / sqrt(n); (S, ...) -> (...).

    NaN entries do not count; where nothing counts the mean is NaN.
    """
    known = np.isfinite(values)
    n = known.sum(axis=0)
    nothing = np.full(values.shape[1:], np.nan)
    mean = np.divide(np.where(known, values, 0.0).sum(axis=0), n, out=nothing.copy(), where=n > 0)
    squares = np.where(known, (values - mean) ** 2, 0.0).sum(axis=0)
    variance = np.divide(squares, n, out=nothing.copy(), where=n > 0)
    error = np.sqrt(np.divide(variance, n, out=nothing.copy(), where=n > 0))
    return mean, error
