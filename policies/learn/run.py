"""A training run: what was asked, what it is made of, and how each of its seeds stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetypilot.models.contract import Expected
from safetypilot.policies.learn import catalogue, config, manifest, presets
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.episodes import Episode, Episodes
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.learner import Learner
from safetypilot.policies.learn.world import World


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line.

    Attributes:
        algorithm: a name of the catalogue.
        env: a short name or an id.
        seeds: trained side by side.
        preset: of the settings; see `presets`.
        settings: changes to it, as typed.
        episodes: overrides the preset's number.
        steps: most environment steps per seed.
        device: of the networks.
        data: offline data set to learn from, `{seed}` in it is each seed's; empty makes it by the
            recipe.
        given: which of env, seeds, preset and data somebody has named; a checkpoint that goes on
            must agree with those.
    """

    algorithm: str = "recovery-rl"
    env: str = "maze"
    seeds: tuple[int, ...] = (0,)
    preset: str = "default"
    settings: Mapping[str, str] | None = None
    episodes: int | None = None
    steps: int | None = None
    device: str = "cpu"
    data: str = ""
    given: frozenset[str] = frozenset()


@dataclass
class Tally:
    """Counts of one seed so far; they go into the checkpoint."""

    episodes: int = 0
    successes: int = 0
    violations: int = 0
    interventions: int = 0
    return_sum: float = 0.0
    finished: bool = False

    def count(self, episode: Episode) -> None:
        self.episodes += 1
        self.successes += episode.success
        self.violations += episode.violation
        self.interventions += episode.interventions
        self.return_sum += episode.total_reward

    @property
    def ratio(self) -> float:
        """(successes + 1) / (violations + 1), the figure of merit of the paper."""
        return (self.successes + 1) / (self.violations + 1)


@dataclass
class Run:
    """One training run and where it writes."""

    request: Request
    out: Path
    config: Config
    world: World
    interface: Expected
    episodes: Episodes
    evaluation_env: Any
    commit: str  # of the code, when the run started
    tallies: list[Tally]
    wall_s: float = 0.0

    @property
    def learner(self) -> Learner:
        return self.episodes.learner

    def directory(self, index: int) -> Path:
        """Where one seed writes: the run's own directory, or a part of it."""
        seeds = self.request.seeds
        return self.out if len(seeds) == 1 else self.out / f"seed-{seeds[index]}"

    def models(self, index: int) -> Path:
        return self.directory(index) / "models"

    @property
    def note(self) -> str:
        successes = sum(tally.successes for tally in self.tallies)
        violations = sum(tally.violations for tally in self.tallies)
        return f"{successes} successes, {violations} violations"

    def close(self) -> None:
        for track in self.episodes.tracks:
            track.env.close()
        self.evaluation_env.close()


def prepare(
    request: Request, out: Path, world: World, saved: Mapping[str, Any] | None = None
) -> Run:
    """Check all input and build everything, before anything is written.

    Args:
        request: what was asked; with `saved`, only its `episodes`, `steps` and `settings` count.
        out: directory of the run.
        world: where environments come from.
        saved: a checkpoint to go on from.
    """
    if saved is not None:
        request = _resumed(request, saved)
    catalogue.entry(request.algorithm)  # before the environment: its name is the likelier typo
    if len(set(request.seeds)) != len(request.seeds) or not request.seeds:
        raise LearnError(f"seeds {request.seeds}: give each once, and at least one")
    try:
        interface = world.interface(request.env)
        chosen = _settings(request, saved)
        envs = world.environments(request.env, chosen.cost, len(request.seeds) + 1)
    except ValueError as error:
        raise LearnError(str(error)) from None
    learner = Learner(request.algorithm, chosen, interface, request.seeds, request.device)
    run = Run(
        *(request, out, chosen, world, interface, Episodes(learner, envs[:-1]), envs[-1]),
        commit=manifest.commit(),
        tallies=[Tally() for _ in request.seeds],
    )
    if saved is not None:
        run.episodes.restore(saved["episodes"])
        run.tallies = [Tally(**tally) for tally in saved["tallies"]]
        run.wall_s = float(saved["wall_s"])
    return run


def _settings(request: Request, saved: Mapping[str, Any] | None) -> Config:
    kind = catalogue.entry(request.algorithm).kind.Settings
    if saved is None:
        chosen = catalogue.settings(request.algorithm, request.env, request.preset)
    else:
        chosen = _saved_config(kind, saved["config"])
    chosen = config.with_settings(chosen, request.settings or {})
    if request.episodes is not None:
        chosen = replace(chosen, episodes=request.episodes)
    if request.steps is not None:
        chosen = replace(chosen, steps=request.steps)
    return chosen


def _saved_config(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """As saved; settings that are newer than the checkpoint have their defaults."""
    unknown = sorted(set(values) - set(kind.__dataclass_fields__))
    if unknown:
        raise LearnError(
            f"the checkpoint's settings {', '.join(unknown)} are of another version; start afresh"
        )
    return kind(**values)


def _resumed(request: Request, saved: Mapping[str, Any]) -> Request:
    algorithm = str(saved.get("algorithm", request.algorithm))
    if catalogue.canonical(algorithm) != catalogue.canonical(request.algorithm):
        raise LearnError(
            f"the checkpoint is of {algorithm} on {saved.get('env')}, you asked for "
            f"{request.algorithm}; name the same algorithm, or start afresh"
        )
    try:
        resumed = replace(
            request,
            algorithm=str(saved["algorithm"]),
            env=str(saved["env"]),
            seeds=tuple(int(seed) for seed in saved["seeds"]),
            preset=str(saved["preset"]),
            data=str(saved["data"]),
        )
    except KeyError as error:
        raise LearnError(f"the checkpoint lacks {error}; it is not of a training run") from None
    for name in sorted(request.given):
        asked, own = _shown(request, name), _shown(resumed, name)
        if asked != own:
            raise LearnError(
                f"the checkpoint's {name} is {own}, you asked for {asked}; leave that out to go "
                "on, or start afresh"
            )
    return resumed


def _shown(request: Request, name: str) -> str:
    value = getattr(request, name)
    if name == "seeds":
        return ",".join(map(str, value))
    return presets.short_name(value) if name == "env" else value or "none"


def state(run: Run) -> dict[str, Any]:
    """What `prepare` needs to go on."""
    request = run.request
    return {
        "algorithm": request.algorithm,
        "env": request.env,
        "seeds": list(request.seeds),
        "preset": request.preset,
        "data": request.data,
        "config": run.config.to_dict(),
        "tallies": [vars(tally).copy() for tally in run.tallies],
        "wall_s": run.wall_s,
        "episodes": run.episodes.state(),
    }


def summary(run: Run, index: int, interrupted: bool) -> dict[str, Any]:
    """The figures of one seed, as `summary.json` has them."""
    tally, request = run.tallies[index], run.request
    episodes = run.episodes
    return {
        "algorithm": request.algorithm,
        "preset": request.preset,
        "env": presets.short_name(request.env),
        "seed": request.seeds[index],
        "episodes": tally.episodes,
        "steps": episodes.tracks[index].steps,
        "successes": tally.successes,
        "violations": tally.violations,
        "interventions": tally.interventions,
        "ratio": tally.ratio,
        "return_mean": tally.return_sum / max(tally.episodes, 1),
        "wall_s": run.wall_s,
        "updates": run.learner.updates,
        # of one seed; several side by side share the time
        "updates_per_s": episodes.update_count / max(episodes.update_s, 1e-9),
        "interrupted": interrupted,
        "settings": run.config.to_dict(),
    }
