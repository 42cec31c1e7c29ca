"""Verbs that look at what trainings left behind: plot, table, evaluate."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from safetypilot.launch.cli_common import InputError, Json, print_json, print_line

Runs = Annotated[
    list[Path] | None,
    typer.Argument(metavar="RUNS", help="Directories, searched for training runs."),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME=DIR", help="Runs below DIR under this name; repeatable."),
]
Episodes = Annotated[int | None, typer.Option(min=1, help="Only the first so many.")]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Written as FILE.png and FILE.svg.")]
Title = Annotated[str, typer.Option(help="Above the figure.")]
Separate = Annotated[
    bool, typer.Option("--separate", help="A figure per environment, FILE-ENV; else a panel each.")
]

plots = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="Draw what trainings wrote, as PNG and SVG: curves with standard errors, maps of Q_risk.",
    epilog="Example: safetypilot plot ratio runs/maze runs/navigation1 --out plots/ratio",
)


# kind -> what it shows, and the arguments of an example
_CURVES = {
    "ratio": (
        "(successes + 1) / (violations + 1) over the episodes, mean and standard error over seeds.",
        "runs/maze --label 'no relabelling=runs/ablation'",
    ),
    "success": ("Successes so far, over the episodes.", "runs/maze --episodes 300"),
    "violation": ("Violations so far, over the episodes.", "runs --separate --out plots/violation"),
    "reward": ("Mean return of the violation-free among the last 100 episodes.", "runs/maze"),
    "pr": ("Final successes over final violations, with standard errors.", "runs --out plots/pr"),
}


def register(app: typer.Typer) -> None:
    for kind, (what, example) in _CURVES.items():
        epilog = f"Example: safetypilot plot {kind} {example}"
        plots.command(kind, help=what, epilog=epilog)(_drawing(kind))
    plots.command(
        epilog="Example: safetypilot plot risk runs/maze --actions 'east rest 0.05,-0.1'"
    )(risk)
    app.add_typer(plots, name="plot")
    app.command(epilog="Example: safetypilot table runs --json results.json")(table)
    app.command(epilog="Example: safetypilot evaluate runs/maze --episodes 50 --video maze.mp4")(
        evaluate
    )


def _drawing(kind: str) -> Callable[..., None]:
    def draw(
        runs: Runs = None,
        out: Out = None,
        label: Labels = None,
        episodes: Episodes = None,
        title: Title = "",
        separate: Separate = False,
    ) -> None:
        groups, notes = _groups(runs, label, episodes)
        _say(notes, _curves(kind, groups, out, title, separate))

    return draw


def risk(
    source: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's directory, or a critic's .onnx file.")
    ],
    env: Annotated[str | None, typer.Option(help="The task, if the critic does not say.")] = None,
    actions: Annotated[
        str, typer.Option(help="Words (east west north south rest) or numbers (0.1,0).")
    ] = "east west north south",
    eps: Annotated[float | None, typer.Option(min=0, max=1, help="Else the run's own.")] = None,
    out: Out = None,
    title: Title = "",
) -> None:
    """Heat map of Q_risk over the plane for fixed actions, with its threshold and the walls."""
    from dataclasses import replace

    from safetypilot.launch import risk_map

    subject = risk_map.find(source, env)
    if eps is not None:
        subject = replace(subject, eps=eps)
    chosen = risk_map.actions(actions, subject.model)
    _say([], risk_map.draw(subject, chosen, out or Path("plots") / f"risk-{subject.env}", title))


def table(
    runs: Runs = None,
    label: Labels = None,
    episodes: Episodes = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all figures as JSON as well.")
    ] = None,
) -> None:
    """Print a Markdown table of final figures: environment, algorithm, mean and standard error."""
    from safetypilot.launch import result_table

    groups, notes = _groups(runs, label, episodes)
    if json is not None:
        result_table.write_json(json, groups, notes)
    print_line(result_table.markdown(groups))
    _say(notes, [])


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a training run.")],
    episodes: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of the starts and the planner.")] = 0,
    policy: Annotated[str, typer.Option(help="trained or novice.")] = "trained",
    no_shield: Annotated[
        bool, typer.Option("--no-shield", help="The task policy flies alone.")
    ] = False,
    video: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Film it: a .mp4 or .gif file.")
    ] = None,
    film: Annotated[int, typer.Option(min=1, help="Film the first so many episodes.")] = 5,
    json: Json = False,
) -> None:
    """Fly a run's models deterministically behind their shield, and count.

    The video shows who is in control: the border's colour and the word in it, over a bar of risk.
    """
    from safetypilot.launch import evaluation, trained

    request = evaluation.Request(policy, episodes, seed, not no_shield, video, film)
    flight = evaluation.prepare(trained.find(run), request)
    _say(flight.notes, [])
    with _progress(episodes) as on_step:
        figures = evaluation.fly(flight, on_step)
    if json:
        print_json(figures)
        return
    print_line(_sentence(figures))
    if video is not None:
        print_line(f"wrote {video}")


@contextmanager
def _progress(episodes: int) -> Iterator[Callable[[Any], None] | None]:
    """A bar on a terminal, which goes when the flight is over; else nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("episodes", total=episodes)
        yield lambda record: progress.update(bar, completed=record.episode)


def _sentence(figures: dict[str, Any]) -> str:
    shield = f"shield on (eps {figures['eps']:g})" if figures["shield"] else "shield off"
    share = 100 * figures["interventions"] / max(figures["steps"], 1)
    return (
        f"{figures['env']}, {figures['policy']} policy, {shield}: episodes {figures['episodes']}, "
        f"successes {figures['successes']}, violations {figures['violations']}, "
        f"ratio {figures['ratio']:.3g}, mean return {figures['return_mean']:.4g}; "
        f"steps {figures['steps']}, {share:.1f} % of them shielded, {figures['wall_s']:.1f} s"
    )


def _curves(
    kind: str, groups: list[Any], out: Path | None, title: str, separate: bool
) -> list[Path]:
    from safetypilot.launch import curve_plots

    envs = list(dict.fromkeys(group.env for group in groups))
    alone = len(envs) == 1 and not separate
    target = out or Path("plots") / (f"{kind}-{_file(envs[0])}" if alone else kind)
    if not separate:
        return curve_plots.draw(kind, groups, target, title)
    stem = curve_plots.outputs(target)[0].with_suffix("")
    files = []
    for env in envs:
        members = [group for group in groups if group.env == env]
        place = stem.with_name(f"{stem.name}-{_file(env)}")
        files += curve_plots.draw(kind, members, place, title)
    return files


def _file(env: str) -> str:
    """An environment's name as part of a file's."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in env)


def _groups(
    runs: list[Path] | None, labels: list[str] | None, episodes: int | None
) -> tuple[list[Any], list[str]]:
    from safetypilot.launch import curve_groups, curves

    labelled = []
    for word in labels or []:
        name, equals, directory = word.partition("=")
        if not equals or not name.strip() or not directory:
            raise InputError(f"--label {word}: a label is given as NAME=DIR")
        labelled.append((name.strip(), Path(directory)))
    if not runs and not labelled:
        raise InputError("no runs are named; give their directories, or --label NAME=DIR")
    found = curves.find(runs or [], labelled)
    groups, notes = curve_groups.group(found.runs, episodes)
    return groups, found.notes + notes


def _say(notes: list[str], files: list[Path]) -> None:
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    for path in files:
        print_line(f"wrote {path}")
