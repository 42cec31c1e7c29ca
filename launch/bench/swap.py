"""`safetypilot bench swap`: what swapping models costs a graph in flight."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from safetypilot.launch.bench import blocks, host
from safetypilot.launch.bench.contestants import Cell, Contestant, Ground
from safetypilot.launch.bench.samples import Samples, figures
from safetypilot.launch.bench.witness import explained, stalls_of
from safetypilot.launch.cli_common import InputError

FLIGHT = Contestant("swap", "safetypilot.launch.bench.swap_flight", "")
_TIMES = ("staging_ms", "shadow_ms", "ready_to_acting_ms", "steps_until_it_acts")
PAUSE_S = 0.1


def measure(
    cell: Cell, swaps: int, shadow_steps: int, models: list[str], show: Callable[[int], None]
) -> dict[str, Any]:
    """Flies a graph and swaps its task policy so many times; see `result`.

    Args:
        models: ONNX files that take turns; empty: the launch file's and its neighbours in the zoo.

    Raises:
        blocks.Unavailable: the flight failed. InputError: there are no two models.
    """
    ground = Ground.of(cell)
    turns = models or _neighbours(ground.models["policy"])
    if len(turns) < 2:
        raise InputError("a swap needs two models: --model FILE.onnx, twice or more")
    with tempfile.TemporaryDirectory(prefix="spx-") as folder:
        options = {"models": turns, "swaps": swaps, "shadow_steps": shadow_steps,
                   "bad": bad_files(Path(folder), ground), "pause_s": PAUSE_S}  # fmt: skip
        flight = replace(FLIGHT, options=options)
        watching = blocks.Witnesses(ground)
        try:
            with blocks.load() if cell.load else contextlib.nullcontext():
                # The flight ends by itself; by then it may at most have flown so many steps.
                longest = int(cell.rate_hz * (30 + 3 * swaps))
                samples, refused = blocks.run_block(ground, flight, longest, show)
        finally:
            witnesses = watching.end()
    return result(ground, samples, refused, list(witnesses.values()))


def _neighbours(model: str) -> list[str]:
    """The other policies beside the launch file's, then that one."""
    path = Path(model)
    others = [path.with_name(name) for name in ("novice.onnx", "trained.onnx")]
    return [str(other) for other in others if other.is_file() and other != path] + [model]


def bad_files(folder: Path, ground: Ground) -> list[tuple[str, str]]:
    """Files that must be refused, made of good ones: what is wrong, and where it lies."""
    good = Path(ground.models["policy"]).read_bytes()
    contents = {
        "empty": b"",
        "half written": good[: len(good) // 2],
        "text": b"this is not a network\n" * 50,
        "random bytes": np.random.default_rng(0).bytes(len(good)),
        "a flipped byte in the middle": _flipped(good, len(good) // 2),
    }
    found = []
    for what, content in contents.items():
        path = folder / f"{what.replace(' ', '-')}.onnx"
        path.write_bytes(content)
        found.append((what, str(path)))
    found.append(("a directory", str(folder)))
    found.append(("missing", str(folder / "nothing.onnx")))
    found.append(("the critic", ground.models["critic"]))
    return found


def _flipped(good: bytes, place: int) -> bytes:
    """One byte of a weight turned into a very different number; the golden rows notice."""
    spoiled = bytearray(good)
    spoiled[place : place + 64] = b"\x7f" * 64
    return bytes(spoiled)


def result(
    ground: Ground, samples: Samples, refused: list[str], witnesses: list[Samples]
) -> dict[str, Any]:
    """The JSON of a flight with swaps."""
    facts, deadline = samples.facts, round(1e9 / ground.cell.rate_hz)
    missed = int(samples.missed.sum())
    by_host = explained(samples, stalls_of(witnesses), deadline)
    return {
        "benchmark": "swap",
        "schema": 1,
        "cell": {**asdict(ground.cell), "title": ground.cell.title},
        "swaps": len(facts["swaps"]),
        "failure": facts["failure"],
        "shielded": {**figures(samples.latency_us, missed), "missed_explained": by_host,
                     "missed_unexplained": missed - by_host, "overruns": samples.overruns},
        "times": {key: _spread([swap[key] for swap in facts["swaps"]]) for key in _TIMES},
        "refused": facts["refused"],
        "accepted_bad": [each["what"] for each in facts["refused"] if not each["reason"]],
        "decisions": {key: facts[f"decisions{name}"]
                      for key, name in (("heard", ""), ("lost", "_lost"), ("mixed", "_mixed"))},
        "each": facts["swaps"],
        "scheduling": {"asked": ground.schedule, "refused": refused},
        "host": host.host(),
        "versions": host.versions(),
        "command": sys.argv,
    }  # fmt: skip


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"median": round(float(np.median(values)), 3), "max": round(float(max(values)), 3)}


def text(found: dict[str, Any]) -> str:
    """What a person wants to know of it."""
    entry, times = found["shielded"], found["times"]
    lines = [
        f"### {found['swaps']} swaps at {found['cell']['title']}",
        "",
        "| | |",
        "| --- | ---: |",
        f"| steps flown | {entry['n']:,} |",
        f"| missed deadlines | {entry['missed_deadlines']} |",
        f"| of these the host's | {entry['missed_explained']} |",
    ]
    names = {
        "staging_ms": "staging, ms",
        "shadow_ms": "shadow, ms",
        "ready_to_acting_ms": "ready to first command, ms",
        "steps_until_it_acts": "steps from promotion to the first command",
    }
    for key, name in names.items():
        if times[key]:
            lines.append(f"| {name}: median, max | {times[key]['median']:g}, "
                         f"{times[key]['max']:g} |")  # fmt: skip
    lines.append(f"| steps with other than one task policy | {found['decisions']['mixed']} |")
    kinds = len(found["refused"]) - len(found["accepted_bad"])
    lines.append(f"| bad files refused | {kinds} of {len(found['refused'])} |")
    lines += ["", *(f"- {each['what']}: {each['reason'] or 'ACCEPTED'}"
                    for each in found["refused"])]  # fmt: skip
    if found["failure"]:
        lines.append(f"- the flight ended early: {found['failure']}")
    return "\n".join(lines) + "\n"
