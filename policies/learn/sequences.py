"""Short stretches of episodes out of stored rows, for models that look several steps ahead.

Letters: S seeds, B batch, T steps, N rows, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safetypilot.policies.learn.errors import LearnError

_REQUIRED = ("observation", "action", "next_observation")


class Stretch(NamedTuple):
    """A batch of stretches; after an episode's end they repeat its last frame, not valid."""

    frames: Tensor  # (S, B, T+1, O), bytes or float32
    actions: Tensor  # (S, B, T, A)
    valid: Tensor  # (S, B, T+1) float32, 1 while the episode lasts


class Sequences:
    """Rows of one seed, to be read as stretches; the arrays are not copied.

    Any row may begin a stretch, so that the last steps before a violation are seen as often as
    all others, and short episodes are of use.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        """Take the rows.

        Args:
            data: observation, next_observation (N, O), action (N, A); terminated and truncated,
                (N,), say where an episode ends. Without `terminated`, a `cost` does.

        Raises:
            LearnError: an array is missing or has another length, or there are no rows.
        """
        missing = [name for name in _REQUIRED if name not in data]
        if missing:
            raise LearnError(f"the data lack {', '.join(missing)}; collect them again")
        self.observation = _pixels(data["observation"])
        self.next_observation = _pixels(data["next_observation"])
        self.action = np.asarray(data["action"], np.float32)
        rows = len(self.observation)
        none = np.zeros(rows, np.bool_)
        terminated = data.get("terminated", np.asarray(data.get("cost", none)) > 0)
        ends = np.asarray(terminated, np.bool_) | np.asarray(data.get("truncated", none), np.bool_)
        lengths = {len(each) for each in (self.next_observation, self.action, ends)} | {rows}
        if lengths != {rows} or not rows:
            raise LearnError(
                f"the arrays have {sorted(lengths)} rows; all need as many, at least 1"
            )
        ends[-1] = True
        index = np.where(ends, np.arange(rows), rows)
        last = np.minimum.accumulate(index[::-1])[::-1]
        self.left = last - np.arange(rows) + 1  # steps to the end of the episode, (N,)

    def __len__(self) -> int:
        return len(self.observation)

    def draw(
        self, rng: np.random.Generator, batch: int, steps: int
    ) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
        """Frames (B, T+1, O), actions (B, T, A) and what of the frames is valid, (B, T+1)."""
        start = rng.integers(len(self), size=batch)
        span = np.minimum(self.left[start], steps)
        rows = start[:, None] + np.minimum(np.arange(steps), span[:, None] - 1)  # (B, T)
        frames = np.concatenate(
            (self.observation[start][:, None], self.next_observation[rows]), axis=1
        )
        valid = np.arange(steps + 1) <= span[:, None]
        return frames, self.action[rows], valid.astype(np.float32)


def draw(
    data: Sequence[Sequences],
    rngs: Sequence[np.random.Generator],
    batch: int,
    steps: int,
    device: torch.device | str = "cpu",
) -> Stretch:
    """One batch for every seed."""
    drawn = [each.draw(rng, batch, steps) for each, rng in zip(data, rngs, strict=True)]
    stacked = (torch.from_numpy(np.stack(arrays)).to(device) for arrays in zip(*drawn, strict=True))
    return Stretch(*stacked)


def _pixels(array: Any) -> NDArray[Any]:
    """(N, O); bytes stay bytes."""
    found = np.asarray(array)
    if found.dtype != np.uint8:
        found = found.astype(np.float32, copy=False)
    return found.reshape(len(found), -1)
