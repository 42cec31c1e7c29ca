"""A control step of an environment in equal parts, for a plant that is commanded more often.

A task is learned at one rate, a robot is commanded at another. Here the physics of one control step
is done in parts, each with an action of its own; reward, cost, success, time limit and noise stay
those of the whole control step and come with its last part. With the action held, the parts give
bit by bit what the whole step gives.

Only environments whose physics can be divided are supported: ours that are pushed through the
plane (envs/puck.py), and Gymnasium's MuJoCo environments with what we made of them.
"""

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from safetypilot.envs.registry import UnsupportedEnvironmentError

Array = npt.NDArray[Any]
Step = tuple[Array, float, bool, bool, dict[str, Any]]

# An environment from elsewhere may do something to its action that cannot be seen from here.
_KNOWN = ("gymnasium.", "safetypilot.envs.")


class SplitStep:
    """Does the control steps of an environment in `parts` parts."""

    def __init__(self, env: Any, parts: int) -> None:
        """Take an environment as `gymnasium.make` or `registry.make_flat` gives it.

        Raises:
            UnsupportedEnvironmentError: its physics cannot be divided, or not into so many parts.
        """
        self._env = env
        self._wrappers = _wrappers(env)
        inner = env.unwrapped
        whole, self._physics = _physics(inner)
        if parts < 1 or whole % parts:
            raise UnsupportedEnvironmentError(
                f"a control step of {_name(inner)} is {whole} physics steps, which cannot be done "
                f"in {parts} equal parts; it can in {_listed(whole)}"
            )
        self._each = whole // parts

    def advance(self, action: npt.ArrayLike) -> Array:
        """Do one part that is not the last; what is observed after it."""
        for wrapper in self._wrappers:
            if isinstance(wrapper, gymnasium.ActionWrapper):
                action = wrapper.action(action)
        observation = self._physics.advance(action, self._each)
        for wrapper in reversed(self._wrappers):
            if isinstance(wrapper, gymnasium.ObservationWrapper):
                observation = wrapper.observation(observation)
        return np.asarray(observation)

    def step(self, action: npt.ArrayLike) -> Step:
        """Do the last part; what came of the whole control step."""
        result: Step = self._env.step(action)
        return result


def _wrappers(env: Any) -> list[Any]:
    """From the outermost to the innermost."""
    found = []
    while env is not env.unwrapped:
        found.append(env)
        env = env.env
    return found


def _physics(inner: Any) -> tuple[int, Any]:
    """Physics steps in a control step, and what advances some of them."""
    if hasattr(inner, "advance") and hasattr(inner, "physics_steps"):
        return inner.physics_steps, inner
    from gymnasium.envs.mujoco import MujocoEnv

    known = all(
        kind.__module__.startswith(_KNOWN) or kind.__module__ in ("typing", "builtins")
        for kind in type(inner).__mro__
    )
    if not isinstance(inner, MujocoEnv) or not known:
        raise UnsupportedEnvironmentError(
            f"a control step of {_name(inner)} cannot be divided: its physics is not MuJoCo's, or "
            "not within reach. Fly it without control_rate, with the graph at its own rate."
        )
    return inner.frame_skip, _Mujoco(inner)


class _Mujoco:
    """Divides the frame skip of Gymnasium's MuJoCo environments.

    Their `step` looks at the state, simulates, and looks again. So the last part shows it the
    state before the first part, and goes on from where the parts before it got.
    """

    def __init__(self, inner: Any) -> None:
        import mujoco

        self._inner = inner
        self._copy = mujoco.mj_copyData
        self._simulate = inner.do_simulation
        self._start, self._reached = (mujoco.MjData(inner.model) for _ in range(2))
        self._done = 0
        inner.do_simulation = self._finish
        reset, step = inner.reset_model, inner.step

        def reset_model() -> Any:
            self._done = 0
            return reset()

        def whole_step(action: npt.ArrayLike) -> Any:
            if self._done:
                self._copy(self._reached, inner.model, inner.data)
                self._copy(inner.data, inner.model, self._start)
            return step(action)

        inner.reset_model, inner.step = reset_model, whole_step

    def advance(self, action: npt.ArrayLike, steps: int) -> Array:
        """Simulate some physics steps; what is observed after them."""
        inner = self._inner
        if not self._done:
            self._copy(self._start, inner.model, inner.data)
        space = inner.action_space
        command = np.asarray(action, dtype=np.float64)
        if _name(inner).startswith("safetypilot."):
            command = command.clip(space.low, space.high)  # as its own step does
        self._simulate(command, steps)
        self._done += steps
        observation: Array = inner._get_obs().astype(inner.observation_space.dtype)
        return observation

    def _finish(self, command: Array, steps: int) -> None:
        """What the environment's own step calls to simulate."""
        inner = self._inner
        if self._done:
            self._copy(inner.data, inner.model, self._reached)
        self._simulate(command, steps - self._done)
        self._done = 0


def _name(inner: Any) -> str:
    return f"{type(inner).__module__}.{type(inner).__name__}"


def _listed(whole: int) -> str:
    """The numbers of parts that are possible, the first few and the last."""
    divisors = [n for n in range(1, whole + 1) if whole % n == 0]
    shown = divisors if len(divisors) <= 10 else [*divisors[:9], "...", divisors[-1]]
    return ", ".join(map(str, shown))
