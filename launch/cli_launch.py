"""Verbs that work on launch files: launch, check, graph."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safetypilot.launch.cli_common import InputError, Json, choose, print_json, print_line

if TYPE_CHECKING:
    from safetypilot.launch.bundle import Bundle
    from safetypilot.launch.graph import Graph
    from safetypilot.launch.plan import Plan

Name = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A launch file, by name or path.")]
Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="ARG=VALUE", help="Arguments of the launch file.",
                   show_default=False),
]  # fmt: skip
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NODE.KEY=VALUE", help="A setting of a node; repeatable."),
]
Clock = Annotated[str | None, typer.Option(metavar="realtime|lockstep", help="Which clock.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of everything that is random.")]
Host = Annotated[
    str | None,
    typer.Option(metavar="HOST", help="Which of the launch file's hosts this machine is."),
]
_CLOCKS = ("realtime", "lockstep")


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: safetypilot launch maze policy=novice --episodes 20 --seed 1")(
        launch
    )
    app.command(epilog="Example: safetypilot check maze rate=50")(check)
    app.command(epilog="Example: safetypilot bundle maze plant=bridge -o robot.zip")(bundle)
    app.command(epilog="Example: safetypilot graph maze -o maze.svg")(graph)


def launch(
    name: Name,
    arguments: Arguments = None,
    settings: Settings = None,
    clock: Clock = None,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="In lockstep: all nodes in this process.")
    ] = False,
    episodes: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    duration: Annotated[
        float | None, typer.Option(min=0.001, help="Stop after so many seconds of the clock.")
    ] = None,
    seed: Seed = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where results go; else runs/NAME-TIME.")
    ] = None,
    host: Host = None,
    json: Json = False,
) -> None:
    """Fly a graph: start its nodes, watch them, and leave a summary and a picture behind.

    Ends by itself after --episodes or --duration, else with Ctrl-C: a second one kills, though a
    robot is taken down gently until a third. Exit codes: 0 done, 1 the run failed, 2 the input is
    wrong, 130 stopped by Ctrl-C, with its summary.
    """
    from safetypilot.launch import run as runner

    stops = {"episodes": episodes, "duration": duration}
    packed = None
    if name.endswith(".zip"):
        packed, loaded = _open_bundle(name, arguments, settings, clock=clock, seed=seed, **stops)
    else:
        loaded = _load(name, arguments, settings, clock=clock, seed=seed, host=host, **stops)
    plan = _plan(loaded, host, stops)
    if in_process and plan.clock != "lockstep":
        raise InputError("--in-process needs --clock lockstep: in real time a node is a process")
    if plan.clock == "lockstep" and plan.episodes is None and plan.duration_s is None:
        raise InputError("a run in lockstep needs an end: --episodes or --duration")
    try:
        run = runner.prepare(plan, out)
    except OSError as error:
        raise InputError(f"--out {error.filename}: {error.strerror}") from None
    if packed is not None:
        loaded = replace(packed, graph=loaded).unpack(run.run_dir / "bundle")
        run.plan = _plan(loaded, host, stops)
    raise typer.Exit(_fly(run, loaded, in_process, json))


def _open_bundle(
    name: str, arguments: list[str] | None, settings: list[str] | None, **overrides: Any
) -> tuple[Bundle, Graph]:
    """A bundle that fits the robot here, and its graph with what the command line changes."""
    from safetypilot.launch import bundle as bundles

    if arguments or settings:
        raise InputError("a bundle is flown as it is: arguments and --set were for making it")
    if overrides.get("clock") is not None:
        choose("clock", overrides["clock"], _CLOCKS)
    bundle = bundles.read(Path(name))
    given = {key: value for key, value in overrides.items() if value is not None}
    if "episodes" in given or "duration" in given:
        given = {"episodes": None, "duration": None, **given}
    with TemporaryDirectory() as folder:
        bundles.check_here(bundle, bundle.unpack(Path(folder)))
    return bundle, replace(bundle.graph, **given)


def bundle(
    name: Name,
    output: Annotated[Path, typer.Option("-o", "--output", help="A .zip file.")],
    arguments: Arguments = None,
    settings: Settings = None,
    json: Json = False,
) -> None:
    """Pack a graph with its models into one file, to be flown elsewhere with `launch FILE.zip`."""
    from safetypilot.launch import bundle as bundles

    if output.suffix != ".zip":
        raise InputError(f"-o {output}: a bundle is a .zip file")
    try:
        made = bundles.make(_load(name, arguments, settings), output)
    except OSError as error:
        raise InputError(f"-o {error.filename or output}: {error.strerror}") from None
    if json:
        print_json(made)
        return
    print_line(
        f"{output}: {made['name']} at {made['rate_hz']:g} Hz, {output.stat().st_size >> 10} KiB"
    )
    for file in made["files"]:
        print_line(f"  {file}")
    if made["robot"]:
        robot = made["robot"]
        joints = ", ".join(joint["name"] for joint in robot["joints"])
        print_line(f"  for the robot {robot['name']} with {joints}")
        print_line(f"  calibration {robot['calibration'] or 'none'}")


def _fly(run: Any, loaded: Graph, in_process: bool, json: bool) -> int:
    from safetypilot.launch import live
    from safetypilot.launch import run as runner
    from safetypilot.launch.progress import handle_signals

    terminal = sys.stdout.isatty() and not json
    screen = live.Screen() if terminal else live.Lines(err=json)
    run.journal.listen = screen.listen
    with handle_signals(run, lambda: None):  # a Ctrl-C too many does not cost the summary
        try:
            summary = runner.carry_out(run, in_process, screen.show, launch_json=loaded.to_dict())
        finally:
            screen.close()
        picture = runner.picture(run)
        if json:
            print_json(summary)
        live.conclude(screen.console, run, summary, picture)
    return int(summary["exit_code"])


def check(
    name: Name,
    arguments: Arguments = None,
    settings: Settings = None,
    clock: Clock = None,
    seed: Seed = None,
    host: Host = None,
    measured: Annotated[
        str,
        typer.Option(
            metavar="FILE|DIR|find|none",
            help="Whose worst ages the latency budgets must allow: a run's summary, or find the "
            "newest run of this launch file in ./runs.",
        ),
    ] = "find",
    json: Json = False,
) -> None:
    """Check a launch file without starting anything; exit code 2 and what is wrong if it is bad."""
    from safetypilot.launch.loader import LaunchFileError

    worst = _measured(measured)
    try:
        loaded = _load(name, arguments, settings, clock=clock, seed=seed, measured=worst, host=host)
        loaded.plan()
    except LaunchFileError as error:
        if not json:
            raise
        print_json({"ok": False, **error.to_dict()})
        raise typer.Exit(2) from None
    if json:
        print_json({"ok": True, "graph": loaded.to_dict()})
        return
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)
    names = ", ".join(node.name for node in loaded.nodes)
    print_line(f"{loaded.name} is fine: {loaded.env} at {loaded.rate:g} Hz; {names}")


def _plan(loaded: Graph, host: str | None, stops: dict[str, Any]) -> Plan:
    """What this machine flies: all of the graph, or one host's part."""
    from safetypilot.launch.portion import portion

    if host is None:
        return loaded.plan()
    if loaded.clock == "lockstep":
        raise InputError("--host needs real time: in lockstep one machine flies the whole graph")
    part = portion(loaded, host)
    if not any(stops.values()):
        return part
    return replace(part, episodes=stops["episodes"], duration_s=stops["duration"])


