"""The algorithms by the names that a command line knows them by."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from safetypilot.policies.learn import presets
from safetypilot.policies.learn.algorithms.base import Algorithm
from safetypilot.policies.learn.algorithms.csc import Csc
from safetypilot.policies.learn.algorithms.lr import LagrangianRelaxation
from safetypilot.policies.learn.algorithms.rcpo import Rcpo
from safetypilot.policies.learn.algorithms.recovery_rl import RecoveryRL
from safetypilot.policies.learn.algorithms.rp import RewardPenalty
from safetypilot.policies.learn.algorithms.rspo import Rspo
from safetypilot.policies.learn.algorithms.sac import Unconstrained
from safetypilot.policies.learn.algorithms.safety_editor import SafetyEditor
from safetypilot.policies.learn.algorithms.sqrl import Sqrl
from safetypilot.policies.learn.config import Config, with_settings
from safetypilot.policies.learn.errors import LearnError


class Entry(NamedTuple):
    """An algorithm and the settings that its name stands for."""

    kind: type[Algorithm]
    settings: Mapping[str, str] = MappingProxyType({})


ALGORITHMS: dict[str, Entry] = {
    "sac": Entry(Unconstrained, {"recovery": "none"}),
    "recovery-rl": Entry(RecoveryRL),
    "recovery-rl-model-free": Entry(RecoveryRL, {"recovery": "model-free"}),
    "recovery-rl-q-sampling": Entry(RecoveryRL, {"recovery": "q-sampling"}),
    "recovery-rl-visual": Entry(RecoveryRL, {"recovery": "visual"}),
    "lr": Entry(LagrangianRelaxation),
    "rspo": Entry(Rspo),
    "sqrl": Entry(Sqrl),
    "rp": Entry(RewardPenalty),
    "rcpo": Entry(Rcpo),
    "csc": Entry(Csc),
    "safety-editor": Entry(SafetyEditor),
}
ALIASES = {"unconstrained": "sac", "recovery-rl-model-based": "recovery-rl"}


def canonical(name: str) -> str:
    """An algorithm's one name; its own if it is no alias."""
    return ALIASES.get(name, name)


def entry(name: str) -> Entry:
    """Look up an algorithm.

    Raises:
        LearnError: nobody has this name; with the nearest.
    """
    name = canonical(name)
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    close = difflib.get_close_matches(name, ALGORITHMS, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise LearnError(f"unknown algorithm {name!r}; {hint}known: {', '.join(ALGORITHMS)}")


def settings(name: str, env: str, preset: str = "default") -> Config:
    """The settings of an algorithm on a task."""
    found = entry(name)
    chosen = presets.settings(found.kind.Settings, canonical(name), env, preset)
    return with_settings(chosen, found.settings)
