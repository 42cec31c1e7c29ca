"""Any environment by name: made, made flat for the stack, and described.

Nothing heavy is imported before an environment is made: `describe` of one of ours reads the table
in envs/tasks.py.
"""

import difflib
import importlib
from typing import Any

from safetypilot.envs.tasks import IDS, TASKS, Description, Task

__all__ = [
    "IDS",
    "TASKS",
    "Description",
    "Task",
    "UnknownEnvironmentError",
    "UnsupportedEnvironmentError",
    "describe",
    "describe_spaces",
    "make",
    "make_flat",
    "register",
    "resolve",
]


class UnknownEnvironmentError(ValueError):
    """No environment, ours or Gymnasium's, has this name."""


class UnsupportedEnvironmentError(ValueError):
    """An environment whose spaces the stack cannot carry."""


def register() -> None:
    """Tell Gymnasium our ids; a second call does nothing."""
    import gymnasium

    for env_id, task in TASKS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(
                id=env_id,
                entry_point=task.entry_point,
                max_episode_steps=task.episode_steps,
                kwargs=task.kwargs,
                disable_env_checker=True,  # tests/envs runs the full checker; it costs every step
            )


def resolve(name_or_id: str) -> str:
    """The Gymnasium id of a short name, an id, or `module:id` as Gymnasium writes it.

    Raises:
        UnknownEnvironmentError: Neither we nor Gymnasium know it.
    """
    env_id = IDS.get(name_or_id, name_or_id)
    if env_id in TASKS:
        return env_id
    import gymnasium

    register()
    module, _, bare_id = env_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        spec = gymnasium.spec(bare_id)
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        raise UnknownEnvironmentError(_unknown(name_or_id, error)) from error
    # A module stays in the id, because another process has to import it too; ours never has to.
    return str(spec.id) if spec.id in TASKS else env_id


def make(name_or_id: str, **kwargs: Any) -> Any:
    """Make an environment by short name (`maze`) or any Gymnasium id (`Pendulum-v1`).

    Args:
        name_or_id: A short name of ours or a Gymnasium id.
        **kwargs: Passed on to `gymnasium.make`.

    Raises:
        UnknownEnvironmentError: With the known names and the closest ones.
    """
    import gymnasium

    env_id = resolve(name_or_id)
    register()
    return gymnasium.make(env_id, **kwargs)


def make_flat(name_or_id: str, **kwargs: Any) -> Any:
    """Make an environment as the stack sees it: float32 vectors in, float32 vectors out.

    Observations are flattened (images keep their values, 0 to 255), a discrete choice becomes a
    vector of preferences (envs/discrete.py), infos and options are left alone.

    Args:
        name_or_id: A short name of ours or a Gymnasium id.
        **kwargs: Passed on to `gymnasium.make`.

    Raises:
        UnknownEnvironmentError: Nobody knows the name.
        UnsupportedEnvironmentError: Spaces that the stack cannot carry.
    """
    from gymnasium.spaces import Discrete

    from safetypilot.envs.discrete import Preferences
    from safetypilot.envs.flat import Flat

    env = make(name_or_id, **kwargs)
    try:
        describe_spaces(env.observation_space, env.action_space, name_or_id)
    except UnsupportedEnvironmentError:
        env.close()
        raise
    if isinstance(env.action_space, Discrete):
        env = Preferences(env)
    space = env.observation_space
    return env if len(space.shape) == 1 and space.dtype == "float32" else Flat(env)


def describe(name_or_id: str, **kwargs: Any) -> dict[str, Any]:
    """Names, units and limits of an environment, as the plant interface wants them.

    Args:
        name_or_id: A short name of ours (cheap: a table) or a Gymnasium id (makes it once).
        **kwargs: Passed on to `gymnasium.make` for environments that are not ours.

    Returns:
        Lists `observation_names`, `observation_units`, `action_names`, `action_units`,
        `action_low`, `action_high`, `failsafe`, and the int `observation_size`. A name such as
        `image[64,64,3]` stands for all values of an image.

    Raises:
        UnknownEnvironmentError: Nobody knows the name.
        UnsupportedEnvironmentError: Spaces that the stack cannot carry.
    """
    env_id = resolve(name_or_id)
    if env_id in TASKS:
        return TASKS[env_id].description.as_dict
    env = make(env_id, **kwargs)
    try:
        return describe_spaces(env.observation_space, env.action_space, env_id)
    finally:
        env.close()


def describe_spaces(observation_space: Any, action_space: Any, env_id: str) -> dict[str, Any]:
    """As `describe`, with generic names, from the spaces of an environment made already."""
    names = _observation_names(observation_space, env_id)
    actions, low, high, failsafe = _actions(action_space, env_id)
    return Description(
        observation_names=names,
        observation_units=[""] * len(names),
        action_names=actions,
        action_units=[""] * len(actions),
        action_low=low,
        action_high=high,
        failsafe=failsafe,
    ).as_dict


def _observation_names(space: Any, env_id: str) -> list[str]:
    import gymnasium

    if isinstance(space, gymnasium.spaces.Box):
        if len(space.shape) == 1:
            return [f"observation_{i}" for i in range(space.shape[0])]
        if space.dtype == "uint8" and len(space.shape) == 3 and space.shape[2] <= 4:
            return ["image[{},{},{}]".format(*space.shape)]
    raise UnsupportedEnvironmentError(
        f"{env_id}: the observation space is {space}; a Box of one dimension is needed, or an "
        "image (height, width, channels) of uint8. Wrap it with "
        "gymnasium.wrappers.FlattenObservation or TransformObservation."
    )


def _actions(space: Any, env_id: str) -> tuple[list[str], list[float], list[float], list[float]]:
    """Names, low, high and failsafe of an action space as the stack sees it."""
    import gymnasium
    import numpy as np

    if isinstance(space, gymnasium.spaces.Discrete):
        n = int(space.n)
        return [f"choice_{i}" for i in range(n)], [0.0] * n, [1.0] * n, [0.0] * n
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise UnsupportedEnvironmentError(
            f"{env_id}: the action space is {space}; a Box of one dimension or a Discrete is "
            "needed. Wrap it with gymnasium.wrappers.TransformAction."
        )
    low, high = space.low, space.high
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise UnsupportedEnvironmentError(
            f"{env_id}: the action space {space} has infinite bounds; a shield needs a "
            "finite action box. Wrap it with gymnasium.wrappers.RescaleAction or ClipAction."
        )
    names = [f"action_{i}" for i in range(len(low))]
    return names, low.tolist(), high.tolist(), np.clip(0.0, low, high).tolist()


def _unknown(name: str, error: Exception) -> str:
    import gymnasium

    known = [*IDS, *gymnasium.registry]
    close = difflib.get_close_matches(name, known, n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    ours = ", ".join(IDS)
    return f"unknown environment {name!r}.{hint} Ours: {ours}; or any Gymnasium id. ({error})"
