"""The verbs of `safetypilot bridge`: the robot behind a running graph, and drivers alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safetypilot.launch import cli_bridge_kit as kit
from safetypilot.launch.cli_common import (
    InputError,
    Json,
    RunName,
    choose,
    console,
    print_json,
    print_line,
)

if TYPE_CHECKING:
    from safetypilot.launch.runtime_dir import Running

Reason = Annotated[str, typer.Option("--reason", help="Why; it is told and kept.")]


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(
        no_args_is_help=True,
        help="The robot behind a running graph: arm it, stop it, look at it; and drivers.",
        epilog="Example: safetypilot bridge status",
    )
    verbs.command(epilog="Example: safetypilot bridge status --json")(status)
    verbs.command(epilog="Example: safetypilot bridge preflight")(preflight)
    verbs.command(epilog='Example: safetypilot bridge configure --reason "cable back in"')(
        configure
    )
    verbs.command(epilog="Example: safetypilot bridge activate --yes")(activate)
    verbs.command(epilog="Example: safetypilot bridge deactivate")(deactivate)
    verbs.command(epilog='Example: safetypilot bridge estop --reason "smoke"')(estop)
    verbs.command(epilog='Example: safetypilot bridge reset --reason "it was toast"')(reset)
    verbs.command(epilog="Example: safetypilot bridge operator")(operator)
    verbs.command(
        epilog="Example: safetypilot bridge device quadruped --events robot.jsonl",
        context_settings={
            "allow_extra_args": True,
            "ignore_unknown_options": True,
            "help_option_names": [],
        },
    )(device)
    verbs.command(
        epilog="Example: safetypilot bridge export-recording runs/mine/recording.mcap -o robot.npz"
    )(export_recording)
    kit.register(verbs)
    app.add_typer(verbs, name="bridge")


def device(
    name: Annotated[str, typer.Argument(help="mujoco, quadruped, dynamixel or ros2.")],
    context: typer.Context,
) -> None:
    """Start a simulated device, in this terminal; after its name, -h shows its own options."""
    names = ("mujoco", "quadruped", "dynamixel", "ros2")
    if name in ("-h", "--help"):
        print_line(context.get_help())
        return
    module = f"safetypilot.bridge.devices.{choose('simulated device', name, names)}"
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *context.args])


def export_recording(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Of one run, in order.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A .npz file.")],
    launch: Annotated[
        Path | None, typer.Option(help="The run's launch.json; else the one beside the first.")
    ] = None,
) -> None:
    """Take the robot out of a recorded run, to be played back by driver=recording."""
    from safetypilot.launch import robot_recording

    try:
        made = robot_recording.export(files, output, launch)
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}") from None
    told = f"{made.rows} states of {made.robot}, {made.joints} joints, {made.duration_s:.1f} s"
    print_line(f"{output}: {told}")


def _find(run: str | None) -> tuple[Running, str]:
    """The run with a bridge, and the bridge's name in it."""
    from safetypilot.launch import runtime_dir
    from safetypilot.launch.plan import BRIDGE

    runs = [runtime_dir.find(run)] if run else runtime_dir.running()
    found = [
        (one, name)
        for one in runs
        for name, node in one.graph["nodes"].items()
        if node["node"] == BRIDGE
    ]
    if not found:
        which = f"run {run!r} has" if run else "no running graph has"
        raise InputError(f"{which} a bridge; start one with: safetypilot launch maze plant=bridge")
    if len(found) > 1:
        names = ", ".join(one.run_id for one, _ in found)
        raise InputError(f"several runs have a bridge: {names}; say which with --run")
    return found[0]


def _ask(run: str | None, request: str, reason: str = "", timeout_s: float = 30.0) -> Any:
    from safetypilot.launch.attach import asker

    found, name = _find(run)
    return asker(found.path, timeout_s)(name, request, {"reason": reason})


def _do(run: str | None, request: str, reason: str, json: bool) -> None:
    answer = _ask(run, request, reason)
    print_json(answer) if json else _tell(answer["state"])


_UNGUARDED = "IT HAS NONE: IF THE BRIDGE DIES, THE ROBOT GOES ON WITH ITS LAST COMMAND"
_RESET = "safetypilot bridge reset --reason WHY"
_CONFIGURE = "safetypilot bridge configure"
_NEXT = {  # what leads on from a state
    "fault": _RESET, "e-stopped": _RESET, "disconnected": _CONFIGURE, "connected": _CONFIGURE,
    "configured": "safetypilot bridge activate",
}  # fmt: skip


def _tell(state: str, cause: str = "") -> None:
    """A state in words, why it is so, and what leads on."""
    since = f": {cause}" if cause else ""
    print_line(f"the robot is {'stopped by a fault' if state == 'fault' else state}{since}")
    if state in _NEXT:
        print_line(f"next: {_NEXT[state]}")


