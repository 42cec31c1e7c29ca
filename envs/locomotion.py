"""Four walkers that may not fall, without a bonus for not falling (MuJoCo, Gymnasium's models).

The environments that users of Recovery RL added to it, rebuilt on Gymnasium's version 5. Failure
shows in `info["cost"]` alone: the reward knows nothing of it. What differs from the published ones:
Gymnasium's version 5 of the models and of their rewards (contact forces are computed there; the
published ones ran on MuJoCo 2.0, which left them zero unless asked); and the cheetah's head is
tested in the simulation itself, not in a second one restored from the observation.

None has a goal, so infos hold no `success`.
"""

from typing import Any

import gymnasium
import mujoco
import numpy as np
import numpy.typing as npt
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.envs.mujoco.humanoid_v5 import HumanoidEnv

Step = tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]


class _Walker(MujocoEnv):  # type: ignore[misc]  # gymnasium is not followed by mypy
    """What each does to its Gymnasium class: float32 observations, refused NaNs, a cost."""

    def __init__(self, render_mode: str | None = None, **settings: Any) -> None:
        super().__init__(render_mode=render_mode, **settings)
        # The parent records its own arguments for copies; ours takes only this one.
        gymnasium.utils.EzPickle.__init__(self, render_mode=render_mode)
        size = sum(
            value for key, value in self.observation_structure.items() if "skipped" not in key
        )
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Start standing, with a little noise; there are no options."""
        observation, info = super().reset(seed=seed)
        return observation.astype(np.float32), {**info, "cost": self._cost()}

    def step(self, action: npt.ArrayLike) -> Step:
        """One control period with motor commands `action`, clipped to their box."""
        space = self.action_space
        command = np.asarray(action, dtype=np.float64)
        if command.shape != space.shape or not np.isfinite(command).all():
            raise ValueError(
                f"the action is {action!r}; {space.shape[0]} finite numbers are needed"
            )
        observation, reward, terminated, _, info = super().step(command.clip(space.low, space.high))
        info["cost"] = self._cost()
        return observation.astype(np.float32), float(reward), bool(terminated), False, info

    def _cost(self) -> float:
        return float(not self.is_healthy)


class AntNoBonus(_Walker, AntEnv):  # type: ignore[misc]
    """Run forward; falling or jumping terminates: the torso's height left 0.2 to 1.0 m.

    Observation (27,): height, orientation, 8 joint angles, and all velocities. Action (8,): motor
    commands, box +-1. Reward: forward velocity in m/s, less 0.5 |a|^2 and 0.0005 times the squared
    contact forces, each clipped to +-1. `info["cost"]` is 1.0 exactly if the step terminates.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode, healthy_reward=0.0, include_cfrc_ext_in_observation=False)


class HopperNoBonus(_Walker, HopperEnv):  # type: ignore[misc]
    """Hop forward; falling terminates: height <= 0.7 m, |pitch| >= 0.2 rad, or any state >= 100.

    Observation (11,): height, pitch, 3 joint angles, and all velocities, those clipped to +-10.
    Action (3,): motor commands, box +-1. Reward: forward velocity in m/s less 0.001 |a|^2.
    `info["cost"]` is 1.0 exactly if the step terminates.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode, healthy_reward=0.0)


class HumanoidNoBonus(_Walker, HumanoidEnv):  # type: ignore[misc]
    """Walk forward; falling or jumping terminates: the torso's height left 1.0 to 2.0 m.

    Observation (45,): height, orientation, 17 joint angles, and all velocities. Action (17,): motor
    commands, box +-0.4. Reward: 1.25 times the forward velocity of the centre of mass in m/s, less
    0.1 |a|^2 and 5e-7 times the squared contact forces, that at most 10. `info["cost"]` is 1.0
    exactly if the step terminates.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(
            render_mode,
            healthy_reward=0.0,
            include_cinert_in_observation=False,
            include_cvel_in_observation=False,
            include_qfrc_actuator_in_observation=False,
            include_cfrc_ext_in_observation=False,
        )


class CheetahNoFlip(_Walker, HalfCheetahEnv):  # type: ignore[misc]
    """Run forward without the head touching the floor; nothing terminates an episode.

    Observation (17,): height, pitch, 6 joint angles, and all velocities. Action (6,): motor
    commands, box +-1. Reward: forward velocity in m/s less 0.1 |a|^2. `info["cost"]` is 1.0 in
    every step at whose end the head touches the floor.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        # Gymnasium's model file uses an attribute that MuJoCo 4 warns of, on stderr and in a log
        # file in the working directory, each time. Nobody here can mend that file.
        mujoco.set_mju_user_warning(_ignore)
        try:
            super().__init__(render_mode)
        finally:
            mujoco.set_mju_user_warning(None)
        self._pair = {self.model.geom("head").id, self.model.geom("floor").id}

    def _cost(self) -> float:
        # Contacts are those of the last substep's start; bring them to the present state.
        mujoco.mj_fwdPosition(self.model, self.data)
        return float(any(set(pair) == self._pair for pair in self.data.contact.geom.tolist()))


def _ignore(message: str) -> None:
    """Discards a warning of MuJoCo."""
