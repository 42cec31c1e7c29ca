"""The safety critic: how likely an action leads to a violation.

Letters: B rows, O observation and A action dimension.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safetypilot.models.runtime import Model

Array = NDArray[np.float32]


class SafetyCritic:
    """Q_risk of an observation and an action, the larger of the twins, in [0, 1]."""

    def __init__(self, model: Model) -> None:
        """Bind buffers for one row, and run once, so that the first answer is not the slowest.

        Args:
            model: of kind ``safety_critic``.
        """
        self.swap(model)

    def swap(self, model: Model) -> None:
        """Judge with another model from the next call on; one that does not run changes nothing."""
        contract = model.contract
        bound = model.bind(
            observation=(1, contract.observation_size), action=(1, contract.action_size)
        )
        observation: Array = bound.inputs["observation"][0]
        action: Array = bound.inputs["action"][0]
        self._bound = (model, bound, observation, action, bound.outputs["risk"])

    @property
    def model(self) -> Model:
        """The model that judges."""
        return self._bound[0]

    def risk(self, observation: ArrayLike, action: ArrayLike) -> float:
        """Risk of one action, (O,) and (A,); NaN where the input is not finite."""
        _, bound, its_observation, its_action, risk = self._bound
        its_observation[:] = observation
        its_action[:] = action
        bound.run()
        # A network may turn NaN into a number: ReLU does, and the sum of both inputs does not.
        finite = np.isfinite(its_observation.sum() + its_action.sum())
        return float(risk[0]) if finite else float("nan")

    def risks(self, observation: Array, action: Array) -> Array:
        """Risks of many, (B, O) and (B, A) to (B,); NaN where the input is not finite."""
        risk = self.model.run(observation=observation, action=action)["risk"]
        finite = np.isfinite(observation).all(axis=1) & np.isfinite(action).all(axis=1)
        risk[~finite] = np.nan
        return risk