def status(run: RunName = None, json: Json = False) -> None:
    """Show the robot's state, what was cut and refused, and what the device complains of."""
    node = _ask(run, "status")["node"]
    if json:
        print_json(node)
        return
    _tell(node["bridge"], node["cause"])
    device = ", ".join(f"{k} {v}" for k, v in node["identity"].items())
    facts = {
        "device": device or "not connected",
        "steps": node["steps"],
        "missed deadlines": node["missed_deadlines"],
        "refused commands": _listed(node["refused"]),
        "cut commands": _listed(node["cuts"]),
        "level": node["level"],
        "commands not sent in time": node["too_late"],
        "on the way to the device": _listed(node["device"]),
    }
    for name, value in facts.items():
        print_line(f"  {name:<26}{value}")


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def preflight(run: RunName = None, json: Json = False) -> None:
    """Show what to read before arming: device, limits, watchdogs, and what was tested."""
    report = _ask(run, "preflight")
    print_json(report) if json else _print_preflight(report)


def _print_preflight(report: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    device = ", ".join(f"{name} {value}" for name, value in report["identity"].items())
    own, missing = report["watchdog_s"], report["heartbeat_missing"]
    lines = {
        "driver": report["driver"],
        "device": device or "NOT CONNECTED",
        "calibration": report["calibration"] or "none, and none is asked for",
        "stops by": ", ".join(report["failsafes"]),
        "bridge's time-out": f"{report['command_timeout_s']:g} s without a command",
        "device's watchdog": f"{own:g} s" if own else _UNGUARDED,
        "heartbeats": f"{missing}'s IS MISSING".upper() if missing else "heard, or not asked for",
        "graph": "commands" if report["commands"] else "SILENT",
    }
    screen = console()
    for name, value in lines.items():
        screen.print(f"{name:<20}{value}")
    for name, value in report["tested"].items():
        screen.print(f"{'tested':<20}{name}: {value}")
    table = Table("joint", "now", "from", "to", "velocity", "effort", box=box.SIMPLE_HEAD)
    now = report["position"] or [None] * len(report["joints"])
    for joint, at in zip(report["joints"], now, strict=True):
        numbers = (at, *(joint[key] for key in ("low", "high", "velocity", "effort")))
        cells = ["none" if n is None else f"{n:.4g}" for n in numbers]
        table.add_row(f"{joint['name']} ({joint['unit']})", *cells)
    screen.print(table)
    _tell(report["state"])


def configure(reason: Reason = "", run: RunName = None, json: Json = False) -> None:
    """Connect to the device and prepare it, with its self-tests; moves nothing."""
    _do(run, "configure", reason, json)


def activate(
    reason: Reason = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    run: RunName = None,
    json: Json = False,
) -> None:
    """Arm the robot: from now on the graph moves it. Shows the preflight report and asks first."""
    if not yes:
        if not sys.stdin.isatty():
            raise InputError("nobody can be asked here; --yes arms without asking")
        _print_preflight(_ask(run, "preflight"))
        typer.confirm("Arm it?", abort=True)
    _do(run, "arm", reason, json)


def deactivate(reason: Reason = "", run: RunName = None, json: Json = False) -> None:
    """Take the robot down gently; it holds or damps, and drops nothing."""
    _do(run, "disarm", reason, json)


def estop(reason: Reason = "", run: RunName = None, json: Json = False) -> None:
    """Stop the robot now, by a line of its own that needs no graph; it stays so until `reset`."""
    from safetypilot.bridge.estop import SOCKET, STOP, send
    from safetypilot.launch.attach import asker
    from safetypilot.nodes.kernel.errors import KernelError

    found, name = _find(run)
    took = []
    try:
        send(found.path / SOCKET, STOP, reason)
        took.append("its own line")
    except OSError as error:
        typer.echo(f"its own line is dead: {error.strerror}", err=True)
    try:
        asker(found.path, 2.0)(name, "estop", {"reason": reason})
        took.append("the graph's")
    except KernelError as error:
        typer.echo(f"the graph's line: {error}", err=True)
    if json:
        print_json({"run": found.run_id, "by": took})
    elif took:
        print_line(f"{found.run_id} e-stopped by {' and '.join(took)}")
    if not took:
        raise typer.Exit(1)


def reset(
    reason: Annotated[str, typer.Option("--reason", help="Who looked, and what was wrong.")],
    run: RunName = None,
    json: Json = False,
) -> None:
    """Release a fault or an e-stop, if the device is healthy; then configure and activate anew."""
    _do(run, "reset", reason, json)


def operator(run: RunName = None) -> None:
    """Be the operator: send the heartbeat; space stops, a arms, d takes down, q leaves.

    Where the launch file asks for a heartbeat, leaving or losing this terminal stops the robot.
    """
    from safetypilot.launch.operator import Console

    found, name = _find(run)
    raise typer.Exit(Console(found.path, name).run())
