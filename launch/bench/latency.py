"""`safetypilot bench latency`: a cell, all contestants taking turns in short blocks."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from safetypilot.launch.bench import blocks, host
from safetypilot.launch.bench.contestants import Cell, Contestant, Ground
from safetypilot.launch.bench.frames import message_sizes
from safetypilot.launch.bench.samples import Floats, Integers, Samples, figures, joined
from safetypilot.launch.bench.witness import explained, stalls_of

SCHEMA = 1
OURS = ("shielded", "unshielded", "observed")
_PERCENTILES = (("p50", "p50_us"), ("p99", "p99_us"), ("p999", "p999_us"))


class Screen(Protocol):
    """Who is told how far the cell is."""

    def show(self, contestant: str, done: int, total: int) -> None: ...
    def say(self, text: str) -> None: ...


@dataclass
class Outcome:
    """What a cell has brought so far.

    Attributes:
        samples: contestant -> its blocks.
        rounds: contestant -> in which round each of its blocks was flown.
        unavailable: contestant -> why it has no figures.
        refused: what the machine did not grant.
    """

    ground: Ground
    samples: dict[str, list[Samples]] = field(default_factory=dict)
    rounds: dict[str, list[int]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    witnesses: dict[int, Samples] = field(default_factory=dict)
    stolen: dict[str, int] = field(default_factory=dict)
    interrupted: bool = False

    def latencies(self, name: str) -> Floats:
        return joined(self.samples.get(name, []))


def measure(cell: Cell, screen: Screen) -> Outcome:
    """Flies a cell; Ctrl-C ends it with what has been measured.

    Raises:
        LaunchFileError: the graph is wrong.
    """
    outcome = Outcome(Ground.of(cell))
    before = host.stolen_ticks()
    watching = blocks.Witnesses(outcome.ground)
    try:
        with blocks.load() if cell.load else contextlib.nullcontext():
            _rounds(outcome, screen)
    except KeyboardInterrupt:
        outcome.interrupted = True
    finally:
        outcome.witnesses = watching.end()
        after = host.stolen_ticks()
        outcome.stolen = {cpu: after[cpu] - count for cpu, count in before.items() if cpu in after}
    return outcome


def _rounds(outcome: Outcome, screen: Screen) -> None:
    cell = outcome.ground.cell
    rng = np.random.default_rng(cell.seed)
    contestants = cell.contestants
    total = cell.blocks * cell.block_steps * len(contestants)
    done = 0
    for number in range(cell.blocks):
        for index in rng.permutation(len(contestants)):
            contestant = contestants[index]

            def show(steps: int, name: str = contestant.name, flown: int = done) -> None:
                screen.show(name, flown + steps, total)

            _block(outcome, contestant, number, show, screen)
            done += cell.block_steps


def _block(
    outcome: Outcome, contestant: Contestant, number: int, show: Callable[[int], None],
    screen: Screen,
) -> None:  # fmt: skip
    """One block; a contestant that failed once is not tried again in this cell."""
    name, cell = contestant.name, outcome.ground.cell
    if name in outcome.unavailable:
        return
    try:
        samples, refused = blocks.run_block(outcome.ground, contestant, cell.block_steps, show)
    except blocks.Unavailable as error:
        outcome.unavailable[name] = str(error)
        screen.say(f"{name}: {error}")
        return
    except blocks.Interrupted as stopped:
        if stopped.samples is not None and len(stopped.samples):
            outcome.samples.setdefault(name, []).append(stopped.samples)
            outcome.rounds.setdefault(name, []).append(number)
        raise KeyboardInterrupt from None
    outcome.refused += [line for line in refused if line not in outcome.refused]
    outcome.samples.setdefault(name, []).append(samples)
    outcome.rounds.setdefault(name, []).append(number)


def result(outcome: Outcome) -> dict[str, Any]:
    """The JSON of a cell; see the README for the keys that are a contract."""
    ground, cell = outcome.ground, outcome.ground.cell
    stalls = stalls_of(outcome.witnesses.values())
    entries: dict[str, Any] = {}
    peers: dict[str, Any] = {}
    for contestant in cell.contestants:
        entry = _entry(outcome, contestant, stalls)
        (peers if contestant.peer else entries)[contestant.name] = entry
    return {
        "benchmark": "latency",
        "schema": SCHEMA,
        "cell": {**asdict(cell), "title": cell.title, "period_us": 1e6 / cell.rate_hz},
        **entries,
        "peers": peers,
        "ratios": ratios(outcome),
        "witness": _witness(outcome, stalls),
        "scheduling": {"asked": ground.schedule, "refused": outcome.refused},
        "payload_bytes": message_sizes(ground.dims),
        "models": ground.models,
        "host": {**host.host(), "stolen_ticks": outcome.stolen},
        "versions": host.versions(),
        "interrupted": outcome.interrupted,
        "command": sys.argv,
    }


def _entry(outcome: Outcome, contestant: Contestant, stalls: Integers) -> dict[str, Any]:
    blocks_of = outcome.samples.get(contestant.name, [])
    missed = sum(int(block.missed.sum()) for block in blocks_of)
    entry = figures(joined(blocks_of), missed)
    if contestant.name in outcome.unavailable:
        entry["unavailable"] = outcome.unavailable[contestant.name]
    deadline = round(1e9 / outcome.ground.cell.rate_hz)
    by_host = sum(explained(block, stalls, deadline) for block in blocks_of)
    entry |= {
        "missed_explained": by_host,
        "missed_unexplained": missed - by_host,
        "overruns": sum(block.overruns for block in blocks_of),
        "transport": contestant.transport,
        "blocks": [_block_figures(block) for block in blocks_of],
    }
    wakes = [block.wake_us for block in blocks_of if len(block.wake_us)]
    if wakes:
        entry["plant_woke_late"] = figures(np.concatenate(wakes), 0)
    if any(len(block.sources) for block in blocks_of):
        entry |= _by_source(blocks_of)
    if contestant.observers:
        entry["observers"] = [words[0] for words in contestant.observers]
    return entry


def _block_figures(block: Samples) -> dict[str, Any]:
    found = figures(block.latency_us, int(block.missed.sum()))
    return {key: found[key] for key in ("p50_us", "p99_us", "p999_us", "n", "missed_deadlines")}


def _by_source(blocks_of: list[Samples]) -> dict[str, Any]:
    """The stack's steps by who was in control: one that recovers waits for the planner's answer."""
    latency = joined(blocks_of)
    sources = np.concatenate([block.sources for block in blocks_of])
    approved = latency[sources == 0]
    totals: dict[str, int] = {}
    for block in blocks_of:
        for name, count in block.facts["sources"].items():
            totals[name] = totals.get(name, 0) + count
    return {
        "steps_by_source": totals,
        "approved": figures(approved, int(np.isnan(approved).sum())),
        "restarts": sum(block.facts["restarts"] for block in blocks_of),
    }


def ratios(outcome: Outcome) -> dict[str, Any]:
    """How many times as long each takes as the bare ring, and each peer as the shielded stack.

    The value is that of all steps; low and high are those of single rounds, in which both were
    measured within a minute.
    """
    found: dict[str, Any] = {}
    for name in outcome.samples:
        for base in ("bare_ring", "shielded"):
            wanted = name in OURS if base == "bare_ring" else name not in (*OURS, "host_jitter")
            if name != base and wanted and base in outcome.samples:
                found[f"{name}_to_{base}"] = {
                    short: _ratio(outcome, name, base, key) for short, key in _PERCENTILES
                }
    return found


def _ratio(outcome: Outcome, name: str, base: str, key: str) -> dict[str, Any] | None:
    above, below = (figures(outcome.latencies(each), 0)[key] for each in (name, base))
    if not above or not below:
        return None
    pairs = {
        number: figures(block.latency_us, 0)[key]
        for number, block in zip(outcome.rounds[base], outcome.samples[base], strict=True)
    }
    by_round = [
        figures(block.latency_us, 0)[key] / pairs[number]
        for number, block in zip(outcome.rounds[name], outcome.samples[name], strict=True)
        if pairs.get(number) and figures(block.latency_us, 0)[key]
    ]
    return {
        "value": round(above / below, 3),
        "low": round(min(by_round), 3) if by_round else None,
        "high": round(max(by_round), 3) if by_round else None,
    }


def _witness(outcome: Outcome, stalls: Integers) -> dict[str, Any]:
    """What the timers saw of the host, by CPU."""
    return {
        "where": outcome.ground.cell.witness,
        "rate_hz": blocks.witness_hz(outcome.ground.cell.rate_hz),
        "cpus": {
            str(cpu): {
                "wake_ups": seen.facts.get("wake_ups", 0),
                "late_by_100_us": len(seen),
                "late_by_1_ms": int((seen.latency_us > 1000).sum()),
                "worst_us": round(float(seen.latency_us.max()), 1) if len(seen) else None,
            }
            for cpu, seen in outcome.witnesses.items()
        },
        "stalls": len(stalls),
        "usable_cpus": len(os.sched_getaffinity(0)),
    }
