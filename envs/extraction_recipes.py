"""Extraction's demonstrators in the form that envs/offline.py calls."""

import numpy as np

from safetypilot.envs import extraction_data
from safetypilot.envs.data import Array, Progress
from safetypilot.envs.extraction_expert import ExtractionExpert
from safetypilot.envs.tasks import TASKS


class StaticExpert(ExtractionExpert):
    """The careful expert of `extraction`, without noise."""

    def __init__(self) -> None:
        super().__init__(dynamic=False)


class DynamicExpert(ExtractionExpert):
    """The careful expert of `extraction-dynamic`, without noise."""

    def __init__(self) -> None:
        super().__init__(dynamic=True)


def offline(
    env_id: str, size: int, generator: np.random.Generator, progress: Progress
) -> dict[str, Array]:
    """Demonstrations gone wrong; see `extraction_data.constraint_data`."""
    dynamic = TASKS[env_id].kwargs["dynamic"]
    return extraction_data.constraint_data(dynamic, size, generator, progress)


def demonstrations(
    env_id: str, size: int, generator: np.random.Generator, progress: Progress
) -> dict[str, Array]:
    """Demonstrations without a violation; see `extraction_data.task_data`."""
    return extraction_data.task_data(TASKS[env_id].kwargs["dynamic"], size, generator, progress)
