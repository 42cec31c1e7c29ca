"""Gradient updates of our learner beside stable-baselines3's, in one process on one thread.

    python -m tests.benchmarks.learner_peers [--rounds 40] [--json FILE]

The same nets (2x256), batch (256) and task size; each side samples its own replay buffer, as it
does in training. Blocks of six updates take turns (`interleaved`). Three rows of ours per task:
as shipped; plain, without recording; and with products in bf16. Then Q_risk and the recovery policy
against the task policy, the share of sampling, and five seeds in one batch against five in turn.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from safetypilot.policies.learn.learner import Learner
from tests.benchmarks.interleaved import Timed, interleaved, ratio
from tests.benchmarks.learners import ours, sb3

EACH = 6  # updates per block, in one call of stable-baselines3's
TASKS = {"navigation": (2, 2), "half cheetah": (17, 6)}  # observations, actions
SEEDS = (0, 1, 2, 3, 4)


def times(call: Callable[[], object]) -> Callable[[], None]:
    """A block of updates."""

    def block() -> None:
        for _ in range(EACH):
            call()

    return block


def beside_sb3(observations: int, actions: int, rounds: int) -> dict[str, Timed]:
    """One update each, in milliseconds per block; ours in all its ways."""
    peer = sb3(observations, actions, 256)
    shipped = ours("recovery-rl", observations, actions)
    plain = ours("recovery-rl", observations, actions, capture=False)
    rounded = ours("recovery-rl", observations, actions, precision="bf16")
    always = ours("recovery-rl", observations, actions, recovery_every=1)
    alone = ours("recovery-rl", observations, actions, recovery="model-based")
    return interleaved(
        {
            "stable-baselines3": lambda: peer.train(EACH, 256),
            "ours": times(shipped.update_task),
            "ours, not recorded": times(plain.update_task),
            "ours, bf16": times(rounded.update_task),
            "Q_risk + recovery": times(shipped.update_risk),
            "Q_risk + recovery, bf16": times(rounded.update_risk),
            "Q_risk + recovery every time": times(always.update_risk),
            "Q_risk alone": times(alone.update_risk),
            "sampling": times(lambda: sample(shipped)),
        },
        rounds,
        each=1,
    )


def sample(learner: Learner) -> object:
    """What an update draws."""
    return learner.task_replay.sample(learner.rng, learner.config.batch)


def side_by_side(hidden: int, batch: int, rounds: int) -> dict[str, Timed]:
    """Five seeds of Navigation's size: in turn, and as one batch."""
    alone = ours("recovery-rl", 2, 2, hidden, batch)
    together = ours("recovery-rl", 2, 2, hidden, batch, SEEDS)
    rounded = ours("recovery-rl", 2, 2, hidden, batch, SEEDS, precision="bf16")
    peer = sb3(2, 2, hidden)
    return interleaved(
        {
            "stable-baselines3, 5 in turn": lambda: peer.train(len(SEEDS), batch),
            "5 seeds in turn": lambda: [alone.update_task() for _ in SEEDS],
            "5 seeds in one batch": together.update_task,
            "5 seeds in one batch, bf16": rounded.update_task,
            "risk, 5 seeds in turn": lambda: [alone.update_risk() for _ in SEEDS],
            "risk, 5 seeds in one batch": together.update_risk,
        },
        rounds,
        each=1,
    )


def report(title: str, timed: dict[str, Timed], per: int) -> dict[str, Any]:
    """Print a table, milliseconds per update, and return it."""
    first = next(iter(timed.values()))
    lines: dict[str, Any] = {}
    sys.stdout.write(f"\n{title}\n")
    for name, each in timed.items():
        lines[name] = {
            "ms": float(np.median(each.cpu)) / per,
            "wall_ms": float(np.median(each.wall)) / per,
            "times_as_fast_as_first": float(np.median(first.cpu / each.cpu)),
        }
        sys.stdout.write(
            f"  {name:30s} {lines[name]['ms']:7.3f} ms (wall {lines[name]['wall_ms']:7.3f})"
            f"  {ratio(first, each)} times as fast as {next(iter(timed))}\n"
        )
    return lines


def main() -> None:
    """Measure, print, and write the numbers if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"torch": torch.__version__}
    for name, (observations, actions) in TASKS.items():
        timed = beside_sb3(observations, actions, options.rounds)
        title = f"{name}: {observations} observations, {actions} actions, 2x256, batch 256"
        results[name] = report(title, timed, EACH)
        shares = [name for name in timed if name.startswith("Q_risk") and "bf16" not in name]
        for share in (*shares, "sampling"):
            results[name][f"{share} / ours"] = float(
                np.median(timed[share].cpu / timed["ours"].cpu)
            )
            sys.stdout.write(f"  {share} / ours: {ratio(timed[share], timed['ours'])}\n")
    for hidden, batch in ((64, 128), (256, 256)):
        timed = side_by_side(hidden, batch, options.rounds)
        title = f"five seeds, 2x{hidden}, batch {batch}, per seed"
        results[f"seeds 2x{hidden}"] = report(title, timed, len(SEEDS))
        gain = ratio(timed["5 seeds in turn"], timed["5 seeds in one batch"])
        sys.stdout.write(f"  one batch against in turn: {gain} times as fast\n")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of this file's docstring."""


if __name__ == "__main__":
    main()
