"""Verbs for who writes a driver: `safetypilot bridge new` and `safetypilot bridge check`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safetypilot.launch.cli_common import InputError, Json, choose, console, print_json, print_line

if TYPE_CHECKING:
    from safetypilot.bridge.conformance.suite import Check, Outcome, Subject

_FULL_CYCLES = 1_000_000
_COLOURS = {"passed": "green", "failed": "red", "skipped": "yellow"}


def register(bridge_app: typer.Typer) -> None:
    """Adds the verbs to those of `safetypilot bridge`."""
    bridge_app.command(epilog="Example: safetypilot bridge new my_arm -o my_arm")(new)
    bridge_app.command(
        epilog="Example: safetypilot bridge check my_arm.py:MyArmDriver;  "
        "another device: safetypilot bridge check my_arm.py:MyArmDriver 'port={port}' "
        '--device "python my_arm_device.py --timeout 0.2"'
    )(check)


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the driver, such as my_arm.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Where the files go.")
    ] = Path(),
    json: Json = False,
) -> None:
    """Write a driver that works, with a simulated device and its tests, to make yours of."""
    from safetypilot.bridge import scaffold
    from safetypilot.bridge.contract import DriverError

    try:
        files = scaffold.write(name, output)
    except DriverError as error:
        raise InputError(str(error)) from None
    reference = f"{files[0]}:{scaffold.class_name(name)}Driver"
    if json:
        print_json({"files": [str(path) for path in files], "driver": reference})
        return
    for path in files:
        print_line(f"wrote {path}")
    print_line(f"next: safetypilot bridge check {reference}")


def check(
    driver: Annotated[
        str,
        typer.Argument(
            metavar="DRIVER", help="A driver's name, package.module:Class, or file.py:Class."
        ),
    ],
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Options of the driver; {name} stands for what the device says when it is ready.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(metavar="COMMAND", help="Starts a simulated device; else the driver's own."),
    ] = "",
    hardware: Annotated[
        bool,
        typer.Option("--hardware", help="Check a robot that may move and fall; start no device."),
    ] = False,
    calibration: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Calibration of the device.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full/--quick", help="A million cycles, a fault at every call.")
    ] = False,
    cycles: Annotated[int | None, typer.Option(min=1, help="Of the long run.")] = None,
    only: Annotated[str, typer.Option(metavar="A,B", help="Only these checks.")] = "",
    json: Json = False,
) -> None:
    """Ask of a driver what is asked of every driver, and print a report; exit code 1 if it fails.

    Each check is made on a simulated device, which the driver names or --device starts.
    """
    from safetypilot.bridge.conformance.bench import Subject
    from safetypilot.bridge.contract import DriverError

    if device and hardware:
        raise InputError("--device starts a simulated one, --hardware says that there is none")
    wanted = _wanted(only)
    try:
        subject = Subject(
            driver,
            _parsed(options or []),
            device=device,
            hardware=hardware,
            cycles=cycles or (_FULL_CYCLES if full else 2000),
            thorough=full,
            **_calibration(calibration),
        )
        outcomes = _run(subject, wanted, quiet=json or not sys.stderr.isatty())
    except DriverError as error:
        raise InputError(str(error)) from None
    _report(subject, outcomes, len(wanted) - len(outcomes), json)
    if any(outcome.verdict == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _wanted(only: str) -> list[Check]:
    from safetypilot.bridge.conformance import suite

    known = {suite.name(one): one for one in suite.CHECKS}
    names = [word for each in only.split(",") if (word := each.strip())]
    return [known[choose("check", name, known)] for name in names] or list(suite.CHECKS)


def _calibration(path: Path | None) -> dict[str, Any]:
    from safetypilot.bridge import calibration

    return {} if path is None else {"calibration": calibration.load(path)}


def _parsed(words: list[str]) -> dict[str, Any]:
    """Options by name; a value is YAML, or has a {name} to be filled in."""
    import yaml

    parsed = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InputError(f"{word}: an option is given as key=value")
        try:
            parsed[key] = value if re.search(r"\{\w+\}", value) else yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(f"{word}: the value is no YAML") from None
    return parsed


def _run(subject: Subject, wanted: list[Check], quiet: bool) -> list[Outcome]:
    from rich.console import Console

    from safetypilot.bridge.conformance import suite

    outcomes: list[Outcome] = []
    screen = Console(stderr=True, highlight=False, quiet=quiet)
    with suite.bench(subject) as bench:
        bench.prepare()
        with screen.status("") as status:
            for one in wanted:
                status.update(f"{len(outcomes) + 1}/{len(wanted)} {suite.title(one)}")
                outcomes.append(suite.run(one, bench))
                if one is suite.CONNECTS and outcomes[-1].verdict == "failed":
                    break
    return outcomes


def _report(subject: Subject, outcomes: list[Outcome], left_out: int, json: bool) -> None:
    counts = {name: 0 for name in _COLOURS}
    for outcome in outcomes:
        counts[outcome.verdict.value] += 1
    seconds = sum(outcome.seconds for outcome in outcomes)
    if json:
        checks = [outcome._asdict() for outcome in outcomes]
        totals = {**counts, "left_out": left_out, "seconds": seconds}
        print_json({"driver": subject.driver, **totals, "checks": checks})
        return
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table("check", "", "seen", "s", box=box.SIMPLE_HEAD)
    table.columns[3].justify = "right"
    for outcome in outcomes:
        again = "".join(f"; before, on a busy host: {seen}" for seen in outcome.earlier)
        verdict = outcome.verdict.value
        table.add_row(
            f"{escape(outcome.title)}\n[dim]{outcome.check}[/]",
            f"[{_COLOURS[verdict]}]{verdict}[/]",
            escape(outcome.seen + again),
            f"{outcome.seconds:.1f}",
        )
    screen = console()
    screen.print(table)
    whole = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    if left_out:
        whole += f", and {left_out} left out, since nothing is connected"
    print_line(f"{subject.driver}: {whole}, in {seconds:.1f} s")
