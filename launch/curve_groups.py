"""Groups runs that differ in nothing but their seed, names the groups and takes their figures."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from safetypilot.launch.curves import Floats, Run, mean_and_error, ratio, smooth_return

# Settings that make a run longer or tell more about it, and do not make it another experiment
_HARMLESS = {
    *("seed", "seeds", "episodes", "steps", "device", "novice_episodes", "final_episodes"),
    *("evaluate_every", "evaluate_episodes", "checkpoint_every", "log_every"),
}
_NAMED_SETTINGS = 2  # how many a label spells out

# What is plotted over the episodes: success, violation, total reward -> curve, each (S, E)
CURVES: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "ratio": lambda success, violation, total: ratio(success, violation),
    "success": lambda success, violation, total: np.cumsum(success, axis=-1),
    "violation": lambda success, violation, total: np.cumsum(violation, axis=-1),
    "reward": lambda success, violation, total: smooth_return(total, violation),
}


@dataclass(frozen=True)
class Group:
    """The seeds of one experiment, cut to the same length.

    Attributes:
        label: what people call it.
        algorithm: that of its runs.
        episodes: E, of the shortest run, or as asked.
    """

    env: str
    label: str
    algorithm: str
    runs: tuple[Run, ...]
    episodes: int

    @property
    def seeds(self) -> int:
        return len(self.runs)

    def values(self, kind: str) -> Floats:
        """A curve of every seed, (S, E); `kind` is a key of `CURVES`."""
        success, violation, total = (
            np.stack([getattr(run, name)[: self.episodes] for run in self.runs])
            for name in ("success", "violation", "total_reward")
        )
        return CURVES[kind](success, violation, total)

    def curve(self, kind: str) -> tuple[Floats, Floats]:
        """Mean and standard error over the seeds, (E,) each."""
        return mean_and_error(self.values(kind))

    def final(self, kind: str) -> dict[str, Any]:
        """Mean, standard error and median of the curve's end, and the value of every seed."""
        last = self.values(kind)[:, -1]
        mean, error = mean_and_error(last)
        known = last[np.isfinite(last)]
        return {
            "mean": _plain(mean),
            "standard_error": _plain(error),
            "median": _plain(np.median(known)) if len(known) else None,
            "seeds": [_plain(value) for value in last],
        }

    def recovering_share(self) -> dict[str, Any] | None:
        """Share of the violations that happened while recovery was active (the paper's Table I).

        Mean and standard error over the seeds that violated; None if no run told, or none did.
        """
        shares = []
        for run in self.runs:
            told = run.recovering[: self.episodes][run.violation[: self.episodes] > 0]
            told = told[np.isfinite(told)]
            if len(told):
                shares.append(told.mean())
        if not shares:
            return None
        mean, error = mean_and_error(np.array(shares))
        return {"mean": _plain(mean), "standard_error": _plain(error), "seeds": len(shares)}

    def describe(self) -> dict[str, Any]:
        """All final figures, for JSON."""
        return {
            "env": self.env,
            "label": self.label,
            "algorithm": self.algorithm,
            "preset": self.runs[0].preset,
            "seeds": [run.seed for run in self.runs],
            "episodes": self.episodes,
            **{kind: self.final(kind) for kind in CURVES},
            "violations_while_recovering": self.recovering_share(),
            "runs": [str(run.path) for run in self.runs],
        }


def group(runs: Iterable[Run], episodes: int | None = None) -> tuple[list[Group], list[str]]:
    """Group runs by environment and name; a name is a label, or algorithm, preset and settings.

    Args:
        runs: what was found.
        episodes: E to cut all of them to; None: each group to its shortest run.

    Returns:
        Groups, ordered by environment and name; and notes on what was cut or looks doubtful.
    """
    buckets: dict[tuple[str, str], list[Run]] = defaultdict(list)
    by_env: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_env[run.env].append(run)
    for env, its_runs in by_env.items():
        for label, run in zip(labels(its_runs), its_runs, strict=True):
            buckets[env, label].append(run)
    groups, notes = [], list[str]()
    for (env, label), members in sorted(buckets.items()):
        members.sort(key=lambda run: (run.seed, str(run.path)))
        length = min([run.episodes for run in members] + [episodes or 10**9])
        groups.append(Group(env, label, members[0].algorithm, tuple(members), length))
        notes += _notes(env, label, members, length, episodes)
    return groups, notes


