"""Seeds: as typed, mixed into one, and one for every episode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safetypilot.policies.learn.errors import LearnError


def seeds_of(text: str) -> Sequence[int]:
    """`3`, `0-4` or `0,2,5` as seeds.

    Raises:
        LearnError: it is none of these.
    """
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            seeds += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        raise LearnError(f"seeds {text!r}: write 3, 0-4 or 0,2,5") from None
    if not seeds or len(set(seeds)) != len(seeds):
        raise LearnError(f"seeds {text!r}: give each once, and the smaller first, such as 0-4")
    return tuple(seeds)


def mixed(seeds: Sequence[int]) -> int:
    """One seed of many; of one, itself."""
    if len(seeds) == 1:
        return int(seeds[0])
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> np.uint64(1))


def start_seed(seed: int, number: int) -> int:
    """A seed per episode, so that a resumed run meets the same starts."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
