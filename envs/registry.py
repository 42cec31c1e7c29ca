"""The table of our environments, and what a node needs to know of any environment.

Nothing heavy is imported before an environment is made: `describe` of one of ours reads a table.
"""

import difflib
import importlib
from dataclasses import asdict, dataclass
from typing import Any

IDS = {
    "maze": "safetypilot/Maze-v0",
    "navigation1": "safetypilot/Navigation1-v0",
    "navigation2": "safetypilot/Navigation2-v0",
}


@dataclass(frozen=True)
class Description:
    """Names, units and limits of an environment's observation and action, in order."""

    observation_names: list[str]
    observation_units: list[str]
    action_names: list[str]
    action_units: list[str]
    action_low: list[float]
    action_high: list[float]
    failsafe: list[float]

    @property
    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "observation_size": len(self.observation_names)}


@dataclass(frozen=True)
class Task:
    """How Gymnasium builds one of our environments, and what it looks like from outside."""

    entry_point: str
    episode_steps: int
    kwargs: dict[str, Any]
    description: Description


_NAVIGATION = Description(
    observation_names=["x", "y"],
    observation_units=["1", "1"],
    action_names=["step_x", "step_y"],
    action_units=["1", "1"],
    action_low=[-1.0, -1.0],
    action_high=[1.0, 1.0],
    failsafe=[0.0, 0.0],
)

TASKS = {
    IDS["maze"]: Task(
        entry_point="safetypilot.envs.maze:Maze",
        episode_steps=100,
        kwargs={},
        description=Description(
            observation_names=["x", "y"],
            observation_units=["m", "m"],
            action_names=["force_x", "force_y"],
            action_units=["0.05 N", "0.05 N"],  # the motors' gear: 0.1 pushes with 5 mN
            action_low=[-0.1, -0.1],
            action_high=[0.1, 0.1],
            failsafe=[0.0, 0.0],
        ),
    ),
    IDS["navigation1"]: Task(
        "safetypilot.envs.navigation:Navigation", 100, {"variant": 1}, _NAVIGATION
    ),
    IDS["navigation2"]: Task(
        "safetypilot.envs.navigation:Navigation", 100, {"variant": 2}, _NAVIGATION
    ),
}


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


def describe(name_or_id: str, **kwargs: Any) -> dict[str, Any]:
    """Names, units and limits of an environment, as the plant interface wants them.

    Args:
        name_or_id: A short name of ours (cheap: a table) or a Gymnasium id (makes it once).
        **kwargs: Passed on to `gymnasium.make` for environments that are not ours.

    Returns:
        Lists `observation_names`, `observation_units`, `action_names`, `action_units`,
        `action_low`, `action_high`, `failsafe`, and the int `observation_size`.

    Raises:
        UnknownEnvironmentError: Nobody knows the name.
        UnsupportedEnvironmentError: Spaces that are not flat boxes, or unbounded actions.
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
    import numpy as np

    size = _flat_size(observation_space, "observation", env_id)
    actions = _flat_size(action_space, "action", env_id)
    low, high = action_space.low, action_space.high
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise UnsupportedEnvironmentError(
            f"{env_id}: the action space {action_space} has infinite bounds; a shield needs a "
            "finite action box. Wrap it with gymnasium.wrappers.RescaleAction or ClipAction."
        )
    return Description(
        observation_names=[f"observation_{i}" for i in range(size)],
        observation_units=[""] * size,
        action_names=[f"action_{i}" for i in range(actions)],
        action_units=[""] * actions,
        action_low=[float(value) for value in low],
        action_high=[float(value) for value in high],
        failsafe=[float(value) for value in np.clip(0.0, low, high)],
    ).as_dict


def _flat_size(space: Any, what: str, env_id: str) -> int:
    import gymnasium

    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise UnsupportedEnvironmentError(
            f"{env_id}: the {what} space is {space}; a Box of one dimension is needed. Wrap it "
            "with gymnasium.wrappers.FlattenObservation, or choose a continuous variant."
        )
    return int(space.shape[0])


def _unknown(name: str, error: Exception) -> str:
    import gymnasium

    known = [*IDS, *gymnasium.registry]
    close = difflib.get_close_matches(name, known, n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    ours = ", ".join(IDS)
    return f"unknown environment {name!r}.{hint} Ours: {ours}; or any Gymnasium id. ({error})"
