"""Training runs on the ledge that a signal ends, in this process or in one of their own."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from ledge import WORLD, Ledge, tiny

from safetypilot.policies.learn.world import World

QUICK = {
    "offline_size": "120", "offline_updates": "8", "dynamics_epochs": "1", "start_steps": "8",
    "dynamics_online_epochs": "1", "evaluate_every": "3", "evaluate_episodes": "1",
    "final_episodes": "1", "checkpoint_every": "2",
}  # fmt: skip
EPISODES = 6
OWN = {
    "lr": {"nu_learning_rate": "0.01"},
    "sqrl": {"nu_learning_rate": "0.01", "samples": "10"},
}


class Deadly(Ledge):
    """Sends a signal in its n-th step, counted over all environments of the process."""

    count_all = 0
    end = 0
    signal = signal.SIGKILL

    def step(self, action: Any) -> Any:
        Deadly.count_all += 1
        if Deadly.count_all == Deadly.end:
            os.kill(os.getpid(), Deadly.signal)
        return super().step(action)


DEADLY = World(lambda env: Deadly(), WORLD.describe, WORLD.offline_data)


def train(out: Path, algorithm: str, seeds: tuple[int, ...], **options: Any) -> Any:
    if "resume" not in options:
        options["settings"] = QUICK | OWN.get(algorithm, {})
    return tiny(out, EPISODES, algorithm=algorithm, seeds=seeds, world=DEADLY, **options)


def die(end: int, out: Path, algorithm: str, seeds: tuple[int, ...], resume: bool) -> None:
    """In a process of its own: train until the kill."""
    import torch

    torch.set_num_threads(1)
    Deadly.count_all, Deadly.end = 0, end
    train(out, algorithm, seeds, **({"resume": out} if resume else {}))
