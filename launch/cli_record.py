"""Verbs that keep what a graph does and feed it back: record, replay."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from safetypilot.launch.cli_common import InputError, Json, choose, print_json, print_line

Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="ARG=VALUE", help="Arguments of the launch file.", show_default=False),
]


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: safetypilot record -o flight.mcap --topics observation,command")(
        record
    )
    app.command(epilog="Example: safetypilot replay flight.mcap maze --set arbiter.eps=0.05")(
        replay
    )


def record(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Which run: id or name.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Else RUN.mcap.")
    ] = None,
    topics: Annotated[
        str, typer.Option(metavar="A,B", help="Only these topics; else all of them.")
    ] = "",
    duration: Annotated[
        float | None, typer.Option(min=0.1, help="Stop after so many seconds.")
    ] = None,
    max_mb: Annotated[
        float, typer.Option(min=0, help="Begin the next file beyond this size; 0: never.")
    ] = 0.0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    json: Json = False,
) -> None:
    """Record a running graph into an MCAP file, which Foxglove and Rerun open.

    From outside, through taps: the graph does not notice. Ends with the run, after --duration or
    with Ctrl-C; exit code 1 if the disk failed. To record a run from its first message on, launch
    it with `record=on`.
    """
    from safetypilot.launch import recording, runtime_dir
    from safetypilot.nodes.recording_file import Settings

    found = runtime_dir.find(run)
    if found.graph["clock"] == "lockstep":
        raise InputError("a run in lockstep records itself only: launch it with record=on")
    wanted = tuple(word for word in topics.split(",") if word)
    for topic in wanted:
        choose("topic", topic, found.graph["topics"])
    path = output or recording.default_name(found.run_id)
    if path.exists() and not force and path.is_file():
        raise InputError(f"{path} exists; name another file with -o, or overwrite it with --force")
    if path.suffix != ".mcap" and not path.exists():
        raise InputError(f"-o {path}: the name of a recording ends in .mcap")
    stopped = _on_signals()
    settings = Settings(path, wanted, max_bytes=int(max_mb * 1e6))
    show = (lambda status: None) if json else (lambda status: print_line(_progress(status)))
    status = recording.attach(found, settings, duration, show, stopped)
    if json:
        print_json(status)
    else:
        print_line(_progress(status))
    if status["failure"]:
        typer.echo(f"error: {status['failure']}", err=True)
        raise typer.Exit(1)


def _on_signals() -> Any:
    """Whether Ctrl-C or SIGTERM has come: the file is to be closed properly."""
    came: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: came.append(number))
    return lambda: bool(came)


def _progress(status: dict[str, Any]) -> str:
    gaps = sum(status["gaps"].values())
    return (
        f"{status['file']}: {status['messages']} messages, {status['mb']:.2f} MB, "
        f"dropped {status['dropped']}, not heard {gaps}"
    )


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recording (.mcap).")],
    name: Annotated[
        str, typer.Argument(metavar="NAME|LAUNCHFILE", help="The graph whose nodes are fed.")
    ],
    arguments: Arguments = None,
    nodes: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="Which nodes run; the recording stands in for the others. Else those whose "
            "topics are not in the recording, or the arbiter if all are.",
        ),
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NODE.KEY=VALUE", help="A setting of a node; repeatable."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Keep what the nodes answered, as MCAP."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Feed a recording to some nodes of a graph and compare their answers with the recorded ones.

    On virtual time, so the outcome is a function of recording, launch file and settings. The plant
    does not react: the answer is what the nodes would have said to what was recorded.
    """
    from safetypilot.launch.graph import load
    from safetypilot.launch.replaying import Replay, text

    wanted = [word for word in nodes.split(",") if word]
    plan = load(name, arguments or [], settings or [], clock="lockstep").plan()
    for node in wanted:
        choose("node", node, [node.name for node in plan.nodes])
    outcome = Replay(plan, file, wanted, output).run()
    if json:
        print_json(outcome)
    else:
        print_line(text(outcome))
