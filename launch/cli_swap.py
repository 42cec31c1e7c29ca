"""The verb that changes models in a running graph."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safetypilot.launch.cli_common import InputError, Json, RunName, choose, console, print_json

if TYPE_CHECKING:
    from safetypilot.launch.swapping import Change


def register(app: typer.Typer) -> None:
    app.command(
        epilog="Example: safetypilot swap task_policy runs/mine/policy.onnx --shadow 2s;  "
        "as a set: safetypilot swap task_policy p.onnx safety_critic c.onnx recovery_planner "
        "c.onnx;  back: safetypilot swap --rollback"
    )(swap)


def swap(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NODE FILE]...",
            help="A node and an ONNX file; several pairs change at the same observation or not at "
            "all. NODE:KIND where a node holds several, as in recovery_planner:dynamics. zoo/... "
            "is shipped.",
        ),
    ] = None,
    status: Annotated[
        bool, typer.Option("--status", help="Show what flies, and what did.")
    ] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Back to the model before: of NODE, or of a set.")
    ] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Give up what is being staged or in its shadow.")
    ] = False,
    shadow: Annotated[
        str,
        typer.Option(
            metavar="2s|500",
            help="First let it answer unheard beside the live model, for seconds or steps.",
        ),
    ] = "",
    contract: Annotated[
        Path | None,
        typer.Option(help="JSON or YAML with what a file from another tool does not say."),
    ] = None,
    run: RunName = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the outcome.")] = 30.0,
    json: Json = False,
) -> None:
    """Swap models of a running graph; each is staged and checked, and refused if it is bad."""
    from safetypilot.launch import attach, runtime_dir, swapping

    found = runtime_dir.find(run)
    words, nodes = models or [], list(found.graph["nodes"])
    if status + rollback + cancel > 1:
        raise InputError("one of --status, --rollback and --cancel at a time")
    if found.graph["clock"] == "lockstep":
        raise InputError("a run in lockstep is swapped by its launch file's script only")
    ask = attach.asker(found.path)
    if status or cancel:
        if words:
            raise InputError(f"--{'status' if status else 'cancel'} takes no node: it is for all")
        answer = swapping.statuses(ask, nodes) if status else swapping.cancel(ask, nodes)
        _show(answer, json)
    elif rollback:
        if len(words) > 1:
            raise InputError("--rollback takes one node, or none for a set")
        for word in words:
            choose("node", word.partition(":")[0], nodes)
        plant = found.graph["topics"]["observation"]["writer"]
        _show(swapping.rollback(ask, plant, nodes, *words), json)
    else:
        options = _options(shadow, contract)
        patience = timeout + float(options.get("shadow_s") or 0.0)
        _swap(found, _changes(words, nodes), options, patience, json)


def _changes(words: list[str], nodes: list[str]) -> list[Change]:
    from safetypilot.launch import files
    from safetypilot.launch.swapping import Change

    if not words or len(words) % 2:
        raise InputError(
            "swap takes pairs of node and file: safetypilot swap task_policy policy.onnx "
            "(or --status, --rollback, --cancel)"
        )
    changes = []
    for name, file in zip(words[::2], words[1::2], strict=True):
        node, _, kind = name.partition(":")
        choose("node", node, nodes)
        # A missing file is the node's to refuse.
        changes.append(Change(node, files.resolve(file, Path.cwd()), kind))
    return changes


def _options(shadow: str, contract: Path | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if shadow:
        number = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|steps)?", shadow)
        if not number or (number[2] != "s" and "." in number[1]):
            raise InputError(
                f"--shadow {shadow} is neither seconds, as in 2s, nor steps, as in 500"
            )
        key = "shadow_s" if number[2] == "s" else "shadow_steps"
        options[key] = float(number[1]) if key == "shadow_s" else int(number[1])
    if contract is not None:
        if not contract.is_file():
            raise InputError(f"there is no file {contract}")
        options["contract"] = str(contract.resolve())
    return options


def _swap(
    found: Any, changes: list[Change], options: dict[str, Any], patience_s: float, json: bool
) -> None:
    from safetypilot.launch import attach, swapping
    from safetypilot.nodes.kernel.errors import RequestRefused

    ask = attach.asker(found.path)
    try:
        if len(changes) == 1:
            change = changes[0]
            arguments = {**change.at, **options}
            outcome = attach.swap(ask, change.node, change.path, patience_s, arguments)
        else:
            plant = found.graph["topics"]["observation"]["writer"]
            outcome = swapping.swap_set(ask, plant, changes, patience_s, options)
    except RequestRefused as error:
        if json:
            print_json({"state": "refused", "reason": str(error)})
        who = f"{changes[0].node} refused {Path(changes[0].path).name}"
        raise RequestRefused(
            f"{who}: {error}" if len(changes) == 1 else f"none of the set flies: {error}"
        ) from None
    if json:
        print_json(outcome)
        return
    each = outcome["nodes"] if "nodes" in outcome else {changes[0].name: outcome}
    for name, status in each.items():
        _tell(name, status)


def _tell(name: str, status: dict[str, Any]) -> None:
    typer.echo(
        f"{name} flies {status.get('version')}, before {status.get('previous') or 'nothing'}"
    )
    shadow = status.get("shadow")
    if shadow and shadow["steps"]:
        calls, live = shadow["call_us"], shadow["live_call_us"]
        typer.echo(
            f"  in {shadow['steps']} steps of shadow it differed by {shadow['difference_mean']:g} "
            f"(mean) and {shadow['difference_max']:g} (max); calls {calls['p50']:g} us (p50), the "
            f"live model's {live['p50']:g} us"
        )
    if status.get("recurrent"):
        typer.echo(f"  recurrent state: {status['recurrent']}")


def _show(slots: dict[str, dict[str, Any]], json: bool) -> None:
    """A table of slots, and below it what each has flown."""
    if json:
        print_json(slots)
        return
    from rich import box
    from rich.table import Table

    if not slots:
        typer.echo("no node has anything to say: no models, or nothing under way")
        return
    table = Table("node", "state", "flies", "before", "since", box=box.SIMPLE_HEAD)
    for name, slot in slots.items():
        since = slot.get("rolled_back_at", slot.get("promoted_at"))
        table.add_row(
            name, slot["state"], slot["live"] or "-", slot["before"] or "-",
            "-" if since is None else f"observation {since}",
        )  # fmt: skip
    screen = console()
    screen.print(table)
    for name, slot in slots.items():
        if slot.get("reason"):
            screen.print(f"{name}: {slot['state']}: {slot['reason']}", markup=False, soft_wrap=True)
        for entry in slot.get("history", ()):
            at = "at start" if entry["seq"] is None else f"at observation {entry['seq']}"
            screen.print(
                f"{name}: {entry['what'].replace('_', ' ')} {at}: {entry['version']} "
                f"sha256 {entry['sha256']} {entry['path']}",
                markup=False, soft_wrap=True,
            )  # fmt: skip
