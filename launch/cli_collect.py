"""Verbs for offline data: collect, data info."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from time import monotonic
from typing import Annotated, Any

import typer

from safetypilot.launch.cli_common import InputError, Json, print_json, print_line

_EXAMPLES = "\n\n".join(
    f"Example: safetypilot collect {words}"
    for words in (
        "--env maze --policy expert --noise 0.3 --episodes 50 --out data/maze-expert-v0",
        "--env maze --mix random=0.5,expert=0.5 --size 5000 --out data/maze-mixed-v0",
        "--env navigation1 --policy recipe --out data/navigation1-recipe-v0",
        "--env Hopper-v5 --cost termination --size 5000 --out data/hopper-random-v0",
    )
)
_INFO = "Example: safetypilot data info data/maze-expert-v0"

Policy = Annotated[
    str | None,
    typer.Option(
        metavar="POLICY",
        help="random (if none is named), expert, an .onnx file; or recipe: the published data set, "
        "or demonstrations: of the task.",
    ),
]
Mix = Annotated[
    str | None,
    typer.Option(metavar="POLICY=SHARE,...", help="Several policies, by their shares of rows."),
]
Noise = Annotated[
    float, typer.Option(min=0.0, help="Added to actions: STD as a part of half the action box.")
]
Size = Annotated[int | None, typer.Option(min=1, help="Stop after so many rows; else 10000.")]


def register(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(collect)
    data = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    data.callback()(lambda: None)  # so that `info` stays a word of its own
    data.command(epilog=_INFO)(info)
    app.add_typer(data, name="data", help="Look at data sets.", epilog=_INFO)


def collect(
    env: Annotated[str, typer.Option(help="maze, another of ours, or any Gymnasium id.")],
    out: Annotated[Path, typer.Option(metavar="DATA", help="The data set's directory.")],
    policy: Policy = None,
    mix: Mix = None,
    noise: Noise = 0.0,
    episodes: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    size: Size = None,
    episode_steps: Annotated[
        int | None, typer.Option(min=1, help="Cut episodes after so many steps.")
    ] = None,
    cost: Annotated[
        str, typer.Option(help="What violates: info (info['cost']), termination or none.")
    ] = "info",
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is random.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a data set.")] = False,
    append: Annotated[bool, typer.Option("--append", help="Add to a data set.")] = False,
    json: Json = False,
) -> None:
    """Fly a policy in an environment and keep what happened as offline data, in Minari's layout.

    Ctrl-C ends it early and keeps all whole episodes; a second one drops everything.
    """
    from safetypilot.envs.dataset_collect import Plan
    from safetypilot.launch import collecting

    for one, other, both in (
        ("--policy", "--mix", policy and mix),
        ("--episodes", "--size", episodes and size),
        ("--force", "--append", force and append),
    ):
        if both:
            raise InputError(f"{one} and {other}: give one of the two")
    if not noise < float("inf"):
        raise InputError(f"--noise {noise}: a finite number is needed")
    rows = size if size or episodes else collecting.SIZE
    shares = collecting.parse_shares(mix) if mix else {policy or "random": 1.0}
    plan = Plan(rows, episodes, episode_steps, seed, noise)
    order = collecting.Order(env, out, shares, plan, cost, force, append)
    _carry_out(order, json)


def info(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A data set's directory.")],
    json: Json = False,
) -> None:
    """Read and check a data set, and say what is in it; exit code 2 if it is bad."""
    found = _describe(data)
    if json:
        print_json({"data": str(data), **found})
        return
    print_line(_text(data, found))
    for part in found["made"]:
        facts = [f"{key} {value}" for key, value in part.items() if value not in (None, "")]
        print_line(f"made with: {', '.join(facts)}")


def _carry_out(order: Any, json: bool) -> None:
    from safetypilot.launch import collecting

    started = monotonic()
    with _stoppable() as signal_number:
        try:
            with _progress(not json) as report:
                added = collecting.carry_out(order, report, lambda: signal_number() > 0)
        except KeyboardInterrupt:
            added = 0
        number = signal_number()
        if not added:
            typer.echo("stopped: no episode was whole, nothing was written", err=True)
            raise typer.Exit(128 + number)
        seconds = monotonic() - started
        found = _describe(order.out)  # read back and checked
    if json:
        print_json({"data": str(order.out), **found, "added": added, "interrupted": number > 0,
                    "wall_s": round(seconds, 3)})  # fmt: skip
    else:
        early = ", stopped early" if number else ""
        print_line(f"{_text(order.out, found)}\n{added} rows in {seconds:.1f} s{early}")
    if number:
        raise typer.Exit(128 + number)


def _describe(path: Path) -> dict[str, Any]:
    from safetypilot.envs import dataset

    try:
        return dataset.describe(path)
    except dataset.DatasetError as error:
        raise InputError(str(error)) from None


def _text(path: Path, found: dict[str, Any]) -> str:
    successes = "" if found["successes"] is None else f", {found['successes']} successes"
    return (
        f"{path}: {found['rows']} rows in {found['episodes']} episodes of "
        f"{found['env'] or 'an unnamed environment'}, {found['bytes'] / 1e6:.1f} MB\n"
        f"{found['violations']} violations{successes}, mean return {found['return_mean']:.4g}, "
        f"{found['steps_mean']:.1f} steps per episode; observations of "
        f"{found['observation_size']} values, actions of {found['action_size']}"
    )


@contextmanager
def _progress(wanted: bool) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("collecting"), BarColumn(), MofNCompleteColumn(),
               TextColumn("{task.description}"), TimeRemainingColumn())  # fmt: skip
    shown = wanted and sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, unit: bar.update(
            task, completed=done, total=total, description=unit
        )


@contextmanager
def _stoppable() -> Iterator[Callable[[], int]]:
    """Gives a question: the signal by which a person stopped it, or 0; a second one interrupts."""
    came: list[int] = []

    def handler(number: int, _: Any) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    if current_thread() is not main_thread():
        yield lambda: 0
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: came[0] if came else 0
    finally:
        for number, old in before.items():
            signal.signal(number, old)
