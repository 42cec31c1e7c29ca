"""Offline data for Object Extraction: demonstrations, and demonstrations gone wrong.

The published recipes (Recovery RL, arXiv 2010.15920) with noise tuned to the published share of
violations on our physics: 363 and, with the dynamic obstacle, 896 of 20,000.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from safetypilot.envs import extraction_names as names
from safetypilot.envs.extraction import Extraction
from safetypilot.envs.extraction_expert import ExtractionExpert

Array = npt.NDArray[Any]
Report = Callable[[int, int], None]
Episode = dict[str, list[Any]]

FIELDS = (
    ("observation", np.float32),
    ("action", np.float32),
    ("cost", np.float32),
    ("reward", np.float32),
    ("next_observation", np.float32),
    ("terminated", np.bool_),
    ("truncated", np.bool_),
)
WILD = 0.2  # m of noise: with the action box, the corners of it at random
CAREFUL = 0.005
TASK_NOISE = 0.001
DYNAMIC_TASK_NOISE = 0.005


def constraint_data(
    dynamic: bool, size: int, generator: np.random.Generator, report: Report
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
    dynamic: bool, size: int, generator: np.random.Generator, report: Report
) -> dict[str, Array]:
    """Demonstrations that lift the box and violate nothing; arguments as `constraint_data`."""
    noise = DYNAMIC_TASK_NOISE if dynamic else TASK_NOISE
    experts = _repeat(ExtractionExpert(dynamic, generator, noise))
    return _collect(dynamic, experts, _exemplary, size, generator, report)


def _demonstrators(dynamic: bool, generator: np.random.Generator) -> Iterator[ExtractionExpert]:
    """Three takes of it in turn: published ones go wild at the boxes, where every other violates.

    Alone they would violate 5 and 6 % of the time here, where nothing but a mistake topples a box;
    a careful one, and one that is wild from the start, bring that to the published share.
    """
    careful = ExtractionExpert(dynamic, generator, CAREFUL)
    if dynamic:
        hasty = ExtractionExpert(True, generator, _schedule(0.01, 7), "low", hasty=True)
        patient = ExtractionExpert(True, generator, _schedule(0.005, 16))
        return _repeat(hasty, patient, careful)
    careless = ExtractionExpert(False, generator, _schedule(0.01, 12), "low")
    return _repeat(careless, careful, ExtractionExpert(False, generator, WILD))


def _repeat(*experts: ExtractionExpert) -> Iterator[ExtractionExpert]:
    while True:
        yield from experts


def _schedule(noise: float, steps: int) -> Callable[[int], float]:
    """Little noise for some steps, then wild."""
    return lambda step: noise if step < steps else WILD


def _exemplary(episode: Episode) -> bool:
    return episode["reward"][-1] == 0.0 and not any(episode["cost"])


def _collect(
    dynamic: bool,
    experts: Iterator[ExtractionExpert],
    keep: Callable[[Episode], bool],
    size: int,
    generator: np.random.Generator,
    report: Report,
) -> dict[str, Array]:
    if size < 1:
        raise ValueError(f"size is {size}; at least one row is needed")
    env = Extraction(dynamic)
    env.reset(seed=int(generator.integers(2**31)))
    rows: Episode = {name: [] for name, _ in FIELDS}
    while len(rows["cost"]) < size:
        episode = _episode(env, next(experts))
        if keep(episode):
            for name, values in rows.items():
                values += episode[name]
            report(min(len(rows["cost"]), size), size)
    env.close()
    data = {name: np.array(rows[name][:size], dtype=dtype) for name, dtype in FIELDS}
    data["truncated"][-1] |= not data["terminated"][-1]
    return data


def _episode(env: Extraction, expert: ExtractionExpert) -> Episode:
    """One episode as columns, at most 25 rows."""
    rows: Episode = {name: [] for name, _ in FIELDS}
    observation, _ = env.reset()
    expert.reset()
    for step in range(names.EPISODE_STEPS):
        action = expert(observation)
        following, reward, terminated, _, info = env.step(action)
        last = step == names.EPISODE_STEPS - 1
        values = (
            observation,
            action,
            info["cost"],
            reward,
            following,
            terminated,
            last and not terminated,
        )
        for (name, _), value in zip(FIELDS, values, strict=True):
            rows[name].append(value)
        if terminated:
            break
        observation = following
    return rows
