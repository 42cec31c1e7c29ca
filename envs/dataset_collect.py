"""Flies policies in an environment and keeps what happened, episode by episode.

Letters: O observation size, A action size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from safetypilot.envs import costs, registry
from safetypilot.envs.dataset_check import Array
from safetypilot.envs.dataset_errors import BadValueError, ShapeError
from safetypilot.envs.dataset_layout import About, Episode

Policy = Callable[[Array], Any]  # observation as the environment gives it -> action (A,)


@dataclass(frozen=True)
class Plan:
    """How much to collect, and how.

    Attributes:
        rows: stop after exactly so many; the last episode is cut short for it.
        episodes: stop after so many.
        episode_steps: cut episodes after so many steps, if the environment does not before.
        seed: of resets, noise and random actions.
        noise: standard deviation added to actions, as part of half the action box.
    """

    rows: int | None = None
    episodes: int | None = None
    episode_steps: int | None = None
    seed: int = 0
    noise: float = 0.0


class World:
    """An environment with its limits and its cost; images stay uint8, choices are preferences."""

    def __init__(self, name: str, cost: str = "info") -> None:
        """Make the environment.

        Args:
            name: a short name of ours or a Gymnasium id.
            cost: of envs/costs.py.

        Raises:
            ValueError: unknown names, or spaces that the stack cannot carry.
        """
        import gymnasium

        from safetypilot.envs.discrete import Preferences

        self.id = registry.resolve(name)
        self.cost = costs.cost_function(cost, self.id)
        try:
            env = registry.make(name)
        except gymnasium.error.Error as error:  # a package that it needs is missing, say
            raise registry.UnsupportedEnvironmentError(
                f"{self.id} cannot be made: {str(error).splitlines()[0]}"
            ) from None
        registry.describe_spaces(env.observation_space, env.action_space, self.id)
        spec = getattr(env, "spec", None)
        self.episode_steps: int | None = getattr(spec, "max_episode_steps", None)
        self._spec = ""
        if isinstance(
            env.action_space, gymnasium.spaces.Discrete
        ):  # Minari's environment would take choices
            env = Preferences(env)
        else:
            self._spec = _json_of(spec)
        self.env = env
        self.low = np.asarray(env.action_space.low, np.float32)  # (A,)
        self.high = np.asarray(env.action_space.high, np.float32)
        self.is_image = env.observation_space.dtype == np.uint8

    def close(self) -> None:
        self.env.close()

    def about(self, made: Mapping[str, Any]) -> About:
        """What a data set of this environment says of itself."""
        shape = self.env.observation_space.shape
        return About(
            env=self.id,
            observation_shape=tuple(map(int, shape)) if len(shape) > 1 else (),
            action_low=tuple(map(float, self.low)),
            action_high=tuple(map(float, self.high)),
            env_spec=self._spec,
            made=made,
        )

    def flat(self, observation: Any) -> Array:
        """An observation as it is stored, (O,) uint8 or float32."""
        return np.ravel(np.asarray(observation, np.uint8 if self.is_image else np.float32))


def random_policy(world: World, seed: int) -> Policy:
    """Uniformly random actions within the limits."""
    generator = np.random.default_rng([seed, 2])
    return lambda observation: generator.uniform(world.low, world.high).astype(np.float32)


def collect(
    world: World,
    policies: Sequence[tuple[float, Policy]],
    plan: Plan,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Episode]:
    """Fly until the plan is fulfilled; an episode under way when `stop` says so is dropped.

    Args:
        world: where.
        policies: shares of the rows, above 0, and who flies them, an episode at a time; each
            one's `reset()`, if it has one, is called before.
        plan: how much.
        stop: asked before every step.

    Raises:
        DatasetError: a policy answers no action.
        MissingCostError: the environment reports no cost.
    """
    seeds = np.random.default_rng([plan.seed, 0])
    noise = np.random.default_rng([plan.seed, 1])
    flown = [0] * len(policies)
    episodes = 0
    while not (
        stop()
        or (plan.rows is not None and sum(flown) >= plan.rows)
        or (plan.episodes is not None and episodes >= plan.episodes)
    ):
        behind = [rows / share for rows, (share, _) in zip(flown, policies, strict=True)]
        turn = behind.index(min(behind))
        left = None if plan.rows is None else plan.rows - sum(flown)
        limits = [limit for limit in (left, plan.episode_steps) if limit is not None]
        episode = _fly(
            _Flight(world, policies[turn][1], noise, plan.noise, int(seeds.integers(2**31))),
            min(limits, default=None),
            stop,
        )
        if episode is None:
            return
        flown[turn] += len(episode.rewards)
        episodes += 1
        yield episode


@dataclass
class _Flight:
    """One episode under way."""

    world: World
    policy: Policy
    generator: np.random.Generator
    noise: float
    seed: int
    steps: list[tuple[Any, ...]] = field(default_factory=list)
    has_goal: bool = False

    def action(self, observation: Any) -> Array:
        """What is executed: the policy's action, disturbed, within the limits, (A,)."""
        world = self.world
        action = np.asarray(self.policy(observation), np.float32)
        if action.shape != world.low.shape:
            raise ShapeError(
                f"the policy's action has the shape {action.shape}, {world.id} takes "
                f"{world.low.shape}; choose a policy made for it"
            )
        if not np.isfinite(action).all():
            raise BadValueError(
                f"the policy's action at step {len(self.steps)} is {action}, which is not finite; "
                "choose another policy"
            )
        half_box = (world.high - world.low) / 2
        disturbance = self.noise * half_box * self.generator.standard_normal(len(action))
        return np.clip(action + disturbance, world.low, world.high).astype(np.float32)

    def episode(self, observations: list[Array]) -> Episode:
        actions, costs_, rewards, terminated, truncated, successes = zip(*self.steps, strict=True)
        return Episode(
            observations=np.stack(observations),
            actions=np.stack(actions),
            costs=np.array(costs_, np.float32),
            rewards=np.array(rewards, np.float32),
            terminated=np.array(terminated, bool),
            truncated=np.array(truncated, bool),
            successes=np.array(successes, bool) if self.has_goal else None,
            seed=self.seed,
        )


def _fly(flight: _Flight, limit: int | None, stop: Callable[[], bool]) -> Episode | None:
    """One episode of at most `limit` steps; None if it was stopped."""
    world = flight.world
    reset = getattr(flight.policy, "reset", None)
    if reset is not None:
        reset()
    observation, _ = world.env.reset(seed=flight.seed)
    observations = [world.flat(observation)]
    while not stop():
        action = flight.action(observation)
        before = observations[-1]
        observation, reward, terminated, truncated, info = world.env.step(action)
        observations.append(world.flat(observation))
        cost = float(world.cost(before, action, observations[-1], bool(terminated), info))
        flight.has_goal |= "success" in info
        # A step that violates and reaches the goal at once counts as a violation.
        success = bool(info.get("success", False)) and cost == 0
        cut = limit is not None and len(flight.steps) + 1 >= limit
        truncated = bool(truncated) or (cut and not terminated)
        flight.steps.append((action, cost, reward, bool(terminated), truncated, success))
        if terminated or truncated:
            return flight.episode(observations)
    return None


def _json_of(spec: Any) -> str:
    """Gymnasium's JSON of an environment, empty where it cannot be written."""
    try:
        return str(spec.to_json())
    except (AttributeError, TypeError, ValueError):
        return ""
