"""Steps several environments at once, and tells what happened without crossing episodes.

Vectorised environments (`gymnasium.vector`) reset themselves where an episode has ended, in one of
three ways. Whichever it is, a row here goes from an observation to the one that its action led to,
the last of an episode included; a step that only reset is marked, and is no transition.
Letters: N environments, O observation, A action.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.replay import Array, Replay, Transition


class Steps(NamedTuple):
    """One step of every environment."""

    observation: Array  # (N, O)
    action: Array  # (N, A)
    reward: Array  # (N,)
    cost: Array  # (N,)
    next_observation: Array  # (N, O), of the same episode
    terminated: Array  # (N,)
    truncated: Array  # (N,)
    success: Array  # (N,), as the environment says; False where it says nothing
    valid: Array  # (N,), False where an environment was only reset


class Collector:
    """Environments under way.

    Attributes:
        observation: where each stands now, (N, O); images as rows of bytes.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any], seed: int) -> None:
        """Start all episodes.

        Args:
            envs: a SyncVectorEnv or AsyncVectorEnv whose environments give `info["cost"]`.
            seed: of the first episodes; each environment has another.

        Raises:
            LearnError: nobody knows how the environments reset themselves.
        """
        self.envs = envs
        mode = envs.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            known = ", ".join(f"AutoresetMode.{each.name}" for each in AutoresetMode)
            raise LearnError(
                f"the vector environment's autoreset_mode is {mode!r}; its metadata must say one "
                f"of {known}"
            )
        self._mode = mode
        self.observation = _flat(envs.reset(seed=seed)[0])
        self._ended = np.zeros(envs.num_envs, np.bool_)

    def step(self, action: Array) -> Steps:
        """Act (N, A) in every environment.

        Raises:
            LearnError: an environment reports no cost.
        """
        before, count = self.observation, self.envs.num_envs
        valid = ~self._ended if self._mode is AutoresetMode.NEXT_STEP else np.ones(count, np.bool_)
        raw, reward, terminated, truncated, infos = self.envs.step(action)
        ended = terminated | truncated
        after = _flat(raw)
        last, apart = after, ended & (self._mode is AutoresetMode.SAME_STEP)
        if apart.any():
            last = after.copy()
            for index in np.flatnonzero(apart):
                last[index] = np.asarray(infos["final_obs"][index]).ravel()
        elif self._mode is AutoresetMode.DISABLED and ended.any():
            after = _flat(self.envs.reset(options={"reset_mask": ended})[0])
        self.observation, self._ended = after, ended
        cost = _told(infos, "cost", apart)
        silent = valid & np.isnan(cost)
        if silent.any():
            raise LearnError(
                f'environment {int(silent.argmax())} reports no info["cost"]; use one of '
                "safetypilot's, or wrap it: safety cannot be learned without costs"
            )
        success = _told(infos, "success", apart) > 0  # nan is not
        cost = np.where(valid, cost, 0.0)
        rows = (before, np.array(action), reward, cost, last, terminated, truncated)
        return Steps(*rows, success & valid, valid)


def store(replay: Replay, steps: Steps, proposed: Array | None = None, seed: int = 0) -> None:
    """Put the valid steps into a replay; `proposed` (N, A) if it was not what was executed."""
    wanted = steps.action if proposed is None else proposed
    for index in np.flatnonzero(steps.valid):
        replay.add(
            Transition(
                steps.observation[index],
                wanted[index],
                steps.action[index],
                steps.reward[index],
                steps.cost[index],
                steps.next_observation[index],
                steps.terminated[index],
                steps.truncated[index],
            ),
            seed,
        )


def _flat(observation: Any) -> Array:
    """(N, ...) as a copy of rows (N, O): float32, or bytes for images."""
    array = np.asarray(observation)
    kind = np.uint8 if array.dtype == np.uint8 else np.float32
    return array.reshape(len(array), -1).astype(kind, copy=True)


def _told(infos: dict[str, Any], name: str, apart: Array) -> Array:
    """A value of each environment's step, (N,); of those in `apart` (N,) it lies with the end."""
    values = _gathered(infos, name, len(apart))
    if not apart.any():
        return values
    return np.where(apart, _gathered(infos["final_info"], name, len(apart)), values)


def _gathered(infos: dict[str, Any], name: str, count: int) -> Array:
    """A value of each environment, (N,); nan where nothing was told."""
    if name not in infos:
        return np.full(count, np.nan)
    return np.where(infos[f"_{name}"], np.asarray(infos[name], np.float64), np.nan)
