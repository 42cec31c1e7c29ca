"""Verbs that ask the nodes of a running graph: nodes, topics, estop, reset."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

import typer

from safetypilot.launch.cli_common import InputError, Json, RunName, console, print_json

Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept with the latch.")]


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: safetypilot nodes --json")(nodes)
    app.command(epilog="Example: safetypilot topics")(topics)
    app.command(epilog='Example: safetypilot estop --reason "smoke"')(estop)
    app.command(epilog="Example: safetypilot reset --run maze")(reset)


def nodes(run: RunName = None, json: Json = False) -> None:
    """Show the nodes of the running graphs: state, rate, age, memory and model."""
    from safetypilot.launch import runtime_dir

    runs = [runtime_dir.find(run)] if run else runtime_dir.running()
    answers = [_ask_nodes(each) for each in runs]
    if json:
        print_json(answers)
        return
    from safetypilot.launch.cli_hosts import link_lines
    from safetypilot.launch.live import node_table

    screen = console()
    if not answers:
        screen.print("nothing is running; start a graph with: safetypilot launch NAME")
    for answer in answers:
        screen.print(f"{answer['run_id']}: {answer['clock']}, {answer['rate_hz']:g} Hz, "
                      f"pid {answer['pid']}, {answer['run_dir']}", soft_wrap=True)  # fmt: skip
        if answer["estop"]:
            screen.print("  E-STOPPED: failsafe only, until `safetypilot reset`", style="bold red")
        if answer["clock"] == "lockstep":
            screen.print("  (in lockstep nodes answer their scheduler only)")
        else:
            screen.print(node_table(answer["nodes"]))
            for line in link_lines(answer["nodes"]):
                screen.print(line, soft_wrap=True)


def _ask_nodes(run: Any) -> dict[str, Any]:
    """graph.json's facts and every node's status, asked at the same time."""
    from concurrent.futures import ThreadPoolExecutor

    from safetypilot.launch.attach import asker
    from safetypilot.nodes.kernel.errors import KernelError

    ask = asker(run.path, 1.0)

    def row(name: str) -> dict[str, Any]:
        if run.graph["clock"] == "lockstep":
            return {"state": "lockstep", "inputs": {}, "node": {}}
        try:
            status = ask(name, "status", {})
        except KernelError as error:
            return {"state": "no answer", "error": str(error), "inputs": {}, "node": {}}
        state = "active" if status.get("active") else "ready"
        return {"state": state, "restarts": status.get("generation"), **status}

    names = list(run.graph["nodes"])
    with ThreadPoolExecutor(max_workers=max(len(names), 1)) as pool:
        rows = dict(zip(names, pool.map(row, names), strict=True))
    facts = {key: run.graph.get(key) for key in ("name", "clock", "rate_hz", "pid", "run_dir")}
    return {"run_id": run.run_id, **facts, "estop": run.latch.exists(), "nodes": rows}


def topics(run: RunName = None, json: Json = False) -> None:
    """Show the topics of a running graph: message, writer and readers."""
    from safetypilot.launch import runtime_dir

    found = runtime_dir.find(run).graph["topics"]
    if json:
        print_json(found)
        return
    from rich import box
    from rich.table import Table

    table = Table("topic", "message", "port", "writer", "readers", box=box.SIMPLE_HEAD)
    for name, topic in found.items():
        readers = ", ".join(topic["readers"])
        table.add_row(name, topic["message"], topic["port"], topic["writer"] or "-", readers or "-")
    console().print(table)


def estop(reason: Reason = "", run: RunName = None, json: Json = False) -> None:
    """Emergency stop: failsafe only, until `safetypilot reset`. Without --run: of every run."""
    from safetypilot.bridge.estop import SOCKET, STOP, send
    from safetypilot.launch import attach, runtime_dir

    runs = [runtime_dir.find(run)] if run else runtime_dir.running()
    if not runs:
        raise runtime_dir.RuntimeDirError("nothing is running")
    paced = [found for found in runs if found.graph["clock"] != "lockstep"]
    if not paced:
        raise InputError("a run in lockstep moves nothing real and cannot be e-stopped; end it")
    runs = paced
    outcomes = {}
    for found in runs:  # latches first: they hold whatever becomes of the requests
        attach.latch(found.latch, reason)
    for found in runs:
        with suppress(OSError):  # there is no bridge
            send(found.path / SOCKET, STOP, reason)
        ask = attach.asker(found.path, 2.0)
        outcomes[found.run_id] = attach.tell_all(ask, _stoppers(found.graph), "estop", reason)
    _tell("e-stopped", outcomes, json)


def reset(reason: Reason = "", run: RunName = None, json: Json = False) -> None:
    """Release the emergency stop of a run."""
    from safetypilot.launch import attach, runtime_dir

    found = runtime_dir.find(run)
    found.latch.unlink(missing_ok=True)
    ask = attach.asker(found.path, 2.0)
    outcome = attach.tell_all(ask, _stoppers(found.graph), "reset", reason)
    _tell("released", {found.run_id: outcome}, json)


def _stoppers(graph: dict[str, Any]) -> list[str]:
    """The nodes that know the e-stop: the arbiter first, then the plant."""
    topics = graph["topics"]
    writers = [topics.get(name, {}).get("writer") for name in ("command", "observation")]
    return [name for name in dict.fromkeys(writers) if name]


def _tell(done: str, outcomes: dict[str, dict[str, str]], json: bool) -> None:
    """Says what came of it; exit code 1 unless at least one node of each run took it."""
    if json:
        print_json(outcomes)
    for run_id, outcome in outcomes.items():
        if not json:
            details = ", ".join(f"{node} {result}" for node, result in outcome.items())
            typer.echo(f"{run_id} {done}: latch written; {details}" if done == "e-stopped" else
                       f"{run_id} {done}: {details}")  # fmt: skip
    if not all("ok" in outcome.values() for outcome in outcomes.values()):
        raise typer.Exit(1)
