"""Runs a training from the command to the files that fly: log, checkpoints, resume, summary."""

from __future__ import annotations

import json
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from safetypilot.policies.learn import checkpoint, evaluation, manifest
from safetypilot.policies.learn.catalogue import ALGORITHMS, ALIASES
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.logbook import Display, Logbook
from safetypilot.policies.learn.run import Request, Run, prepare, state, summary
from safetypilot.policies.learn.world import World

__all__ = ["ALGORITHMS", "ALIASES", "CHECKPOINT", "Request", "train"]

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.pt"  # beside the ONNX files: where a learner in a running graph goes on from

_REPORT_EVERY = 100


def train(
    request: Request,
    out: Path | str = "runs/train",
    *,
    resume: Path | str | None = None,
    progress: bool = False,
    console: Any = None,
    world: World | None = None,
) -> list[dict[str, Any]]:
    """Train, and leave ONNX files that can fly in `OUT/models/`, or `OUT/seed-N/models/`.

    The first Ctrl-C ends the run with a checkpoint; the second kills.

    Args:
        request: what to train.
        out: directory of the run.
        resume: a checkpoint, or the directory of a run; its own settings go on, except for
            `episodes`, `steps` and `settings` given now.
        progress: show a progress bar.
        console: the rich console to show it on.
        world: where environments come from; None for the installed ones.

    Returns:
        What is written to each seed's `summary.json`.

    Raises:
        LearnError: wrong input, or training has diverged.
    """
    saved = _load(resume) if resume is not None else None
    run = prepare(request, Path(out), world or World.installed(), saved)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these networks are too small to share
    try:
        with Display(progress, console) as display, _interruptible() as interrupted:
            return _train(run, saved is not None, display, interrupted)
    finally:
        torch.set_num_threads(threads)
        run.close()


def _train(
    run: Run, resumed: bool, display: Display, interrupted: threading.Event
) -> list[dict[str, Any]]:
    began, earlier_s = time.monotonic(), run.wall_s
    tracks = run.episodes.tracks

    def save() -> None:
        run.wall_s = earlier_s + time.monotonic() - began
        checkpoint.save(run.out / CHECKPOINT, state(run))

    with ExitStack() as stack:
        logbooks = [
            Logbook(run.directory(index), track.steps if resumed else None)
            for index, track in enumerate(tracks)
        ]
        for logbook in logbooks:
            stack.callback(logbook.close)
        if not resumed:
            _learn_offline(run, logbooks, display)
            for index in range(len(tracks)):
                run.learner.algorithm.start_episode(index, 1)
            save()
        for index in _active(run):
            run.tallies[index].finished = False  # of a finished run that was given more episodes
        while active := _active(run):
            if interrupted.is_set():
                break
            ended = _step(run, active)
            for index in ended:
                _end_episode(run, index, logbooks[index])
            if ended:
                done = sum(tally.episodes for tally in run.tallies)
                total = run.config.episodes * len(run.tallies)
                display.report("training", done, total, run.note)
                for index in sorted({*ended} - {*_active(run)}):
                    run.wall_s = earlier_s + time.monotonic() - began
                    _finish(run, index, interrupted=False)
                # after that: a resumed run must not finish anybody later, with what came since
                if done % (run.config.checkpoint_every * len(tracks)) < len(ended):
                    save()
        save()
        return _summaries(run)


def _step(run: Run, active: Sequence[int]) -> list[int]:
    try:
        return run.episodes.step(active)
    except LearnError as error:
        track = run.episodes.tracks[active[0]]
        raise LearnError(
            f"episode {track.number}, step {track.steps}: {error} "
            f"(last good checkpoint: {run.out / CHECKPOINT})"
        ) from error


def _learn_offline(run: Run, logbooks: Sequence[Logbook], display: Display) -> None:
    """Train Q_risk, the recovery policy and the dynamics on offline transitions."""
    config, learner, request = run.config, run.learner, run.request
    wanted = learner.algorithm.uses_risk or config.task_demos > 0
    if not (wanted and config.offline and config.offline_size):
        return
    for index, seed in enumerate(request.seeds):
        display.report("collecting offline data", index, len(request.seeds))
        path = request.data.replace("{seed}", str(seed))
        data = run.world.collect(request.env, config.offline_size, seed, path)
        learner.load_offline(data, index)
        if config.demo_size:
            demos = run.world.demonstrations(request.env, config.demo_size, seed)
            learner.load_demos(demos, index)
    display.report("collecting offline data", len(request.seeds), len(request.seeds))
    metrics: dict[str, float] = {}
    if learner.visual is not None:
        what, total = "learning latents offline", config.latent_steps
        found = learner.visual.fit(learner.risk, lambda step, _: display.report(what, step, total))
        metrics |= learner.finite(found)
    for update in range(config.offline_updates if learner.risk_ready else 0):
        latest = learner.update_risk()
        if update % _REPORT_EVERY == 0 or update == config.offline_updates - 1:
            metrics |= learner.finite(latest)
            display.report("learning risk offline", update + 1, config.offline_updates)
    for _ in range(config.task_offline_updates if learner.demos.size else 0):
        metrics |= learner.finite(learner.update_task())
    for index, logbook in enumerate(logbooks):
        if config.recovery == "model-based":
            display.report("learning dynamics offline", index, len(logbooks))
            metrics |= learner.fit_dynamics(config.dynamics_epochs, index)
            display.report("learning dynamics offline", index + 1, len(logbooks))
        logbook.write(0, {f"offline/{name}": value for name, value in metrics.items()})


