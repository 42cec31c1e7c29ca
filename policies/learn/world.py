"""Where transitions come from: three functions, so that no algorithm knows an environment.

`policies` and `envs` are neighbours that do not import each other. The usual world is named here
like a Gymnasium plugin and looked up when training starts; a caller may hand in another.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from safetypilot.models.contract import Expected
from safetypilot.policies.learn.errors import LearnError

_REGISTRY = "safetypilot.envs.registry"
_OFFLINE = "safetypilot.envs.offline"
_DATASET = "safetypilot.envs.dataset"

Data = dict[str, Any]


def _nothing(*_: Any) -> Data:
    raise ValueError("this world has no such data")


@dataclass(frozen=True)
class World:
    """Makers of environments and of offline data.

    Attributes:
        make: name -> a Gymnasium environment with `info["cost"]` and `info["success"]`, whose
            observations and actions are vectors of float32.
        describe: name -> names, units and limits, the keys of an interface.
        offline_data: name, size, seed -> arrays as `Learner.load_offline` takes them.
        task_data: name, size, seed -> the same, demonstrations of the task.
        load: path -> the same, from a data set on disk.
    """

    make: Callable[[str], Any]
    describe: Callable[[str], dict[str, Any]]
    offline_data: Callable[[str, int, int], Data]
    task_data: Callable[[str, int, int], Data] = _nothing
    load: Callable[[str], Data] = _nothing

    @classmethod
    def installed(cls) -> World:
        """This project's environments, and any Gymnasium id."""
        registry = importlib.import_module(_REGISTRY)
        offline = importlib.import_module(_OFFLINE)

        def load(path: str) -> Data:
            found: Data = importlib.import_module(_DATASET).load(path)
            return found

        return cls(
            registry.make_flat, registry.describe, offline.offline_data, offline.task_data, load
        )

    def interface(self, env: str) -> Expected:
        """Names, units and limits of an environment."""
        description: Expected = SimpleNamespace(**self.describe(env))
        return description

    def collect(self, env: str, size: int, seed: int, path: str = "") -> Data:
        """Offline data of an environment: from a data set, or else by the published recipe.

        Raises:
            LearnError: there is no recipe for it, or the data set is not one.
        """
        try:
            return self.load(path) if path else self.offline_data(env, size, seed)
        except ValueError as error:
            advice = "; set offline=false to learn without, at the price of many violations"
            raise LearnError(f"{error}{'' if path else advice}") from None

    def demonstrations(self, env: str, size: int, seed: int) -> Data:
        """Demonstrations of the task.

        Raises:
            LearnError: there are none for it.
        """
        try:
            return self.task_data(env, size, seed)
        except ValueError as error:
            raise LearnError(f"{error}; set demo_size=0 to learn without") from None
