"""One training run: what was asked, what it is made of, and how it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetypilot.models.contract import Expected
from safetypilot.policies.learn import config, manifest, recovery_rl
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.recovery_rl import RecoveryRL
from safetypilot.policies.learn.world import World

# What the command line calls an algorithm -> the settings that make it so
ALGORITHMS: dict[str, dict[str, str]] = {
    "recovery-rl": {},
    "recovery-rl-model-free": {"recovery": "model-free"},
    "unconstrained": {"recovery": "none"},
}


@dataclass
class Tally:
    """Counts of a run so far; they go into the checkpoint."""

    episodes: int = 0
    successes: int = 0
    violations: int = 0
    interventions: int = 0
    return_sum: float = 0.0
    wall_s: float = 0.0

    def count(self, episode: recovery_rl.Episode) -> None:
        self.episodes += 1
        self.successes += episode.success
        self.violations += episode.violation
        self.interventions += episode.interventions
        self.return_sum += episode.total_reward

    @property
    def ratio(self) -> float:
        """(successes + 1) / (violations + 1), the figure of merit of the paper."""
        return (self.successes + 1) / (self.violations + 1)

    @property
    def note(self) -> str:
        return f"{self.successes} successes, {self.violations} violations"


@dataclass
class Run:
    """One training run and where it writes."""

    algorithm: str
    env: str
    seed: int
    out: Path
    config: Config
    world: World
    interface: Expected
    core: RecoveryRL
    evaluation_env: Any
    commit: str  # of the code, when the run started
    tally: Tally = field(default_factory=Tally)

    @property
    def models(self) -> Path:
        return self.out / "models"


def prepare(
    algorithm: str,
    env: str,
    seed: int,
    out: Path,
    episodes: int | None,
    steps: int | None,
    settings: Mapping[str, str],
    saved: Mapping[str, Any] | None,
    world: World,
) -> Run:
    """Check all input and build everything, before anything is written."""
    if algorithm not in ALGORITHMS:
        raise LearnError(f"unknown algorithm {algorithm!r}; known: {', '.join(ALGORITHMS)}")
    try:
        interface = world.interface(env)
    except ValueError as error:
        raise LearnError(str(error)) from None
    if saved is None:
        chosen = config.with_settings(config.preset(env), ALGORITHMS[algorithm])
    else:
        chosen = Config(**saved["config"])
    chosen = config.with_settings(chosen, settings)
    if episodes is not None:
        chosen = replace(chosen, episodes=episodes)
    if steps is not None:
        chosen = replace(chosen, steps=steps)
    core = RecoveryRL(chosen, world.make(env), interface, seed)
    run = Run(
        *(algorithm, env, seed, out, chosen, world, interface, core, world.make(env)),
        commit=manifest.commit(),
    )
    if saved is not None:
        core.restore(saved["core"])
        run.tally = Tally(**saved["tally"])
    return run


def state(run: Run) -> dict[str, Any]:
    return {
        "algorithm": run.algorithm,
        "env": run.env,
        "seed": run.seed,
        "config": run.config.to_dict(),
        "tally": vars(run.tally).copy(),
        "core": run.core.state(),
    }
