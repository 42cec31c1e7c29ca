"""How a data set lies on disk: names, versions, one episode, and the metadata.

Letters: T steps of an episode, O observation size, A action size.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from safetypilot.envs.dataset_check import Array

DATA, FILE, METADATA = "data", "main_data.hdf5", "metadata.json"
VERSION = 1  # of what stands under `safetypilot` in the metadata, and of our info columns
_MINARI = "0.5.0"  # the format of vectors as they are written here
_MINARI_IMAGES = "0.5.4"  # the first that knows images which are not JPEG-coded

COLUMNS = {  # ours -> the file's, one group per episode
    "observation": "observations",
    "action": "actions",
    "cost": "infos/cost",
    "reward": "rewards",
    "terminated": "terminations",
    "truncated": "truncations",
}
SUCCESS = "infos/success"


@dataclass(frozen=True)
class About:
    """What the arrays do not say; all of it optional.

    Attributes:
        env: Gymnasium id of the environment.
        observation_shape: of one observation, such as (64, 64, 3); empty for (O,).
        action_low: smallest action, (A,); empty for unbounded.
        action_high: largest action, (A,).
        env_spec: Gymnasium's own JSON, from which Minari makes the environment again.
        made: how the episodes were made: policy, seed, noise ...; values for JSON.
    """

    env: str = ""
    observation_shape: tuple[int, ...] = ()
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    env_spec: str = ""
    made: Mapping[str, Any] = field(default_factory=dict)


class Episode(NamedTuple):
    """One episode of T steps, observations flat."""

    observations: Array  # (T + 1, O) uint8 or float32
    actions: Array  # (T, A) float32
    costs: Array  # (T,) 0 or 1
    rewards: Array  # (T,) float32
    terminated: Array  # (T,) bool
    truncated: Array  # (T,) bool
    successes: Array | None = None  # (T,) bool, where there is a goal
    seed: int | None = None  # of its reset

    def as_rows(self) -> dict[str, Array]:
        """The fields of `dataset_check.FIELDS`, T rows each."""
        rows = {
            "observation": self.observations[:-1],
            "action": self.actions,
            "cost": self.costs,
            "reward": self.rewards,
            "next_observation": self.observations[1:],
            "terminated": self.terminated,
            "truncated": self.truncated,
        }
        return rows if self.successes is None else {**rows, "success": self.successes}


def metadata(
    name: str, about: About, sizes: tuple[int, int, str], made: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What Minari wants to know of a data set, and ours under one key of its own.

    Args:
        name: of the data set's directory.
        about: of the environment.
        sizes: O, A, and the type of an observation.
        made: one entry per collection, with its `episodes` and `rows`.
    """
    size, actions, kind = sizes
    images = kind == "uint8"
    low, high = (0.0, 255.0) if images else (-np.inf, np.inf)
    shape = about.observation_shape or (size,)
    bounds = about.action_low or (-np.inf,) * actions, about.action_high or (np.inf,) * actions
    policies = dict.fromkeys(str(part.get("policy", "unknown")) for part in made)
    return {
        "total_episodes": sum(part["episodes"] for part in made),
        "total_steps": sum(part["rows"] for part in made),
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": _box(kind, np.full(shape, low), np.full(shape, high)),
        "action_space": _box("float32", np.array(bounds[0]), np.array(bounds[1])),
        "dataset_id": name if re.search(r"-v\d+$", name) else f"{name}-v0",
        "minari_version": _MINARI_IMAGES if images else _MINARI,
        "algorithm_name": " + ".join(policies),
        **({"env_spec": about.env_spec} if about.env_spec else {}),
        "safetypilot": {"version": VERSION, "env": about.env, "made": list(made)},
    }


def _box(kind: str, low: Array, high: Array) -> str:
    """A Gymnasium Box as Minari spells it, which is JSON within JSON."""
    bounds = {"low": low.astype(kind).tolist(), "high": high.astype(kind).tolist()}
    return json.dumps({"type": "Box", "dtype": kind, "shape": list(low.shape), **bounds})
