"""The verb `bench latency`, and what the verbs of bench share."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safetypilot.launch.cli_common import InputError, choose, print_line

if TYPE_CHECKING:
    from safetypilot.launch.bench.contestants import Cell

Rate = Annotated[float, typer.Option(min=1, max=2000, help="Control rate, Hz.")]
Load = Annotated[bool, typer.Option("--load", help="Keep every CPU busy meanwhile.")]
Realtime = Annotated[
    bool, typer.Option("--realtime", help="SCHED_FIFO, locked memory: for all alike.")
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the figures there, too.")
]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where results go; else runs/bench-VERB-TIME.")
]
Words = Annotated[
    list[str] | None, typer.Option("--arg", metavar="ARG=VALUE", help="Of the launch file.")
]
Graph = Annotated[str, typer.Option(metavar="NAME|FILE", help="Another shielded launch file.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything that is random.")]
MATRIX = tuple(
    (rate, load, realtime)
    for rate in (100.0, 500.0, 1000.0)
    for load in (False, True)
    for realtime in (False, True)
)


def latency(
    rate: Rate = 500.0,
    load: Load = False,
    realtime: Realtime = False,
    steps: Annotated[
        int, typer.Option(min=20, help="Of each contestant; p99.9 needs 10000.")
    ] = 10_000,
    blocks: Annotated[int, typer.Option(min=1, help="In which they take turns.")] = 5,
    peers: Annotated[bool, typer.Option(help="Other middleware, where installed.")] = True,
    peer: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this one; repeatable.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only these contestants; repeatable.")
    ] = None,
    graph: Graph = "",
    arguments: Words = None,
    affinity: Annotated[
        str, typer.Option(help="same: bare graphs run on the control path's CPUs; free: on any.")
    ] = "same",
    witness: Annotated[
        str, typer.Option(help="Where a timer watches the host: neighbour, same, both or off.")
    ] = "neighbour",
    matrix: Annotated[
        bool, typer.Option("--matrix", help="100, 500, 1000 Hz x load x realtime: hours.")
    ] = False,
    seed: Seed = 1,
    json: JsonFile = None,
    out: Out = None,
) -> None:
    """Time a step, observation to command: ours, a bare ring, and other middleware, in turns.

    Contestants: host_jitter, bare_ring, shielded, unshielded, observed, dora, zenoh, cyclonedds,
    ray. Ctrl-C leaves what has been measured.
    """
    from safetypilot.launch.bench.contestants import GRAPH, Cell

    cell = Cell(
        rate, load, realtime, steps, min(blocks, steps), seed, graph or str(GRAPH),
        tuple(arguments or ()), choose("affinity", affinity, ("same", "free")),
        choose("place", witness, ("neighbour", "same", "both", "off")),
        _chosen(peers, peer or [], only or []),
    )  # fmt: skip
    cells = [cell]
    if matrix:
        cells = [replace(cell, rate_hz=each, load=busy, realtime=rt) for each, busy, rt in MATRIX]
    folder = _folder(out, "latency")
    results = []
    for each in cells:
        where = folder / _slug(each) if matrix else folder
        results.append(_fly(each, where))
        if results[-1]["interrupted"]:
            break
    final = results[0] if not matrix else {"benchmark": "latency", "cells": results}
    if matrix:
        from safetypilot.launch.bench import report

        (folder / "latency.md").write_text(report.matrix(results))
        write_json(folder / "latency.json", final)
    if json:
        write_json(json, final)
    print_line(f"results in {folder}")
    if any(each["interrupted"] for each in results):
        raise typer.Exit(130)


def _chosen(peers: bool, peer: list[str], only: list[str]) -> tuple[str, ...]:
    """Names of contestants, in the order of the table."""
    from safetypilot.launch.bench.contestants import NAMES, PEERS

    for name in peer:
        choose("peer", name, PEERS)
    for name in only:
        choose("contestant", name, NAMES)
    kept = peer or (PEERS if peers else ())
    return tuple(name for name in NAMES
                 if (name in only if only else name not in PEERS or name in kept))  # fmt: skip


def _fly(cell: Cell, folder: Path) -> dict[str, Any]:
    """Measures a cell and writes its table, figures and picture."""
    from safetypilot.launch.bench import report
    from safetypilot.launch.bench.latency import measure, result
    from safetypilot.launch.bench.screen import Bar

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does
    with Bar(cell.title) as screen:
        outcome = measure(cell, screen)
    found = result(outcome)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "latency.json", found)
        text = report.markdown(found)
        (folder / "latency.md").write_text(text)
        latencies = {name: outcome.latencies(name) for name in outcome.samples}
        period = 1e6 / cell.rate_hz
        report.draw(latencies, cell.title, period, folder / "latency.png")
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}") from None
    sys.stdout.write(text)
    sys.stdout.flush()
    return found


def _folder(out: Path | None, verb: str) -> Path:
    folder = out or Path("runs") / f"bench-{verb}-{datetime.now():%Y%m%d-%H%M%S}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {error.filename}: {error.strerror}") from None
    return folder


def _slug(cell: Cell) -> str:
    load, realtime = "load" if cell.load else "idle", "rt" if cell.realtime else "plain"
    return f"{cell.rate_hz:g}hz-{load}-{realtime}"


def write_json(path: Path, data: Any) -> None:
    from safetypilot.launch.report import finite
    from safetypilot.launch.runtime_dir import write_json

    try:
        write_json(path, finite(data))
    except OSError as error:
        raise InputError(f"{error.filename or path}: {error.strerror}") from None