def _end_episode(run: Run, index: int, logbook: Logbook) -> None:
    """Count, log, refit, evaluate, and begin the next."""
    config, learner, tally = run.config, run.learner, run.tallies[index]
    track = run.episodes.tracks[index]
    episode = track.finished()
    tally.count(episode)
    number = tally.episodes
    metrics = dict(run.episodes.metrics)
    if (
        config.recovery == "model-based"
        and config.online
        and config.dynamics_online_epochs
        and number % config.dynamics_update_episodes == 0
    ):
        metrics |= learner.fit_dynamics(config.dynamics_online_epochs, index)
    values = {"episode": float(number), **episode.figures(), **metrics}
    values["run/successes"] = tally.successes
    values["run/violations"] = tally.violations
    values["run/ratio"] = tally.ratio
    if config.evaluate_episodes and number % config.evaluate_every == 0:
        with tempfile.TemporaryDirectory(prefix="safetypilot-") as scratch:
            files = learner.export(scratch, index=index)
            figures = _evaluate(run, index, files, config.evaluate_episodes)
        values |= {f"evaluation/{name}": value for name, value in figures.items()}
    logbook.write(track.steps, values)
    if number == config.novice_episodes:
        path = run.models(index) / "novice.onnx"
        learner.export_policy(path, _version(run, index, "novice"), _about(run, index), index)
    track.start(number + 1)
    learner.algorithm.start_episode(index, number + 1)


def _evaluate(
    run: Run, index: int, files: dict[str, Path], episodes: int, shielded: bool | None = None
) -> dict[str, float]:
    return evaluation.evaluate(
        run.evaluation_env,
        files,
        run.config,
        run.interface,
        episodes=episodes,
        seed=run.request.seeds[index],
        shielded=_shielded(run) if shielded is None else shielded,
    )


def _shielded(run: Run) -> bool:
    return run.episodes.tracks[0].pilot.recovery is not None


def _active(run: Run) -> list[int]:
    """Seeds that have episodes and steps left."""
    config = run.config
    return [
        index
        for index, (tally, track) in enumerate(zip(run.tallies, run.episodes.tracks, strict=True))
        if tally.episodes < config.episodes and not 0 < config.steps <= track.steps
    ]


def _version(run: Run, index: int, what: str) -> str:
    return f"{run.request.env}-seed{run.request.seeds[index]}-{what}"


def _about(run: Run, index: int) -> dict[str, Any]:
    request = run.request
    seed = request.seeds[index]
    return {
        "command": manifest.command(request.algorithm, request.env, seed),
        "commit": run.commit,
        "algorithm": request.algorithm,
        "env": request.env,
        "seed": seed,
        "episodes": run.tallies[index].episodes,
    }


def _finish(run: Run, index: int, interrupted: bool) -> dict[str, Any]:
    """Export one seed's models and write its summary."""
    learner, directory = run.learner, run.models(index)
    files = learner.export(directory, _version(run, index, "trained"), _about(run, index), index)
    learner.save_weights(directory / WEIGHTS, index)
    figures = summary(run, index, interrupted)
    if not interrupted and run.config.final_episodes:
        figures["evaluation"] = _final_figures(run, index, files)
    _write_json(run.directory(index) / "summary.json", figures)
    manifest.write(directory, figures, run.commit)
    run.tallies[index].finished = True
    return figures


def _summaries(run: Run) -> list[dict[str, Any]]:
    """Of all seeds; those that were interrupted are finished as they are."""
    for index, tally in enumerate(run.tallies):
        if not tally.finished:
            _finish(run, index, interrupted=index in _active(run))
    found = [
        json.loads((run.directory(index) / "summary.json").read_text(encoding="utf-8"))
        for index in range(len(run.tallies))
    ]
    if len(found) > 1:
        _write_json(run.out / "summary.json", {"runs": found})
    return found


def _final_figures(run: Run, index: int, files: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Trained and novice policy, each with and without the shield."""
    count = run.config.final_episodes
    figures = {}
    policies = {"trained": files}
    novice = run.models(index) / "novice.onnx"
    if novice.exists():
        policies["novice"] = files | {"task_policy": novice}
    for name, chosen in policies.items():
        if _shielded(run):
            figures[f"{name}_shielded"] = _evaluate(run, index, chosen, count)
        figures[f"{name}_alone"] = _evaluate(run, index, chosen, count, shielded=False)
    return figures


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all."""
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    scratch.replace(path)


def _load(resume: Path | str) -> dict[str, Any]:
    path = Path(resume)
    return checkpoint.load(path / CHECKPOINT if path.is_dir() else path)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second one interrupts as usual."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: Any) -> None:
        event.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, stop)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)
