"""What a cell leaves behind for people: a Markdown table and pictures of the distribution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from safetypilot.launch.bench.samples import Floats

_HEAD = ("", "n", "p50", "p99", "p99.9", "max", "missed", "by the host", "p50 / ring")
_NAMES = {
    "host_jitter": "host: a timer's lateness",
    "bare_ring": "bare pyzmq ring",
    "shielded": "safetypilot, shield on",
    "unshielded": "safetypilot, shield off",
    "observed": "safetypilot, recorder and echo attached",
    "dora": "dora-rs",
    "zenoh": "eclipse-zenoh",
    "cyclonedds": "Cyclone DDS",
    "ray": "Ray actors",
}
_FIGURES = ("p50_us", "p99_us", "p999_us", "max_us")


def entries(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Contestant -> figures, peers as well, in the order of the table."""
    flat = {**result, **result["peers"]}
    return {name: flat[name] for name in _NAMES if name in flat}


def markdown(result: dict[str, Any]) -> str:
    """The table of a cell, with what has to be known beside it."""
    rows = [_row(name, entry, result["ratios"]) for name, entry in entries(result).items()]
    lines = [
        f"### {result['cell']['title']}",
        "",
        "Stamp of an observation to its command, us. Missed: not there within the period.",
        "",
        "| " + " | ".join(_HEAD) + " |",
        "|" + " --- |" + " ---: |" * (len(_HEAD) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]
    return "\n".join(lines + _notes(result)) + "\n"


def _row(name: str, entry: dict[str, Any], ratios: dict[str, Any]) -> list[str]:
    if not entry["n"]:
        reason = entry.get("unavailable", "not measured")
        return [_NAMES[name], f"- ({reason})", *["-"] * (len(_HEAD) - 2)]
    ratio = (ratios.get(f"{name}_to_bare_ring") or {}).get("p50")
    return [
        _NAMES[name],
        f"{entry['n']:,}",
        *(_number(entry[key]) for key in _FIGURES),
        str(entry["missed_deadlines"]),
        str(entry["missed_explained"]) if entry["missed_deadlines"] else "-",
        f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else "-",
    ]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _notes(result: dict[str, Any]) -> list[str]:
    """What qualifies the figures, a line each."""
    host, notes = result["host"], []
    approved = result.get("shielded", {}).get("approved")
    if approved and result["shielded"]["n"]:
        recovered = result["shielded"]["n"] - approved["n"]
        notes.append(f"Of the shielded steps {recovered} were not the task policy's; the approved "
                     f"ones: p50 {_number(approved['p50_us'])}, p99 {_number(approved['p99_us'])}, "
                     f"p99.9 {_number(approved['p999_us'])}.")  # fmt: skip
    for cpu, seen in result["witness"]["cpus"].items():
        notes.append(f"Witness on CPU {cpu}: {seen['late_by_100_us']} of {seen['wake_ups']} "
                     f"wake-ups late by 0.1 ms, {seen['late_by_1_ms']} by 1 ms, worst "
                     f"{_number(seen['worst_us'])} us.")  # fmt: skip
    notes += [f"Not granted: {line.removeprefix('refused: ')}"
              for line in result["scheduling"]["refused"]]  # fmt: skip
    if result["interrupted"]:
        notes.append("Stopped by Ctrl-C: these are the steps measured by then.")
    load = ", ".join(f"{value:.1f}" for value in host["load_average"])
    notes.append(f"{host['cpu']}, {host['cpus']} CPUs, {host['system']}, governor "
                 f"{host['governor']}, load average at the end {load}.")  # fmt: skip
    return [f"- {note}" for note in notes]


def matrix(results: list[dict[str, Any]]) -> str:
    """All cells below one another."""
    return "\n".join(markdown(result) for result in results)


def draw(latencies: dict[str, Floats], title: str, period_us: float, path: Path) -> None:
    """The share of steps that took longer than so many us, both axes logarithmic.

    Args:
        latencies: contestant -> us, (T,); NaN where no command came.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    for name in sorted(latencies, key=list(_NAMES).index):
        values = latencies[name]
        known = np.sort(values[~np.isnan(values)])
        if not len(known):
            continue
        above = 1.0 - np.arange(len(known)) / len(values)
        dashed = name in ("host_jitter", "bare_ring")
        axes.step(known, above, where="post", label=_NAMES.get(name, name),
                  linestyle="--" if dashed else "-", linewidth=1.4)  # fmt: skip
    axes.axvline(period_us, color="black", linewidth=0.8, linestyle=":")
    axes.annotate("deadline", (period_us, 1.0), fontsize=8, rotation=90, ha="right", va="top")
    axes.set(xscale="log", yscale="log", title=title, ylabel="share of steps that took longer",
             xlabel="from the observation's stamp to its command, us")  # fmt: skip
    axes.grid(which="both", alpha=0.25)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
