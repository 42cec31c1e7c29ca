"""Collecting: what is stored is what the environment did, under the limits, and by the seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

from safetypilot.envs import costs, dataset, offline, registry
from safetypilot.envs.dataset_collect import Plan, World, collect, random_policy


class Corridor(gymnasium.Env[Any, Any]):
    """Walk along a line: 3 is the goal, below 0 is a violation; images if asked."""

    def __init__(self, images: bool = False, **info: Any) -> None:
        self.images, self.info = images, info
        image = gymnasium.spaces.Box(0, 255, (32, 40, 3), np.uint8)
        self.observation_space = (
            image if images else gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 2.0, (1,), np.float32)

    def _see(self) -> Any:
        if self.images:
            return np.full((32, 40, 3), int(self.place * 10) % 256, np.uint8)
        return np.array([self.place])

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = float(self.np_random.uniform(0, 1))
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place += float(action[0])
        violated, arrived = self.place < 0, self.place > 3
        info = {"cost": float(violated), "success": arrived, **self.info}
        return self._see(), self.place, violated or arrived, False, info


@pytest.fixture(autouse=True)
def corridors() -> Iterator[None]:
    names = {
        "test/Corridor-v0": ({}, 50),
        "test/Endless-v0": ({}, None),
        "test/Images-v0": ({"images": True}, 50),
        "test/Both-v0": ({"cost": 1.0, "success": True}, 50),
    }
    for name, (kwargs, limit) in names.items():
        gymnasium.register(name, Corridor, max_episode_steps=limit, kwargs=kwargs)
    yield
    for name in names:
        del gymnasium.registry[name]


def flown(name: str, policy: Any, plan: Plan, cost: str = "info") -> list[dataset.Episode]:
    world = World(name, cost)
    policy = policy or random_policy(world, plan.seed)
    return list(collect(world, [(1.0, policy)], plan))


def forward(observation: Any) -> Any:
    return np.array([0.5])


def test_episodes_hold_what_the_environment_did() -> None:
    (episode,) = flown("test/Corridor-v0", forward, Plan(episodes=1, seed=3))
    env = Corridor()
    observation, _ = env.reset(seed=episode.seed)
    assert episode.observations.dtype == episode.actions.dtype == np.float32
    for step in range(len(episode.rewards)):
        np.testing.assert_array_equal(episode.observations[step], observation.astype(np.float32))
        observation, reward, terminated, _, info = env.step(episode.actions[step])
        assert episode.rewards[step] == np.float32(reward)
        assert episode.terminated[step] == terminated
        assert episode.costs[step] == info["cost"]
        assert episode.successes is not None and episode.successes[step] == info["success"]
    assert episode.terminated.tolist() == [False] * (len(episode.rewards) - 1) + [True]


def test_rows_are_exact_and_the_last_episode_is_cut() -> None:
    episodes = flown("test/Corridor-v0", lambda o: np.array([0.01]), Plan(rows=120))
    assert [len(e.rewards) for e in episodes] == [50, 50, 20]
    assert all(e.truncated[-1] and not e.truncated[:-1].any() for e in episodes)


def test_episode_steps_cut_what_never_ends() -> None:
    episodes = flown(
        "test/Endless-v0", lambda o: np.zeros(1), Plan(episodes=2, episode_steps=7)
    )  # fmt: skip
    assert [len(e.rewards) for e in episodes] == [7, 7]
    assert all(e.truncated[-1] for e in episodes)


def test_the_seed_fixes_everything_but_differs_between_episodes() -> None:
    plan = Plan(rows=60, seed=4, noise=0.2)
    one, two = (flown("test/Corridor-v0", None, plan) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.observations, b.observations)
        np.testing.assert_array_equal(a.actions, b.actions)
    assert len({e.seed for e in one}) == len(one)
    other = flown("test/Corridor-v0", None, Plan(rows=60, seed=5, noise=0.2))
    assert other[0].seed != one[0].seed


def test_noise_is_part_of_half_the_box_and_the_box_holds() -> None:
    quiet = flown("test/Endless-v0", forward, Plan(rows=400, episode_steps=1))
    noisy = flown("test/Endless-v0", forward, Plan(rows=400, episode_steps=1, noise=0.2))
    wild = flown("test/Endless-v0", forward, Plan(rows=400, episode_steps=1, noise=9.0))
    actions = [np.concatenate([e.actions for e in episodes]) for episodes in (quiet, noisy, wild)]
    assert (actions[0] == 0.5).all()
    assert actions[1].std() == pytest.approx(0.2 * 1.5, rel=0.15)  # the box is 3 wide
    assert (actions[2].min(), actions[2].max()) == (-1.0, 2.0)


def test_images_stay_uint8_and_flat(tmp_path: Any) -> None:
    world = World("test/Images-v0")
    with dataset.Writer(tmp_path / "a", world.about({})) as writer:
        for episode in collect(world, [(1.0, random_policy(world, 0))], Plan(rows=30)):
            writer.add(episode)
    data = dataset.load(tmp_path / "a")
    assert data["observation"].dtype == np.uint8
    assert data["observation"].shape == (30, 32 * 40 * 3)


def test_shares_are_of_rows() -> None:
    world = World("test/Corridor-v0")
    fast, slow = (lambda o: np.array([1.0])), (lambda o: np.array([0.02]))
    rows = {1.0: 0, 0.02: 0}
    for episode in collect(world, [(0.75, fast), (0.25, slow)], Plan(rows=2000)):
        rows[round(float(episode.actions[0, 0]), 2)] += len(episode.rewards)
    assert rows[1.0] == pytest.approx(1500, abs=60)


def test_a_choice_among_n_becomes_preferences() -> None:
    episodes = flown("CartPole-v1", None, Plan(episodes=2), cost="termination")
    assert episodes[0].actions.shape[1] == 2
    assert episodes[0].costs[-1] == 1 and episodes[0].successes is None


def test_a_violation_at_the_goal_is_a_violation() -> None:
    (episode,) = flown("test/Both-v0", forward, Plan(episodes=1))
    assert episode.costs.all()
    assert episode.successes is not None and not episode.successes.any()


def test_a_policy_with_a_memory_is_reset_before_each_episode() -> None:
    class Counting:
        resets = 0

        def reset(self) -> None:
            self.resets += 1

        def __call__(self, observation: Any) -> Any:
            return forward(observation)

    policy = Counting()
    assert len(flown("test/Corridor-v0", policy, Plan(episodes=3))) == policy.resets == 3


def test_stopping_drops_the_episode_under_way() -> None:
    steps = iter(range(10**6))
    world = World("test/Corridor-v0")
    crawl = lambda o: np.zeros(1)  # noqa: E731
    found = list(collect(world, [(1.0, crawl)], Plan(rows=10**6), lambda: next(steps) > 120))
    assert [len(e.rewards) for e in found] == [50, 50]


@pytest.mark.parametrize(
    ("policy", "kind", "said"),
    [
        (lambda o: np.zeros(2), dataset.ShapeError, r"shape \(2,\), test/Corridor-v0 takes \(1,\)"),
        (lambda o: np.array([np.nan]), dataset.BadValueError, "action at step 0 is .nan."),
    ],
)
def test_a_policy_that_answers_nonsense_is_refused(policy: Any, kind: type, said: str) -> None:
    with pytest.raises(kind, match=said):
        flown("test/Corridor-v0", policy, Plan(episodes=1))


def test_an_environment_without_a_cost_is_refused() -> None:
    with pytest.raises(costs.MissingCostError, match="Pendulum-v1 reports no info"):
        flown("Pendulum-v1", None, Plan(rows=5))


@pytest.mark.parametrize("name", ["maze", "navigation1", "navigation2"])
def test_experts_of_ours_fly_and_arrive(name: str) -> None:
    episodes = flown(name, offline.expert(name), Plan(episodes=5))
    assert sum(bool(e.successes.any()) for e in episodes if e.successes is not None) >= 3
    about = World(name).about({})
    assert about.env == registry.resolve(name) and "entry_point" in about.env_spec
