"""The task policy: what the robot would do if nothing could go wrong.

Letters: O observation and A action dimension.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safetypilot.models.runtime import Model

Array = NDArray[np.float32]


class TaskPolicy:
    """Acts on one observation at a time, deterministically.

    A recurrent policy carries its state from call to call, until `reset`.
    """

    def __init__(self, model: Model) -> None:
        """Bind buffers for one row, and run once, so that the first answer is not the slowest.

        Args:
            model: of kind ``task_policy``.
        """
        self.swap(model)

    def swap(self, model: Model) -> None:
        """Act with another model from the next call on; one that does not run changes nothing."""
        shapes = {"observation": (1, model.contract.observation_size), **model.state_shapes()}
        bound = model.bind(**shapes)
        observation: Array = bound.inputs["observation"][0]
        action: Array = bound.outputs["action"][0]
        self._bound = (model, bound, observation, action)
        self._states = [
            (name, bound.inputs[name], bound.outputs[following])
            for name, following in model.contract.recurrent
        ]

    @property
    def model(self) -> Model:
        """The model that acts."""
        return self._bound[0]

    @property
    def recurrent(self) -> bool:
        return bool(self._states)

    def act(self, observation: ArrayLike) -> Array:
        """The action for an observation (O,), (A,), a fresh array."""
        _, bound, its_observation, action = self._bound
        its_observation[:] = observation
        bound.run()
        for _, state, following in self._states:
            state[...] = following
        return action.copy()

    def rehearse(self) -> None:
        """Compute the last action once more; nothing comes of it, and no state moves on."""
        self._bound[1].run()

    def reset(self) -> None:
        """Forget: recurrent state is zero, as at the start of an episode."""
        for _, state, _ in self._states:
            state.fill(0.0)

    def carry(self, other: "TaskPolicy") -> str:
        """Take over another's recurrent state where names and shapes agree, else reset.

        Returns:
            "carried", "reset", or nothing where this policy has no state.
        """
        theirs = {name: state for name, state, _ in other._states}
        if not self._states:
            return ""
        agree = len(theirs) == len(self._states) and all(
            name in theirs and theirs[name].shape == state.shape for name, state, _ in self._states
        )
        if not agree:
            self.reset()
            return "reset"
        for name, state, _ in self._states:
            state[...] = theirs[name]
        return "carried"