def _measured(given: str) -> Any:
    """What `--measured` names, for `load`."""
    from safetypilot.launch import budgets

    if given in ("find", "none"):
        return "find" if given == "find" else None
    try:
        return budgets.read_measured(Path(given))
    except ValueError as error:
        raise InputError(f"--measured {error}") from None


def graph(
    name: Name,
    arguments: Arguments = None,
    settings: Settings = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A .png, .svg or .mmd file.")
    ] = None,
    json: Json = False,
) -> None:
    """Draw a graph: Mermaid on standard output, or a picture with -o."""
    from safetypilot.launch import draw

    plan = _load(name, arguments, settings).plan()
    if json:
        print_json(plan.describe())
    elif output is None:
        sys.stdout.write(draw.mermaid(plan))
    else:
        kind = choose("kind of picture", output.suffix.removeprefix("."), ("png", "svg", "mmd"))
        try:
            if kind == "mmd":
                output.write_text(draw.mermaid(plan))
            else:
                draw.draw(plan, output)
        except OSError as error:
            raise InputError(f"{output}: {error.strerror}") from None
        print_line(str(output))


def _load(
    name: str, arguments: list[str] | None, settings: list[str] | None, **overrides: Any
) -> Graph:
    from safetypilot.launch.graph import load

    if overrides.get("clock") is not None:
        choose("clock", overrides["clock"], _CLOCKS)
    return load(name, arguments or [], settings or [], **overrides)
