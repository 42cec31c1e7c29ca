"""`safetypilot bench compare`: what changed between two results beyond their noise."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from safetypilot.launch.bench.report import entries
from safetypilot.launch.cli_common import InputError

LEAST_RISE = 1.03  # smaller changes are of no use to anybody
LEAST_BLOCKS = 3  # with fewer, "all blocks are slower" happens by chance too often
_KEYS = ("p50_us", "p99_us")
_OURS = ("shielded", "unshielded", "observed")
_SAME = ("rate_hz", "load", "realtime", "graph", "affinity")


def read(path: Path) -> dict[str, Any]:
    """A file of `bench latency --json`.

    Raises:
        InputError: it is not one.
    """
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict) or data.get("benchmark") != "latency":
        raise InputError(f"{path} was not written by `safetypilot bench latency --json`")
    return data


def compare(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Cell by cell, contestant by contestant.

    A change counts if the median of the blocks moved by more than 3 % and every block of one result
    lies above every block of the other: with five blocks each that happens by chance once in 252.
    Only the stack's own figures can be regressions; the others' changes tell how alike the hosts
    were.
    """
    olds = {_conditions(cell): cell for cell in _cells(old)}
    rows, regressions, unmatched = [], [], []
    for cell in _cells(new):
        before = olds.get(_conditions(cell))
        title = cell["cell"]["title"]
        if before is None:
            unmatched.append(title)
            continue
        for row in _rows(before, cell):
            rows.append({"cell": title, **row})
            if row["verdict"] == "slower" and row["contestant"] in _OURS:
                regressions.append(f"{title}: {row['contestant']} {row['figure']}")
    hosts = {
        str((each["host"]["cpu"], each["host"]["kernel"])) for each in _cells(old) + _cells(new)
    }
    return {
        "rows": rows,
        "regressions": regressions,
        "unmatched_cells": unmatched,
        "same_host": len(hosts) == 1,
    }


def _cells(data: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = data.get("cells", [data])
    return found


def _conditions(cell: dict[str, Any]) -> tuple[str, ...]:
    """What two cells must share; of the graph's path only the name, as checkouts differ."""
    values = {**cell["cell"], "graph": Path(cell["cell"]["graph"]).name}
    return tuple(str(values.get(key)) for key in _SAME)


def _rows(old: dict[str, Any], new: dict[str, Any]) -> list[dict[str, Any]]:
    before, after, rows = entries(old), entries(new), []
    for name in after:
        if name not in before or not before[name]["n"] or not after[name]["n"]:
            continue
        for key in _KEYS:
            rows.append(_row(name, key, before[name], after[name]))
        rows.append(_missed(name, before[name], after[name]))
    return [row for row in rows if row]


def _row(name: str, key: str, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    figure = key.removesuffix("_us")
    before, after = (
        [block[key] for block in entry["blocks"] if block[key] is not None] for entry in (old, new)
    )
    if not before or not after:
        return {}
    change = median(after) / median(before)
    if min(len(before), len(after)) < LEAST_BLOCKS:
        verdict = "too few blocks"
    elif min(after) > max(before) and change > LEAST_RISE:
        verdict = "slower"
    elif max(after) < min(before) and change < 1 / LEAST_RISE:
        verdict = "faster"
    else:
        verdict = "within the noise"
    return {"contestant": name, "figure": figure, "old": round(median(before), 1),
            "new": round(median(after), 1), "change": round(change, 3),
            "old_range": [min(before), max(before)], "new_range": [min(after), max(after)],
            "verdict": verdict}  # fmt: skip


def _missed(name: str, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Missed deadlines that no witness explains: more in every block than in any before."""
    before, after = old["missed_unexplained"], new["missed_unexplained"]
    if not before and not after:
        return {}
    ranges = [[block["missed_deadlines"] for block in entry["blocks"]] for entry in (old, new)]
    few = min(map(len, ranges)) < LEAST_BLOCKS
    worse = not few and min(ranges[1]) > max(ranges[0]) and after > before
    verdict = "slower" if worse else "too few blocks" if few else "within the noise"
    return {"contestant": name, "figure": "missed", "old": before, "new": after,
            "change": round(after / before, 3) if before else None,
            "old_range": [min(ranges[0]), max(ranges[0])],
            "new_range": [min(ranges[1]), max(ranges[1])], "verdict": verdict}  # fmt: skip


def markdown(found: dict[str, Any]) -> str:
    """The comparison as a table."""
    lines = ["| cell | contestant | figure | old | new | change | |", "|" + " --- |" * 7]
    for row in found["rows"]:
        change = "-" if row["change"] is None else f"{row['change']:.3f}"
        lines.append(f"| {row['cell']} | {row['contestant']} | {row['figure']} | {row['old']:g} | "
                     f"{row['new']:g} | {change} | {row['verdict']} |")  # fmt: skip
    lines += [f"no counterpart in OLD: {title}" for title in found["unmatched_cells"]]
    if not found["same_host"]:
        lines.append("the hosts differ: a change may be theirs")
    lines += [f"REGRESSION: {text}" for text in found["regressions"]]
    return "\n".join(lines) + "\n"
