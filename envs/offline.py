"""Data sets, demonstrations and scripted experts of our tasks, by name.

The recipes are those published with Recovery RL (arXiv 2010.15920) where it gives one; each stands
in the module that the task names in envs/tasks.py.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from safetypilot.envs import registry
from safetypilot.envs.data import Array, Policy, Progress

WHAT = {
    "offline": "offline data recipe",
    "sequences": "recipe for sequences of images",
    "demonstrations": "demonstrator",
    "expert": "scripted expert",
}
MINIMUM_SIZE = 40  # below it, a recipe would have a part without a single rollout


def offline_data(
    name: str, size: int, seed: int, *, progress: Progress | None = None, **options: Any
) -> dict[str, Array]:
    """Generate the offline data set of one of our tasks, with violations in it.

    Args:
        name: A short name of ours, or a full id.
        size: Transitions wanted. Most recipes give exactly as many; the Navigation tasks give
            fewer (about 0.73 and 0.99 of it), because published it sets their number of rollouts
            and these stop at a violation.
        seed: Fixes the whole data set.
        progress: Called now and then with (done, total), in transitions or rollouts.
        **options: Of the recipe: `continue_after_violation` for the mazes (default True: a block
            of 20 steps goes on after a violation, as published), `as_published` for the
            locomotion tasks (default False: as many rollouts as `size` takes).

    Returns:
        Arrays of N rows: `observation`, `next_observation` (N, O) float32, or uint8 flattened
        images; `action` (N, A), `cost`, `reward` (N,) float32; `terminated` (violation or
        success), `truncated` (N,) bool. The row after one with `terminated` or `truncated` need
        not continue it. Actions are as executed.

    Raises:
        ValueError: There is no recipe, it does not know an option, or `size` is too small.
    """
    return _data("offline", name, size, seed, progress, options)


def task_data(
    name: str, size: int, seed: int, *, progress: Progress | None = None
) -> dict[str, Array]:
    """Demonstrations of a task, in the fields of `offline_data`; extraction alone has any.

    Raises:
        ValueError: The task has no demonstrations, or `size` is too small.
    """
    return _data("demonstrations", name, size, seed, progress, {})


def offline_sequences(
    name: str, size: int, seed: int, *, progress: Progress | None = None
) -> dict[str, Array]:
    """Offline data of an image task as sequences, to learn its dynamics from.

    Args:
        name: `image-maze` or `image-reach`.
        size: Transitions wanted; rounded down to whole blocks of 20 steps.
        seed: Fixes the whole data set.
        progress: Called now and then with (done, total), in transitions.

    Returns:
        `observation` (blocks, 21, H, W, 3) uint8, `action` (blocks, 20, A) float32 and `cost`
        (blocks, 20) float32.

    Raises:
        ValueError: The task has no images, or `size` is too small.
    """
    return _data("sequences", name, size, seed, progress, {})


def expert(name: str) -> Policy:
    """The scripted expert of one of our tasks: from an observation, flat or not, to an action.

    Call its `reset()`, if it has one, at the start of each episode.

    Raises:
        ValueError: The task has no expert.
    """
    found = _function("expert", name)
    policy: Policy = found() if isinstance(found, type) else found
    return policy


def _data(
    field: str,
    name: str,
    size: int,
    seed: int,
    progress: Progress | None,
    options: dict[str, Any],
) -> dict[str, Array]:
    recipe = _function(field, name)
    if size < MINIMUM_SIZE:
        raise ValueError(f"size is {size}; the recipes need at least {MINIMUM_SIZE}")
    known = getattr(recipe, "__kwdefaults__", None) or {}
    unknown = sorted(set(options) - set(known))
    if unknown:
        has = ", ".join(known) or "no options"
        raise ValueError(f"the {WHAT[field]} of {name!r} knows {has}, not {', '.join(unknown)}")
    generator = np.random.default_rng(seed)
    report = progress or (lambda done, total: None)
    data: dict[str, Array] = recipe(registry.resolve(name), size, generator, report, **options)
    return data


def _function(field: str, name: str) -> Callable[..., Any]:
    """What a task names in one of its fields."""
    task = registry.TASKS.get(registry.resolve(name))
    path = getattr(task, field) if task else ""
    if not path:
        having = [
            short for short, full in registry.IDS.items() if getattr(registry.TASKS[full], field)
        ]
        raise ValueError(f"there is no {WHAT[field]} for {name!r}, only for {', '.join(having)}")
    module, _, function = path.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found
