"""`safetypilot bench planner`: how long the deployed planner takes for a plan."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from safetypilot.launch.bench import blocks, host
from safetypilot.launch.bench.contestants import Cell, Contestant, Ground
from safetypilot.launch.bench.samples import figures
from safetypilot.launch.cli_common import InputError

MODULE = "safetypilot.launch.bench.plan_times"
NODE = "recovery_planner"


def measure(cell: Cell, show: Callable[[int], None]) -> dict[str, Any]:
    """Times plans at two budgets: none worth naming, and what the rate leaves.

    Raises:
        blocks.Unavailable: the planner does not work. InputError: the graph has none.
    """
    from safetypilot.launch.graph import load

    plan = load(cell.graph, cell.launch_arguments, clock="realtime", duration=1e9).plan()
    node = next((node for node in plan.nodes if node.name == NODE), None)
    if node is None:
        raise InputError(f"{cell.graph} has no node {NODE!r} to measure")
    options = {"config": node.config, "interface": plan.interface}
    where = {**node.realtime, "nice": node.nice}
    where["cpus"] = list(node.realtime.get("cpus") or node.cpus)
    contestant = Contestant("planner", MODULE, "", options=options)
    found: dict[str, Any] = {}
    ground = Ground.of(cell)
    for name, rate in (("whole", 1.0), ("at_rate", cell.rate_hz)):
        timed = replace(ground, cell=replace(cell, rate_hz=rate, warmup_s=0.0), schedule=where)
        try:
            with blocks.load() if cell.load else contextlib.nullcontext():
                samples, _ = blocks.run_block(timed, contestant, cell.steps, show)
        except blocks.Unavailable as error:
            found[name] = {"n": 0, "unavailable": str(error)}
            continue
        missed = int(samples.missed.sum())
        found[name] = {**figures(samples.latency_us, missed), "cpu": samples.facts["cpu"],
                       "iterations": round(samples.facts["iterations"], 2)}  # fmt: skip
    return {"benchmark": "planner", "schema": 1, "cell": asdict(cell), "config": node.config,
            **found, "scheduling": {"asked": where}, "host": host.host(),
            "versions": host.versions(), "command": sys.argv}  # fmt: skip


def text(found: dict[str, Any]) -> str:
    """A table of both budgets."""
    names = {"whole": "a whole plan", "at_rate": f"at {found['cell']['rate_hz']:g} Hz"}
    lines = ["| | n | p50, us | p99, us | CPU p50, us | iterations | no plan |",
             "| --- |" + " ---: |" * 6]  # fmt: skip
    for key, name in names.items():
        entry = found[key]
        if not entry["n"]:
            lines.append(f"| {name}: {entry['unavailable']} |" + " - |" * 6)
            continue
        cells = [entry["p50_us"], entry["p99_us"], entry["cpu"]["p50_us"]]
        numbers = " | ".join("-" if cell is None else f"{cell:,.0f}" for cell in cells)
        lines.append(f"| {name} | {entry['n']:,} | {numbers} | {entry['iterations']:g} | "
                     f"{entry['missed_deadlines']} |")  # fmt: skip
    return "\n".join(lines) + "\n"
