"""Runs a training from the command to the files that fly: log, checkpoints, resume, summary."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from safetypilot.policies.learn import checkpoint, manifest, recovery_rl
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.logbook import Display, Logbook
from safetypilot.policies.learn.run import ALGORITHMS, Run, prepare, state
from safetypilot.policies.learn.world import World

__all__ = ["ALGORITHMS", "CHECKPOINT", "train"]

CHECKPOINT = "checkpoint.pt"

WEIGHTS = "weights.pt"  # beside the ONNX files: where a learner in a running graph goes on from


def train(
    algorithm: str = "recovery-rl",
    env: str = "maze",
    seed: int = 0,
    out: Path | str = "runs/train",
    episodes: int | None = None,
    steps: int | None = None,
    settings: Mapping[str, str] | None = None,
    resume: Path | str | None = None,
    progress: bool = False,
    console: Any = None,
    world: World | None = None,
) -> dict[str, Any]:
    """Train, and leave ONNX files that can fly in `OUT/models/`.

    The first Ctrl-C ends the run after the current episode, with a checkpoint; the second kills.

    Args:
        algorithm: a key of `ALGORITHMS`.
        env: `maze`, `navigation1`, `navigation2` or a Gymnasium id.
        seed: fixes everything.
        out: directory of the run.
        episodes: overrides the preset's number.
        steps: most environment steps.
        settings: other settings by name, as typed.
        resume: a checkpoint, or the directory of a run; its own settings go on, except for
            `episodes`, `steps` and `settings` given now.
        progress: show a progress bar.
        console: the rich console to show it on.
        world: where environments come from; None for the installed ones.

    Returns:
        What is written to `summary.json`.

    Raises:
        LearnError: wrong input, or training has diverged.
    """
    world = world or World.installed()
    saved = _load(resume) if resume is not None else None
    if saved is not None:
        algorithm, env, seed = saved["algorithm"], saved["env"], int(saved["seed"])
    run = prepare(algorithm, env, seed, Path(out), episodes, steps, settings or {}, saved, world)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these networks are too small to share
    try:
        with Display(progress, console) as display, _interruptible() as interrupted:
            return _train(run, saved is not None, display, interrupted)
    finally:
        torch.set_num_threads(threads)
        run.core.env.close()
        run.evaluation_env.close()


def _train(
    run: Run, resumed: bool, display: Display, interrupted: threading.Event
) -> dict[str, Any]:
    began, earlier_s = time.monotonic(), run.tally.wall_s
    logbook = Logbook(run.out, run.core.steps if resumed else None)

    def save() -> None:
        run.tally.wall_s = earlier_s + time.monotonic() - began
        checkpoint.save(run.out / CHECKPOINT, state(run))

    try:
        if not resumed:
            _learn_offline(run, logbook, display)
            save()
        while not _finished(run) and not interrupted.is_set():
            _one_episode(run, logbook)
            tally = run.tally
            display.report("training", tally.episodes, run.config.episodes, tally.note)
            if tally.episodes % run.config.checkpoint_every == 0:
                save()
        save()
        return _finish(run, interrupted.is_set())
    except LearnError as error:
        raise LearnError(
            f"episode {run.tally.episodes + 1}, step {run.core.steps}: {error} "
            f"(last good checkpoint: {run.out / CHECKPOINT})"
        ) from error
    finally:
        logbook.close()


def _learn_offline(run: Run, logbook: Logbook, display: Display) -> None:
    if run.config.recovery == "none" or not run.config.offline_size:
        return
    display.report("collecting offline data", 0, 1)
    data = run.world.collect(run.env, run.config.offline_size, run.seed)
    display.report("collecting offline data", 1, 1)
    metrics = run.core.learn_offline(data, display.report)
    logbook.write(0, {f"offline/{name}": value for name, value in metrics.items()})


def _one_episode(run: Run, logbook: Logbook) -> None:
    number = run.tally.episodes + 1
    episode = run.core.run_episode(number)
    run.tally.count(episode)
    values = {"episode": float(number), **episode.figures()}
    values["run/successes"] = run.tally.successes
    values["run/violations"] = run.tally.violations
    values["run/ratio"] = run.tally.ratio
    if run.config.evaluate_episodes and number % run.config.evaluate_every == 0:
        with recovery_rl.exported(run.core.learner) as files:
            figures = _evaluate(run, files, run.config.evaluate_episodes)
        values |= {f"evaluation/{name}": value for name, value in figures.items()}
    logbook.write(run.core.steps, values)
    if number == run.config.novice_episodes:
        version = f"{run.env}-seed{run.seed}-novice"
        run.core.learner.export_policy(run.models / "novice.onnx", version, _about(run))


def _evaluate(
    run: Run, files: dict[str, Path], episodes: int, shielded: bool = True
) -> dict[str, float]:
    return recovery_rl.evaluate(
        run.evaluation_env,
        files,
        run.config,
        run.interface,
        episodes=episodes,
        seed=run.seed,
        shielded=shielded,
    )


def _finished(run: Run) -> bool:
    enough = run.config.steps and run.core.steps >= run.config.steps
    return bool(enough) or run.tally.episodes >= run.config.episodes


def _about(run: Run) -> dict[str, Any]:
    return {
        "command": manifest.command(run.algorithm, run.env, run.seed),
        "commit": run.commit,
        "algorithm": run.algorithm,
        "env": run.env,
        "seed": run.seed,
        "episodes": run.tally.episodes,
    }


def _finish(run: Run, interrupted: bool) -> dict[str, Any]:
    tally, learner = run.tally, run.core.learner
    version = f"{run.env}-seed{run.seed}-trained"
    files = learner.export(run.models, version, _about(run))
    learner.save_weights(run.models / WEIGHTS)
    summary: dict[str, Any] = {
        "algorithm": run.algorithm,
        "env": run.env,
        "seed": run.seed,
        "episodes": tally.episodes,
        "steps": run.core.steps,
        "successes": tally.successes,
        "violations": tally.violations,
        "interventions": tally.interventions,
        "ratio": tally.ratio,
        "return_mean": tally.return_sum / max(tally.episodes, 1),
        "wall_s": tally.wall_s,
        "updates": learner.updates,
        "updates_per_s": run.core.update_count / max(run.core.update_s, 1e-9),
        "interrupted": interrupted,
        "settings": run.config.to_dict(),
    }
    if not interrupted:
        summary["evaluation"] = _final_figures(run, files)
    (run.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    manifest.write(run.models, summary, run.commit)
    return summary


def _final_figures(run: Run, files: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Trained and novice policy, each with and without the shield."""
    count = run.config.final_episodes
    figures = {}
    policies = {"trained": files}
    if (run.models / "novice.onnx").exists():
        policies["novice"] = files | {"task_policy": run.models / "novice.onnx"}
    for name, chosen in policies.items():
        if run.config.recovery != "none":
            figures[f"{name}_shielded"] = _evaluate(run, chosen, count)
        figures[f"{name}_alone"] = _evaluate(run, chosen, count, shielded=False)
    return figures


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
