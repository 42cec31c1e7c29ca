"""`safetypilot bench throughput`: messages per second through one hop, ours and bare pyzmq."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import numpy as np

from safetypilot.launch.bench import blocks, host
from safetypilot.launch.bench.contestants import Cell, Contestant, Ground
from safetypilot.launch.bench.hop_flood import KINDS, MODULE
from safetypilot.launch.bench.latency import Screen

SIZES = (64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576)
_NAMES = {
    "bare": "bare pyzmq PUSH/PULL",
    "stream": "a stream's frames",
    "messages": "observations, encoded and checked",
}


def measure(cell: Cell, sizes: tuple[int, ...], seconds: float, screen: Screen) -> dict[str, Any]:
    """Floods a hop with frames of each size; kinds take turns in `cell.blocks` rounds.

    Raises:
        blocks.Unavailable: a hop does not work.
    """
    ground = Ground.of(cell)
    rates: dict[str, dict[int, list[float]]] = {kind: {size: [] for size in sizes}
                                                for kind in KINDS}  # fmt: skip
    rng = np.random.default_rng(cell.seed)
    total, done, interrupted = cell.blocks * len(sizes) * len(KINDS), 0, False
    try:
        for _ in range(cell.blocks):
            for size in sizes:
                for kind in rng.permutation(KINDS):
                    options = {"kind": str(kind), "size": size, "seconds": seconds}
                    hop = Contestant(f"{kind} {size} B", MODULE, "", options=options)
                    screen.show(hop.name, done, total)
                    samples, _ = blocks.run_block(ground, hop, 1, lambda steps: None)
                    rates[str(kind)][size].append(samples.facts["per_second"])
                    done += 1
    except (KeyboardInterrupt, blocks.Interrupted):
        interrupted = True
    return _result(cell, rates, interrupted)


def _result(
    cell: Cell, rates: dict[str, dict[int, list[float]]], interrupted: bool
) -> dict[str, Any]:
    figures = {
        kind: {
            str(size): {"per_second": round(float(np.median(values)), 1),
                        "megabytes_per_second": round(float(np.median(values)) * size / 1e6, 2),
                        "blocks": [round(value, 1) for value in values]}
            for size, values in by_size.items() if values
        }
        for kind, by_size in rates.items()
    }  # fmt: skip
    return {"benchmark": "throughput", "schema": 1, "cell": asdict(cell), **figures,
            "interrupted": interrupted, "host": host.host(), "versions": host.versions(),
            "command": sys.argv}  # fmt: skip


def text(found: dict[str, Any]) -> str:
    """A table: a row for each size."""
    lines = ["| bytes | " + " | ".join(f"{_NAMES[kind]}, 1/s" for kind in KINDS) + " | MB/s |",
             "|" + " ---: |" * (len(KINDS) + 2)]  # fmt: skip
    for size in SIZES:
        row = [found[kind].get(str(size)) for kind in KINDS]
        if any(row):
            cells = [f"{each['per_second']:,.0f}" if each else "-" for each in row]
            rates = [f"{each['megabytes_per_second']:,.0f}" if each else "-" for each in row]
            lines.append(f"| {size:,} | {' | '.join(cells)} | {' / '.join(rates)} |")
    return "\n".join(lines) + "\n"
