"""Final figures of trainings as a Markdown table and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetypilot.launch.curve_groups import Group

_HEAD = ("environment", "algorithm", "ratio", "median", "successes", "violations")
_TAIL = ("episodes", "seeds")
_RECOVERING = "violations during recovery"


def markdown(groups: Sequence[Group]) -> str:
    """A row per group, the best mean ratio of each environment in bold.

    Ratio, successes and violations are mean ± standard error over the seeds at the last episode.
    """
    shares = {id(group): group.recovering_share() for group in groups}
    told = any(share is not None for share in shares.values())
    head = [*_HEAD, *([_RECOVERING] if told else []), *_TAIL]
    rows = []
    for env in dict.fromkeys(group.env for group in groups):
        members = [group for group in groups if group.env == env]
        finals = {id(group): group.final("ratio") for group in members}
        members.sort(key=lambda group: -finals[id(group)]["mean"])
        for place, group in enumerate(members):
            ratio = finals[id(group)]
            best = "**" if place == 0 and len(members) > 1 else ""
            row = [env, group.label, f"{best}{_spread(ratio)}{best}", _number(ratio["median"])]
            row += [_spread(group.final(kind)) for kind in ("success", "violation")]
            row += [_share(shares[id(group)])] if told else []
            rows.append([*row, str(group.episodes), str(group.seeds)])
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def write_json(path: Path, groups: Sequence[Group], notes: Sequence[str]) -> None:
    """All final figures, with the value of every seed."""
    content = {"groups": [group.describe() for group in groups], "notes": list(notes)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _spread(figure: dict[str, Any]) -> str:
    """Mean ± standard error, the error with two digits and the mean to the same place."""
    mean, error = figure["mean"], figure["standard_error"]
    if mean is None or not error:
        return f"{_number(mean)} ± {_number(error)}"
    places = min(max(1 - math.floor(math.log10(error)), 0), 3)
    return f"{mean:.{places}f} ± {error:.{places}f}"


def _share(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "-"
    return f"{figure['mean']:.2f} ± {figure['standard_error']:.2f}"


def _number(value: float | None) -> str:
    """Three digits, whole numbers from 100 on."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
