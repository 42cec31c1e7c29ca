"""What the offline recipes share: rows, rollouts, and blocks that may be cut at a violation.

Every recipe is a function `(env_id, size, generator, progress, **options) -> arrays` and draws from
its own `numpy.random.Generator`, so a seed fixes the data set. Letters: N rows, O observation, A
action.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Policy: TypeAlias = Callable[[Array], Array]
Progress: TypeAlias = Callable[[int, int], None]


class Transition(NamedTuple):
    """One row of a data set, with observations (O,) and an action (A,)."""

    observation: Array
    action: Array
    cost: float
    reward: float
    next_observation: Array
    terminated: bool
    truncated: bool


def rollout(
    env: Any,
    observation: Array,
    policy: Policy,
    steps: int,
    *,
    stop_at_violation: bool = True,
    stop_at_end: bool = False,
) -> list[Transition]:
    """Run a policy in an environment that was just reset.

    Args:
        env: The bare environment, without a time limit of its own.
        observation: What reset gave.
        policy: From that observation to an action.
        steps: At most as many; the last one is truncated unless something stopped it.
        stop_at_violation: End after a step that costs; otherwise the rollout goes on, as some
            published recipes do.
        stop_at_end: End after a step that terminates for whatever reason.
    """
    rows: list[Transition] = []
    for step in range(steps):
        action = policy(observation)
        following, reward, terminated, _, info = env.step(action)
        stop = (stop_at_violation and info["cost"] > 0) or (stop_at_end and terminated)
        truncated = step == steps - 1 and not stop
        rows.append(
            Transition(observation, action, info["cost"], reward, following, terminated, truncated)
        )
        if stop:
            break
        observation = following
    return rows


def stack(rows: list[Transition]) -> dict[str, Array]:
    """Rows as arrays: observations (N, O) float32, or flattened uint8 where they are images."""
    columns = dict(zip(Transition._fields, zip(*rows, strict=True), strict=True))
    return {field: _column(field, column) for field, column in columns.items()}


def _column(field: str, column: tuple[Any, ...]) -> Array:
    if field in ("terminated", "truncated"):
        return np.array(column, dtype=bool)
    if getattr(column[0], "dtype", None) == np.uint8:
        return np.stack(column).reshape(len(column), -1)
    return np.array(column, dtype=np.float32)


def frames(block: list[Transition]) -> Array:
    """All observations of a rollout, the one after its last step included, (steps + 1, ...)."""
    return np.stack([*(row.observation for row in block), block[-1].next_observation])


def sequences(blocks: list[list[Transition]]) -> dict[str, Array]:
    """Blocks of equal length as `observation` (blocks, steps + 1, H, W, C) uint8, `action`

    (blocks, steps, A) float32 and `cost` (blocks, steps) float32.
    """
    return {
        "observation": np.stack([frames(block) for block in blocks]),
        "action": np.array([[row.action for row in block] for block in blocks], np.float32),
        "cost": np.array([[row.cost for row in block] for block in blocks], np.float32),
    }
