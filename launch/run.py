"""Carries out a plan, on either clock; leaves summary and picture in the directory of the run."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from errno import EEXIST
from pathlib import Path
from typing import Any

from safetypilot.launch import report
from safetypilot.launch.plan import Plan
from safetypilot.launch.progress import Run
from safetypilot.launch.runtime_dir import RuntimeDirError, write_json

LAUNCH, PICTURE = "launch.json", "trajectories.png"


def prepare(plan: Plan, out: Path | None) -> Run:
    """Makes the run's directory: `out`, else `runs/<name>-<time>`.

    Raises:
        FileExistsError: `out` holds a run already, which another would mix with.
        OSError: it cannot be made.
    """
    return Run(plan, _directory(plan.name, out).resolve())


def _directory(name: str, out: Path | None) -> Path:
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        if (out / LAUNCH).exists():
            raise FileExistsError(EEXIST, "holds a run already; choose another", str(out))
        return out
    stem = Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in range(1000):
        folder = stem if not number else stem.with_name(f"{stem.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{stem}-* are all taken")


def carry_out(
    run: Run,
    in_process: bool = False,
    show: Callable[[Run], None] = lambda run: None,
    launch_json: dict[str, Any] | None = None,
    command: list[str] | None = None,
) -> dict[str, Any]:
    """Runs the plan to its end and writes what it leaves behind, also when it fails.

    Args:
        show: called in every turn; draws the run if it is time to.
        launch_json: the resolved launch file, to be kept beside the results.
        command: what the person typed, for the summary.

    Returns:
        The summary; `exit_code` in it is what the command line should exit with.

    Raises:
        RuntimeDirError: there is no place for the run's sockets.
    """
    plan = run.plan
    write_json(run.run_dir / LAUNCH, launch_json if launch_json is not None else asdict(plan))
    try:
        if plan.clock == "lockstep":
            from safetypilot.launch.stepwise import Stepwise

            Stepwise(run, in_process, show).run()
        else:
            from safetypilot.launch.supervisor import Supervisor

            Supervisor(run, show).run()
    except RuntimeDirError:
        raise
    except Exception as error:  # noqa: BLE001  a fault of ours must still leave a summary behind
        run.failure = run.failure or f"{type(error).__name__}: {error}"
        log = run.run_dir / "logs" / "supervisor.log"
        log.parent.mkdir(exist_ok=True)
        log.write_text(traceback.format_exc())
    summary = report.finite(report.summarise(run, command))
    report.write(run, summary)
    return dict(summary)


def picture(run: Run) -> Path | None:
    """Draws the trajectories; None if there are none to draw."""
    from safetypilot.launch.picture import draw

    path = run.run_dir / PICTURE
    title = f"{run.plan.name}, seed {run.plan.seed}: who was in control"
    return path if draw(path, run.tally.phases, run.plan.env, title) else None
