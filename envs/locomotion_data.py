"""Offline data of the locomotion tasks: random motion until it fails."""

import numpy as np

from safetypilot.envs.data import Array, Progress, Transition, rollout, stack
from safetypilot.envs.locomotion_names import EPISODE_STEPS

PUBLISHED_SHARE = 1000  # `size` is divided by it to give the published number of rollouts


def locomotion_data(
    env_id: str,
    size: int,
    generator: np.random.Generator,
    progress: Progress,
    *,
    as_published: bool = False,
) -> dict[str, Array]:
    """Rollouts of actions from N(0, I), clipped, that stop at a violation.

    Args:
        env_id: Which of the four.
        size: Rows wanted, exactly as many; the last rollout is cut.
        generator: Fixes the data set.
        progress: Called after each rollout.
        as_published: Only `size`/1000 rollouts instead (at least one), which gives a few hundred
            rows, because random hoppers and ants fall within 10 to 50 steps.
    """
    from safetypilot.envs import registry

    env = registry.make(env_id).unwrapped
    limit = env.action_space.high
    rows: list[Transition] = []

    def policy(observation: Array) -> Array:
        return np.clip(generator.standard_normal(len(limit)), -limit, limit).astype(np.float32)

    rollouts = max(1, size // PUBLISHED_SHARE) if as_published else size  # each has a row at least
    for done in range(rollouts):
        steps = EPISODE_STEPS if as_published else min(EPISODE_STEPS, size - len(rows))
        observation, _ = env.reset(seed=int(generator.integers(2**31)))
        rows += rollout(env, observation, policy, steps)
        if as_published:
            progress(done + 1, rollouts)
        else:
            progress(len(rows), size)
        if len(rows) >= size:
            break
    env.close()
    return stack(rows)
