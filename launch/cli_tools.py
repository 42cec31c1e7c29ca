"""Verbs beside the graph: train, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safetypilot.launch.cli_common import InputError, Json, choose, print_json

_ALGORITHMS = ("recovery-rl",)


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: safetypilot train recovery-rl --env maze --seed 0")(train)
    app.command(epilog="Example: safetypilot doctor")(doctor)


def train(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The algorithm: recovery-rl.")],
    env: Annotated[str, typer.Option(help="maze, navigation1, navigation2 or a Gymnasium id.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is random.")] = 0,
    episodes: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where results go; else runs/NAME-TIME.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Go on with an interrupted training.")
    ] = None,
    json: Json = False,
) -> None:
    """Train a policy with its critic and recovery, behind the shield; exports ONNX models."""
    from importlib.util import find_spec

    choose("algorithm", name, _ALGORITHMS)
    if find_spec("torch") is None:
        raise InputError("training needs torch: pip install 'safetypilot[train]'")
    if find_spec("safetypilot.policies.learn.train") is None:
        raise InputError("this version of safetypilot cannot train yet")
    raise InputError(
        f"not wired yet: {env} {settings} {seed} {episodes} {steps} {out} {resume} {json}"
    )


def doctor(
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to measure the timer.")] = 1.0,
    json: Json = False,
) -> None:
    """Look at what this machine offers: CPUs, privileges, timer, versions; exit code 1 if bad."""
    from safetypilot.launch.doctor import examine

    findings = examine(seconds)
    if json:
        print_json({finding.name: finding._asdict() for finding in findings})
    else:
        from rich.console import Console

        console = Console(highlight=False)
        marks = {"ok": "[green]ok  [/]", "note": "[yellow]note[/]", "bad": "[red]bad [/]"}
        for finding in findings:
            value = "missing" if finding.value is None else finding.value
            if isinstance(value, dict):
                value = ", ".join(f"{key} {number}" for key, number in value.items())
            advice = f" - {finding.advice}" if finding.advice else ""
            console.print(f"{marks[finding.level]} {finding.name}: {value}{advice}", soft_wrap=True)
    if any(finding.level == "bad" for finding in findings):
        raise typer.Exit(1)
