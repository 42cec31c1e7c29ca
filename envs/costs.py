"""Named cost functions, so that an environment that knows no safety can still be given one."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.floating[Any]]
Info: TypeAlias = Mapping[str, Any]

# (observation, action, next_observation, terminated, info) -> cost of the step, 0 or 1
Cost: TypeAlias = Callable[[Array, Array, Array, bool, Info], float]


class UnknownCostError(ValueError):
    """No cost function has this name."""


class MissingCostError(KeyError):
    """The environment does not report the cost that was asked for."""

    def __str__(self) -> str:  # KeyError would print the repr of the sentence
        return str(self.args[0])


def cost_function(name: str, env_id: str = "the environment") -> Cost:
    """Look up a cost function.

    Args:
        name: `info` (any positive `info["cost"]`), `termination` (the episode terminated; right
            where only failure does, as for the Gymnasium walkers) or `none` (never).
        env_id: Named in the error if that environment reports no cost.

    Returns:
        A function of one step, `(observation, action, next_observation, terminated, info)`, whose
        result is 0.0 or 1.0.

    Raises:
        UnknownCostError: With the closest and all known names.
    """
    if name not in COSTS:
        close = difflib.get_close_matches(name, COSTS, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise UnknownCostError(f"unknown cost {name!r}.{hint} Known: {', '.join(COSTS)}.")
    return COSTS[name](env_id)


def _info(env_id: str) -> Cost:
    def cost(
        observation: Array, action: Array, next_observation: Array, terminated: bool, info: Info
    ) -> float:
        if "cost" not in info:
            has = ", ".join(map(str, info)) or "nothing"
            raise MissingCostError(
                f'{env_id} reports no info["cost"], only {has}; choose another cost function, '
                "for example termination."
            )
        return float(info["cost"] > 0)

    return cost


def _termination(env_id: str) -> Cost:
    return lambda observation, action, next_observation, terminated, info: float(terminated)


def _none(env_id: str) -> Cost:
    return lambda observation, action, next_observation, terminated, info: 0.0


COSTS: dict[str, Callable[[str], Cost]] = {
    "info": _info,
    "termination": _termination,
    "none": _none,
}