def _notes(
    env: str, label: str, members: Sequence[Run], length: int, asked: int | None
) -> list[str]:
    notes, who = [], f"{env}, {label}"
    lengths = [run.episodes for run in members]
    if len(set(lengths)) > 1 and length == min(lengths) != asked:
        shortest = min(members, key=lambda run: run.episodes)
        notes.append(
            f"{who}: seeds have {min(lengths)} to {max(lengths)} episodes; all are cut at "
            f"{length}, the end of {shortest.path}"
        )
    elif asked and length < asked:
        notes.append(f"{who}: {length} episodes, {asked} were asked for")
    twice = [seed for seed, count in Counter(run.seed for run in members).items() if count > 1]
    for seed in twice:
        paths = ", ".join(str(run.path) for run in members if run.seed == seed)
        notes.append(f"{who}: seed {seed} counts more than once ({paths}); leave one out")
    return notes


def labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run of one environment: as short as tells different experiments apart."""
    presets: dict[str, set[str]] = defaultdict(set)
    buckets: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        if not run.label:
            presets[run.algorithm].add(run.preset)
            buckets[run.algorithm, run.preset].append(run)
    suffixes = {key: _suffixes(members) for key, members in buckets.items()}
    names = []
    for run in runs:
        if run.label:
            names.append(run.label)
            continue
        several = len(presets[run.algorithm]) > 1 and run.preset
        name = f"{run.algorithm} ({run.preset})" if several else run.algorithm
        suffix = suffixes[run.algorithm, run.preset][_fingerprint(run.settings)]
        names.append(f"{name} {suffix}".strip())
    return names


def _suffixes(runs: Sequence[Run]) -> dict[str, str]:
    """Fingerprint of settings -> what tells them from the usual ones, "" for these."""
    variants = {_fingerprint(run.settings): _relevant(run.settings) for run in runs}
    counts = Counter(_fingerprint(run.settings) for run in runs)
    usual = _usual(variants, counts)
    keys = sorted({key for settings in variants.values() for key in settings})
    suffixes: dict[str, str] = {}
    for name, settings in variants.items():
        others = [variants[usual]] if usual is not None else list(variants.values())
        own = [key for key in keys if any(_differ(settings, other, key) for other in others)]
        words = [f"{key}={_word(settings.get(key))}" for key in own[:_NAMED_SETTINGS]]
        text = ", ".join(words) + (", ..." if len(own) > _NAMED_SETTINGS else "")
        number, plain = 2, text
        while text in suffixes.values():  # alike in what is spelt out
            text, number = f"{plain} #{number}", number + 1
        suffixes[name] = text
    return suffixes


def _usual(variants: Mapping[str, Mapping[str, Any]], counts: Mapping[str, int]) -> str | None:
    """The variant that the others are variants of: that with the fewest differences to the rest,
    then that with the most runs; None if that does not single one out."""

    def distance(name: str) -> tuple[int, int]:
        keys = {key for settings in variants.values() for key in settings}
        here = variants[name]
        others = sum(_differ(here, there, key) for there in variants.values() for key in keys)
        return others, -counts[name]

    best, *rest = sorted(variants, key=distance)
    return None if rest and distance(rest[0]) == distance(best) else best


def _differ(one: Mapping[str, Any], other: Mapping[str, Any], key: str) -> bool:
    return json.dumps(one.get(key), default=str) != json.dumps(other.get(key), default=str)


def _relevant(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _HARMLESS}


def _fingerprint(settings: Mapping[str, Any]) -> str:
    return json.dumps(_relevant(settings), sort_keys=True, default=str)


def _word(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "unset"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> float | None:
    """A float for JSON, None for NaN."""
    number = float(value)
    return number if np.isfinite(number) else None
