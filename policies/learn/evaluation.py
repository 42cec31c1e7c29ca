"""Flies exported files deterministically: the policy's mean action, the shield, the recovery."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from safetypilot.models import runtime
from safetypilot.models.contract import Expected
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.flight import Pilot, exported_recovery
from safetypilot.policies.learn.replay import Array
from safetypilot.policies.learn.seeds import start_seed
from safetypilot.policies.shield import Source

_FIRST = 10**6  # episodes of evaluation never share a start with those of training


class Step(NamedTuple):
    """One step of an evaluation, for whoever watches."""

    episode: int
    step: int
    observation: Array  # (O,)
    proposed: Array  # (A,)
    executed: Array  # (A,)
    risk: float
    source: Source
    reward: float
    cost: float
    info: dict[str, Any]


def evaluate(
    env: Any,
    files: dict[str, Path],
    config: Config,
    interface: Expected,
    *,
    episodes: int,
    seed: int,
    shielded: bool = True,
    on_step: Callable[[Step], None] | None = None,
) -> dict[str, float]:
    """Fly episodes and count.

    Args:
        env: one that training does not use.
        files: paths by kind, as `Learner.export` returns them.
        config: eps, recovery and planner settings.
        interface: names, units and limits.
        episodes: how many.
        seed: of the starts and the planner.
        shielded: False lets the task policy fly alone.
        on_step: called after every step.

    Returns:
        Counts of successes and violations, steps, interventions, and the mean return.
    """
    recovery = exported_recovery(files, config, interface, seed) if shielded else None
    pilot = Pilot(config, interface, recovery)
    policy = runtime.load(files["task_policy"])
    critic = runtime.load(files["safety_critic"]) if recovery is not None else None
    counts = dict.fromkeys(("successes", "violations", "steps", "interventions"), 0)
    total = 0.0
    for number in range(episodes):
        raw, _ = env.reset(seed=start_seed(seed, _FIRST + number))
        observation = np.asarray(raw, np.float32).ravel()
        pilot.start_episode()
        violation = success = ended = False
        step = 0
        while not ended:
            proposed = policy.run(observation=observation[None])["action"][0]
            risk = float("nan")
            if critic is not None:
                rows = {"observation": observation[None], "action": proposed[None]}
                risk = float(critic.run(**rows)["risk"][0])
            action, _, source = pilot.compose(observation, proposed, risk)
            raw, reward, terminated, truncated, info = env.step(action)
            cost = float(info.get("cost", 0.0))
            if on_step is not None:
                seen = (observation, proposed, action, risk, source, float(reward), cost, info)
                on_step(Step(number, step, *seen))
            observation = np.asarray(raw, np.float32).ravel()
            violation = violation or cost > 0
            success = bool(info.get("success", False))
            step += 1
            counts["steps"] += 1
            counts["interventions"] += source is not Source.TASK
            total += float(reward)
            ended = terminated or truncated
        counts["successes"] += success and not violation
        counts["violations"] += violation
    return {"episodes": episodes, **counts, "return_mean": total / max(episodes, 1)}
