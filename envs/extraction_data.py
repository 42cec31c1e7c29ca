"""Offline data for Object Extraction: demonstrations, and demonstrations gone wrong.

The published recipes (Recovery RL, arXiv 2010.15920) with noise tuned to the published share of
violations on our physics: 363 and, with the dynamic obstacle, 896 of 20,000.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from safetypilot.envs import data
from safetypilot.envs import extraction_names as names
from safetypilot.envs.data import Array, Progress, Transition
from safetypilot.envs.extraction import Extraction
from safetypilot.envs.extraction_expert import ExtractionExpert

WILD = 0.2  # m of noise: with the action box, the corners of it at random
CAREFUL = 0.005
TASK_NOISE = 0.001
DYNAMIC_TASK_NOISE = 0.005


def constraint_data(
    dynamic: bool, size: int, generator: np.random.Generator, report: Progress
) -> dict[str, Array]:
    """Careless, careful and wild demonstrators in turn; every episode is kept.

    Args:
        dynamic: With the second arm; every third demonstrator then runs into it.
        size: Rows wanted; the last episode is cut to give exactly as many.
        generator: Fixes the whole data set.
        report: Called after each episode with (rows so far, size).

    Returns:
        `observation`, `next_observation` (N, 27 or 33), `action` (N, 4) as executed, `cost`,
        `reward` (N,), all float32; `terminated`, `truncated` (N,) bool. The row after one with
        either need not continue it.
    """
    experts = _demonstrators(dynamic, generator)
    return _collect(dynamic, experts, lambda episode: True, size, generator, report)


def task_data(
    dynamic: bool, size: int, generator: np.random.Generator, report: Progress
) -> dict[str, Array]:
    """Demonstrations that lift the box and violate nothing; arguments as `constraint_data`."""
    noise = DYNAMIC_TASK_NOISE if dynamic else TASK_NOISE
    experts = itertools.repeat(ExtractionExpert(dynamic, generator, noise))
    return _collect(dynamic, experts, _exemplary, size, generator, report)


def _demonstrators(dynamic: bool, generator: np.random.Generator) -> Iterator[ExtractionExpert]:
    """Three in turn. The published ones go wild at the boxes, where most of them then violate.

    Alone they would violate in 5 and 6 % of the rows, because episodes here are half as long as the
    published ones; a careful one, and one that is wild from the start, bring that down.
    """
    careful = ExtractionExpert(dynamic, generator, CAREFUL)
    if dynamic:
        hasty = ExtractionExpert(True, generator, _schedule(0.01, 7), "low", hasty=True)
        patient = ExtractionExpert(True, generator, _schedule(0.005, 16))
        return itertools.cycle((hasty, patient, careful))
    careless = ExtractionExpert(False, generator, _schedule(0.01, 12), "low")
    return itertools.cycle((careless, careful, ExtractionExpert(False, generator, WILD)))


def _schedule(noise: float, steps: int) -> Callable[[int], float]:
    """Little noise for some steps, then wild."""
    return lambda step: noise if step < steps else WILD


def _exemplary(episode: list[Transition]) -> bool:
    return episode[-1].reward == 0.0 and not any(row.cost for row in episode)


def _collect(
    dynamic: bool,
    experts: Iterator[ExtractionExpert],
    keep: Callable[[list[Transition]], bool],
    size: int,
    generator: np.random.Generator,
    report: Progress,
) -> dict[str, Array]:
    if size < 1:
        raise ValueError(f"size is {size}; at least one row is needed")
    env = Extraction(dynamic)
    env.reset(seed=int(generator.integers(2**31)))
    rows: list[Transition] = []
    while len(rows) < size:
        observation, _ = env.reset()
        expert = next(experts)
        expert.reset()
        episode = data.rollout(env, observation, expert, names.EPISODE_STEPS, stop_at_end=True)
        if keep(episode):
            rows += episode
            report(min(len(rows), size), size)
    env.close()
    last = rows[size - 1]
    rows[size - 1] = last._replace(truncated=not last.terminated)
    return data.stack(rows[:size])
