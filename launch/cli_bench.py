"""The verb bench: how fast and how punctual the stack is here, beside others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from safetypilot.launch.cli_bench_latency import (
    Graph,
    JsonFile,
    Load,
    Rate,
    Realtime,
    Seed,
    Words,
    latency,
    write_json,
)
from safetypilot.launch.cli_common import choose, print_json

_EPILOG = "Example: safetypilot bench latency --rate 500 --load --realtime"


def register(app: typer.Typer) -> None:
    bench = typer.Typer(
        no_args_is_help=True, help="Measure this machine: the stack beside a bare ring and others."
    )
    bench.command(epilog=_EPILOG)(latency)
    bench.command(epilog="Example: safetypilot bench swap --rate 500 --count 100 --load")(swap)
    bench.command(epilog="Example: safetypilot bench planner --rate 50")(planner)
    bench.command(epilog="Example: safetypilot bench jitter --rate 1000 --realtime")(jitter)
    bench.command(epilog="Example: safetypilot bench throughput --size 64 --size 4096")(throughput)
    bench.command(epilog="Example: safetypilot bench bridge --cycles 1000000 --realtime")(bridge)
    bench.command(epilog="Example: safetypilot bench compare old.json new.json")(compare)
    app.add_typer(bench, name="bench")


def swap(
    rate: Rate = 500.0,
    count: Annotated[int, typer.Option(min=1, help="Swaps of the task policy.")] = 100,
    load: Load = False,
    realtime: Realtime = False,
    shadow: Annotated[int, typer.Option(min=0, help="Steps in the shadow before each.")] = 0,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="FILE", help="Taking turns; else novice and trained."),
    ] = None,
    graph: Graph = "",
    arguments: Words = None,
    seed: Seed = 1,
    json: JsonFile = None,
) -> None:
    """Swap the task policy of a flying graph again and again, and offer it files that are bad.

    Counts missed deadlines, steps until the new version acts, and what was refused; exit code 1 if
    a bad file was accepted or the flight ended early.
    """
    from safetypilot.launch.bench import swap as swaps
    from safetypilot.launch.bench.contestants import GRAPH, Cell
    from safetypilot.launch.bench.screen import Bar

    cell = Cell(rate, load, realtime, seed=seed, graph=graph or str(GRAPH),
                arguments=tuple(arguments or ()))  # fmt: skip
    files = [str(Path(name).resolve()) for name in model or []]
    with Bar(f"{count} swaps"), _problems():
        found = swaps.measure(cell, count, shadow, files, lambda steps: None)
    _finish(found, swaps.text(found), json)
    if found["accepted_bad"] or found["failure"]:
        raise typer.Exit(1)


def planner(
    rate: Rate = 50.0,
    steps: Annotated[int, typer.Option(min=20, help="Plans of each kind.")] = 1000,
    load: Load = False,
    realtime: Realtime = False,
    graph: Graph = "maze",
    arguments: Words = None,
    seed: Seed = 1,
    json: JsonFile = None,
) -> None:
    """Time the deployed recovery planner: a whole plan, and what a period leaves room for."""
    from safetypilot.launch.bench import planner as plans
    from safetypilot.launch.bench.contestants import Cell
    from safetypilot.launch.bench.screen import Bar

    cell = Cell(rate, load, realtime, steps, 1, seed, graph, tuple(arguments or ()))
    with Bar(f"{graph}: plans") as screen, _problems():
        found = plans.measure(cell, lambda done: screen.show("planner", done, steps))
    _finish(found, plans.text(found), json)


def jitter(
    rate: Rate = 1000.0,
    steps: Annotated[int, typer.Option(min=20, help="Wake-ups.")] = 10_000,
    load: Load = False,
    realtime: Realtime = False,
    json: JsonFile = None,
) -> None:
    """Measure how late the host wakes a process that sleeps to absolute deadlines."""
    from safetypilot.launch.bench import report
    from safetypilot.launch.bench.contestants import Cell
    from safetypilot.launch.bench.latency import measure, result
    from safetypilot.launch.bench.screen import Bar

    cell = Cell(rate, load, realtime, steps, 1, only=("host_jitter",), witness="off")
    with Bar(cell.title) as screen, _problems():
        found = result(measure(cell, screen))
    _finish({**found, "benchmark": "jitter"}, report.markdown(found), json)


def throughput(
    size: Annotated[
        list[int] | None, typer.Option(metavar="BYTES", help="Only this one; repeatable.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.05, help="For each block.")] = 1.0,
    blocks: Annotated[int, typer.Option(min=1, help="Rounds, in which kinds take turns.")] = 5,
    json: JsonFile = None,
) -> None:
    """Messages per second through one hop, 64 B to 1 MB: the stack's stream and bare pyzmq."""
    from safetypilot.launch.bench import throughput as floods
    from safetypilot.launch.bench.contestants import Cell
    from safetypilot.launch.bench.screen import Bar

    sizes = tuple(int(choose("size", str(each), map(str, floods.SIZES))) for each in size or ())
    with Bar("throughput") as screen, _problems():
        found = floods.measure(Cell(blocks=blocks), sizes or floods.SIZES, seconds, screen)
    _finish(found, floods.text(found), json)


def bridge(
    rate: Rate = 1000.0,
    cycles: Annotated[int, typer.Option(min=2000, help="Reads, limits and writes.")] = 60_000,
    joints: Annotated[int, typer.Option(help="2: the maze's puck; 12: the quadruped.")] = 12,
    realtime: Realtime = False,
    json: JsonFile = None,
) -> None:
    """The last line at full speed: read, limit, write against a simulated device, without a graph.

    Counts missed deadlines, those that the host explains, costs, shares of a core, and memory.
    """
    from safetypilot.launch.bench import bridge as last_line

    typer.echo(f"{cycles} cycles at {rate:g} Hz, {cycles / rate:.0f} s and a few more", err=True)
    try:
        found = last_line.run(rate, cycles, joints, realtime)
    except (ValueError, RuntimeError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    _finish(found, last_line.text(found), json)


@contextmanager
def _problems() -> Iterator[None]:
    """What a block cannot do is one line and exit code 1."""
    from safetypilot.launch.bench.blocks import Interrupted, Unavailable

    try:
        yield
    except Unavailable as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except Interrupted:
        raise typer.Exit(130) from None


def _finish(found: dict[str, Any], text: str, json: Path | None) -> None:
    if json:
        write_json(json, found)
    sys.stdout.write(text)
    sys.stdout.flush()
    if found.get("interrupted"):
        raise typer.Exit(130)


def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD.json")],
    new: Annotated[Path, typer.Argument(metavar="NEW.json")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
) -> None:
    """Compare two results; exit code 1 if the stack has become slower beyond the noise."""
    from safetypilot.launch.bench import comparison

    found = comparison.compare(comparison.read(old), comparison.read(new))
    if json:
        print_json(found)
    else:
        sys.stdout.write(comparison.markdown(found))
    if found["regressions"]:
        raise typer.Exit(1)
