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


@dataclass(frozen=True)
class World:
    """Makers of environments and of offline data.

    Attributes:
        make: name -> a Gymnasium environment with `info["cost"]` and `info["success"]`.
        describe: name -> names, units and limits, the keys of an interface.
        offline_data: name, size, seed -> arrays as `RecoveryLearner.load_offline` takes them.
    """

    make: Callable[[str], Any]
    describe: Callable[[str], dict[str, Any]]
    offline_data: Callable[[str, int, int], dict[str, Any]]

    @classmethod
    def installed(cls) -> World:
        """This project's environments, and any Gymnasium id."""
        registry = importlib.import_module(_REGISTRY)
        offline = importlib.import_module(_OFFLINE)
        return cls(registry.make, registry.describe, offline.offline_data)

    def interface(self, env: str) -> Expected:
        """Names, units and limits of an environment."""
        description: Expected = SimpleNamespace(**self.describe(env))
        return description

    def collect(self, env: str, size: int, seed: int) -> dict[str, Any]:
        """Offline data of an environment.

        Raises:
            LearnError: there is no recipe for it.
        """
        try:
            return self.offline_data(env, size, seed)
        except ValueError as error:
            raise LearnError(
                f"{error}; set offline_size=0 to learn without, at the price of many violations"
            ) from None
