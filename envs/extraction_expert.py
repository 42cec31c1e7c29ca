"""A scripted hand for Object Extraction: align, reach between the boxes, close, lift.

Written for the physics of assets/extraction.xml; the published controller topples every second time
on current MuJoCo. Of the published one it keeps the stages, the two qualities and the noise.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from safetypilot.envs import extraction_names as names

Noise = Callable[[int], float]

REACH = 0.15  # m from a box's centre to the hand's that grasps it: fingertips 3 cm behind it
FINGERTIP = 0.18  # m from the hand's centre
GUARD = 0.05  # m that fingertips stay before the boxes' centres while not aligned
CLOSE = 0.06  # finger command of a grasp; the fingers stop at 0.04
GRASPED = 0.037  # m of a finger: it touches the box
RAISED = 0.09  # m: clears the distractor by 2 cm
CLEARANCE = 0.03  # m in x between the distractor's fingertips and the hand
HAND_HALF_WIDTH = 0.1
DISTRACTOR_TIP_X = 0.05 - 0.18  # m of its base and its fingers
CROSSING = 0.24  # m: fingertips beyond this y are out of the distractor's way


class Quality(NamedTuple):
    """How precise a demonstrator is; lengths in m."""

    align: float  # error in x with which the fingers go in between the boxes
    depth: float  # error in y with which they close
    finger: float  # how far they are closed on the way


QUALITIES = {"high": Quality(0.008, 0.01, 0.03), "low": Quality(0.03, 0.04, 0.02)}


class ExtractionExpert:
    """Maps an observation of `Extraction` to an action (4,) float32 within its box.

    Args:
        dynamic: Which variant; the dynamic hand flies over the distractor, then lowers itself.
        rng: Draws the noise; only needed if there is any.
        noise: Standard deviation of Gaussian noise on all four actions, in m, or a function of
            the step in the episode.
        quality: "high", or "low": it goes in before it is aligned and touches the neighbours.
        hasty: `dynamic` only: go straight for the boxes, through the distractor.
    """

    def __init__(
        self,
        dynamic: bool,
        rng: np.random.Generator | None = None,
        noise: float | Noise = 0.0,
        quality: str = "high",
        hasty: bool = False,
    ) -> None:
        if quality not in QUALITIES:
            raise ValueError(f"quality is {quality!r}; the expert knows {' and '.join(QUALITIES)}")
        if noise and rng is None:
            raise ValueError("noise needs a generator: pass rng=numpy.random.default_rng(seed)")
        self._dynamic = dynamic
        self._rng = rng
        self._noise = noise
        self._quality = QUALITIES[quality]
        self._hasty = hasty
        self._base_y = 0.43 if dynamic else 0.2
        self._high = np.array(names.DYNAMIC_ACTION_HIGH if dynamic else names.ACTION_HIGH)
        self.reset()

    def reset(self) -> None:
        """Begin a new episode."""
        self._step = 0
        self._closing = False

    def __call__(self, observation: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """The next action (4,) for an observation (27,) or, dynamic, (33,)."""
        action = self._intended(np.asarray(observation, dtype=np.float64))
        noise = self._noise(self._step) if callable(self._noise) else self._noise
        if self._rng is not None and noise > 0.0:
            action += noise * self._rng.standard_normal(4)
        self._step += 1
        return np.clip(action, -self._high, self._high).astype(np.float32)

    def _intended(self, observation: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        quality = self._quality
        hand = observation[:3] + np.array([0.0, self._base_y, 0.0])
        box = observation[-14:-12]
        # The target cannot go further than 0.4 m from its base.
        depth = max(box[1] + REACH, self._base_y - 0.4) - hand[1]
        self._closing |= abs(depth) <= quality.depth and abs(box[0] - hand[0]) <= quality.align
        if self._closing:
            lift = self._high[2] if observation[4] >= GRASPED else 0.0
            return np.array([0.0, 0.0, lift, CLOSE])
        height = self._height(observation, hand)
        if abs(box[0] - hand[0]) > quality.align:
            depth = max(depth, min(box[1] + GUARD + FINGERTIP - hand[1], 0.0))
        if height > hand[2] + 0.02:
            depth = max(depth, min(CROSSING + FINGERTIP - hand[1], 0.0))
        return np.array([box[0] - hand[0], depth, height - hand[2], quality.finger])

    def _height(self, observation: npt.NDArray[np.float64], hand: npt.NDArray[np.float64]) -> float:
        """Joint z wanted: above the distractor until it is out of the way."""
        if not self._dynamic or self._hasty:
            return 0.0
        tip = DISTRACTOR_TIP_X + observation[6]
        clear = tip > max(hand[0], observation[-14]) + HAND_HALF_WIDTH + CLEARANCE
        return 0.0 if clear else RAISED
