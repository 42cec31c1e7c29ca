"""Predicts with the physics itself: a stand-in for learned dynamics where the true model is known.

Letters: B rows, O observation and A action dimension.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class MujocoDynamics:
    """The true model in place of a learned one: ``mujoco.rollout``, one control step at a time.

    For plants whose observation tells the state they come to rest in, such as the maze: (x, y) are
    its two coordinates, and velocities are zero at the start and end of a step.
    """

    members = 1
    deterministic = True

    def __init__(
        self,
        model: str | Path | Any,
        step_s: float,
        timestep_s: float | None = None,
        to_state: Callable[[Array], NDArray[np.floating]] | None = None,
        to_observation: Callable[[NDArray[np.float64]], NDArray[np.floating]] | None = None,
    ) -> None:
        """Load the model.

        Args:
            model: path of an MJCF file, or an ``mujoco.MjModel``.
            step_s: simulated seconds per control step; the action is the motors' control.
            timestep_s: physics step, None for the model's own; a coarser one is faster.
            to_state: (B, O) -> (B, nq + nv); None if the observation is all of qpos, at rest.
            to_observation: (B, nq + nv) -> (B, O); None likewise.
        """
        import mujoco
        from mujoco import rollout

        if isinstance(model, str | Path):
            model = mujoco.MjModel.from_xml_path(str(model))
        self._model = copy.copy(model)  # its timestep is ours to change
        if timestep_s is not None:
            self._model.opt.timestep = timestep_s
        self._substeps = max(1, round(step_s / self._model.opt.timestep))
        self._data = mujoco.MjData(self._model)
        self._rollout = rollout.Rollout(nthread=0)
        size = mujoco.mj_stateSize(self._model, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
        self._rest = np.zeros(size)
        mujoco.mj_getState(
            self._model, self._data, self._rest, mujoco.mjtState.mjSTATE_FULLPHYSICS.value
        )
        self._to_state = to_state
        self._to_observation = to_observation

    def run(self, **inputs: Array) -> dict[str, Array]:
        """Simulate one control step of ``observation`` and ``action``, (1, B, O) and (1, B, A)."""
        observation, action = inputs["observation"][0], inputs["action"][0]
        initial = np.tile(self._rest, (len(observation), 1))
        moved = observation if self._to_state is None else self._to_state(observation)
        initial[:, 1 : 1 + moved.shape[1]] = moved  # column 0 is the time
        control = np.asarray(action, np.float64)[:, None]
        states, _ = self._rollout.rollout(
            self._model, self._data, initial, control, nstep=self._substeps
        )
        last = states[:, -1, 1 : 1 + self._model.nq + self._model.nv]
        size = observation.shape[1]
        found = last[:, :size] if self._to_observation is None else self._to_observation(last)
        return {"next_observation": found[None].astype(np.float32)}
