"""Where transitions come from: some functions, so that no algorithm knows an environment.

`policies` and `envs` are neighbours that do not import each other. The usual world is named here
like a Gymnasium plugin and looked up when training starts; a caller may hand in another.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from safetypilot.models.contract import Expected
from safetypilot.policies.learn.errors import LearnError

_REGISTRY = "safetypilot.envs.registry"
_OFFLINE = "safetypilot.envs.offline"
_DATASET = "safetypilot.envs.dataset"
_COSTS = "safetypilot.envs.costs"

Data = dict[str, Any]


def _nothing(*_: Any) -> Data:
    raise ValueError("this world has no such data")


class Costed:
    """An environment whose `info["cost"]` comes from a cost function of envs/costs.py."""

    def __init__(self, env: Any, cost: Callable[..., float]) -> None:
        self.env, self._cost = env, cost

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """As the environment does."""
        self._before, info = self.env.reset(**options)
        return self._before, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As the environment does, with the cost of the step."""
        before = self._before
        self._before, reward, terminated, truncated, info = self.env.step(action)
        cost = self._cost(before, action, self._before, terminated, info)
        return self._before, reward, terminated, truncated, {**info, "cost": cost}

    def close(self) -> None:
        self.env.close()


@dataclass(frozen=True)
class World:
    """Makers of environments and of offline data.

    Attributes:
        make: name -> a Gymnasium environment, best with `info["cost"]` and `info["success"]`,
            whose observations and actions are vectors of float32.
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

    def environments(self, env: str, cost: str, count: int) -> list[Any]:
        """Some environments of a name that report costs.

        Args:
            env: its name.
            cost: `info` takes what it reports; else a function of envs/costs.py.
            count: how many; the last has moved one step, to see that it does report.

        Raises:
            LearnError: it reports none.
        """
        made = [self.make(env) for _ in range(count)]
        if cost != "info":
            function = importlib.import_module(_COSTS).cost_function(cost, env)
            return [Costed(each, function) for each in made]
        interface = self.interface(env)
        limits = (
            np.asarray(each, np.float32) for each in (interface.action_low, interface.action_high)
        )
        made[-1].reset(seed=0)
        info = made[-1].step(sum(limits) / 2)[-1]
        if "cost" not in info:
            for each in made:
                each.close()
            raise LearnError(
                f'{env} reports no info["cost"], and safety cannot be learned without costs; say '
                "--cost termination if an episode that ends early is a violation, or --cost none"
            )
        return made

    def collect(self, env: str, size: int, seed: int, path: str = "") -> Data:
        """Offline data of an environment: from a data set, or else by the published recipe.

        Raises:
            LearnError: there is no recipe for it, or the data set is not one.
        """
        try:
            return self.load(path) if path else self.offline_data(env, size, seed)
        except ValueError as error:
            advice = (
                "; set offline=false to learn without, at the price of many violations, or name "
                "data of `safetypilot collect` with --data"
            )
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
