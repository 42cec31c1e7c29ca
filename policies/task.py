"""The task policy: what the robot would do if nothing could go wrong.

Letters: O observation and A action dimension.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safetypilot.models.runtime import Model

Array = NDArray[np.float32]


class TaskPolicy:
    """Acts on one observation at a time, deterministically."""

    def __init__(self, model: Model) -> None:
        """Bind buffers for one row, and run once, so that the first answer is not the slowest.

        Args:
            model: of kind ``task_policy``.
        """
        self.swap(model)

    def swap(self, model: Model) -> None:
        """Act with another model from the next call on; one that does not run changes nothing."""
        if model.contract.recurrent:
            raise ValueError(f"{model.version} is recurrent; the task policy carries no state yet")
        bound = model.bind(observation=(1, model.contract.observation_size))
        observation: Array = bound.inputs["observation"][0]
        action: Array = bound.outputs["action"][0]
        self._bound = (model, bound, observation, action)

    @property
    def model(self) -> Model:
        """The model that acts."""
        return self._bound[0]

    def act(self, observation: ArrayLike) -> Array:
        """The action for an observation (O,), (A,), a fresh array."""
        _, bound, its_observation, action = self._bound
        its_observation[:] = observation
        bound.run()
        return action.copy()
