"""Verbs beside the graph: train, doctor."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from safetypilot.launch.cli_common import InputError, Json, choose, print_json


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: safetypilot train recovery-rl --env maze --seed 0")(train)
    app.command(epilog="Example: safetypilot doctor")(doctor)


def train(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The algorithm; see below.")],
    env: Annotated[str, typer.Option(help="Short name of an environment, or a Gymnasium id.")] = (
        "maze"
    ),
    preset: Annotated[
        str, typer.Option(help="default, or published: as the original's code was.")
    ] = "default",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is random.")] = 0,
    seeds: Annotated[
        str, typer.Option(metavar="LIST", help="Several side by side as one batch: 0-4 or 0,2,5.")
    ] = "",
    episodes: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    cost: Annotated[
        str,
        typer.Option(help="What violates: info (info['cost'], the default), termination or none."),
    ] = "",
    device: Annotated[str, typer.Option(help="Where networks learn: cpu or cuda.")] = "cpu",
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA", help="A data set of `safetypilot collect`; {seed} is filled in."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where results go; else runs/NAME-TIME.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Go on with an interrupted training.")
    ] = None,
    json: Json = False,
) -> None:
    """Train a policy with its critic and recovery, behind the shield; exports ONNX models.

    The first Ctrl-C stops with a checkpoint for --resume.

    NAME: sac, recovery-rl, recovery-rl-model-free, recovery-rl-visual, recovery-rl-q-sampling, lr,
    rspo, sqrl, rp, rcpo, csc, safety-editor.
    """
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise InputError("training needs torch: pip install -e '.[train]' in the checkout")
    from rich.console import Console

    from safetypilot.models.errors import ModelError
    from safetypilot.policies.learn import trainer
    from safetypilot.policies.learn.seeds import seeds_of

    choose("algorithm", name, [*trainer.ALGORITHMS, *trainer.ALIASES])
    console = Console(stderr=True, highlight=False)
    wanted = trainer.Request(
        algorithm=name,
        env=env,
        seeds=tuple(seeds_of(seeds)) if seeds else (seed,),
        preset=preset,
        settings=_parsed(settings or []) | ({"cost": cost} if cost else {}),
        episodes=episodes,
        steps=steps,
        device=device,
        data=str(data or ""),
        given=_given(context),
    )
    directory = _directory(name, env, seeds or str(seed), out, resume)
    if resume is None and any((directory / kept).exists() for kept in _KEPT):
        raise InputError(
            f"{directory} holds a training already; go on with it by --resume {directory}, or "
            "choose another --out"
        )
    try:
        summaries = trainer.train(
            wanted,
            directory,
            resume=resume,
            progress=not json,
            console=console,
        )
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}") from None
    except ModelError as error:  # learned all the same: the checkpoint is whole
        hint = f"go on from the checkpoint: --resume {directory}"
        console.print(f"error: {error}; {hint}", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    if json:
        print_json(summaries[0] if len(summaries) == 1 else {"runs": summaries})
    else:
        for summary in summaries:
            console.print(f"seed {summary['seed']}: {summary['episodes']} episodes, "
                          f"{summary['successes']} successes, "
                          f"{summary['violations']} violations")  # fmt: skip
    if any(summary.get("interrupted") for summary in summaries):
        raise typer.Exit(130)


_KEPT = ("checkpoint.pt", "summary.json")  # of a training, which another must not overwrite


def _directory(name: str, env: str, seed: str, out: Path | None, resume: Path | None) -> Path:
    """Where results go; a resumed training goes on where it was."""
    if out is not None:
        return out
    if resume is not None:
        return resume if resume.is_dir() else resume.parent
    return Path("runs") / f"{name}-{env.rpartition('/')[2]}-{seed}-{datetime.now():%Y%m%d-%H%M%S}"


def _given(context: typer.Context) -> frozenset[str]:
    """What of a training's identity is on the command line, in the words of a request."""
    words = {"env": "env", "preset": "preset", "seed": "seeds", "seeds": "seeds", "data": "data"}
    sources = {word: context.get_parameter_source(word) for word in words}
    return frozenset(
        words[word] for word, its in sources.items() if its and its.name == "COMMANDLINE"
    )


def _parsed(settings: list[str]) -> dict[str, str]:
    parsed = {}
    for word in settings:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InputError(f"--set {word}: a setting is given as key=value")
        parsed[key] = value
    return parsed


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
        from rich.markup import escape

        console = Console(highlight=False)
        marks = {"ok": "[green]ok  [/]", "note": "[yellow]note[/]", "bad": "[red]bad [/]"}
        for finding in findings:
            value = "missing" if finding.value is None else finding.value
            if isinstance(value, dict):
                value = ", ".join(f"{key} {number}" for key, number in value.items())
            advice = escape(f" - {finding.advice}") if finding.advice else ""
            console.print(f"{marks[finding.level]} {finding.name}: {value}{advice}", soft_wrap=True)
    if any(finding.level == "bad" for finding in findings):
        raise typer.Exit(1)
