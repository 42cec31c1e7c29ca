"""Recovery RL (Thananjeyan, Balakrishna et al. 2021, arXiv 2010.15920), top to bottom.

A task policy that only sees reward proposes; where the learned risk Q_risk of its proposal exceeds
eps, a recovery policy that only sees risk acts instead. Offline data that contain violations teach
Q_risk and the dynamics before the first episode, so few violations are met online.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from safetypilot.models import runtime
from safetypilot.models.contract import Expected
from safetypilot.policies.learn import checkpoint
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.flight import Pilot
from safetypilot.policies.learn.learner import RecoveryLearner
from safetypilot.policies.learn.replay import Array, Transition
from safetypilot.policies.shield import Source

Report = Callable[[str, int, int], None]  # what, done, total

_EVALUATION_SEED = 10**6  # episodes of evaluation never share a start with those of training
_REPORT_EVERY = 100


class Episode(NamedTuple):
    """What happened in one episode."""

    steps: int
    total_reward: float
    success: bool
    violation: bool
    interventions: int
    metrics: dict[str, float]  # of its last update

    def figures(self) -> dict[str, float]:
        """As numbers for a log."""
        return {
            "episode/return": self.total_reward,
            "episode/steps": self.steps,
            "episode/success": float(self.success),
            "episode/violation": float(self.violation),
            "episode/interventions": self.interventions,
            **self.metrics,
        }


class RecoveryRL:
    """The algorithm with its environment: an offline phase, then episodes.

    Attributes:
        learner: networks and buffers.
        steps: environment steps so far.
        update_s: time spent in online updates, since the start of this process.
        update_count: rounds of them.
    """

    def __init__(self, config: Config, env: Any, interface: Expected, seed: int) -> None:
        """Build; nothing is learned yet.

        Args:
            config: the settings.
            env: a Gymnasium environment; `info` holds `cost`, and `success` if it has a goal.
            interface: its names, units and limits.
            seed: of weights, exploration, planner and starts.
        """
        self.config = config
        self.env = env
        self.seed = seed
        self.learner = RecoveryLearner(config, interface, seed)
        self.pilot = Pilot(config, interface, seed)
        self.rng = np.random.default_rng((seed, 1))
        self.steps = 0
        self.update_s, self.update_count = 0.0, 0
        self._low = np.asarray(interface.action_low, np.float32)
        self._high = np.asarray(interface.action_high, np.float32)

    def learn_offline(self, data: dict[str, Array], report: Report) -> dict[str, float]:
        """Train Q_risk, the recovery policy and the dynamics on offline transitions."""
        config, learner = self.config, self.learner
        learner.load_offline(data)
        metrics: dict[str, float] = {}
        for update in range(config.offline_updates if learner.risk_ready else 0):
            latest = learner.update_risk()
            if update % _REPORT_EVERY == 0 or update == config.offline_updates - 1:
                metrics |= learner.finite(latest)
                report("learning risk offline", update + 1, config.offline_updates)
        for _ in range(config.task_offline_updates if learner.demos.size else 0):
            metrics |= learner.finite(learner.update_task())
        if config.recovery == "model-based":
            report("learning dynamics offline", 0, 1)
            metrics |= learner.fit_dynamics(config.dynamics_epochs)
        return metrics

    def run_episode(self, number: int) -> Episode:
        """One episode, learning at every step; the shield composes each action."""
        self._refresh_models()
        observation, _ = self.env.reset(seed=_start_seed(self.seed, number))
        self.pilot.start_episode()
        steps, interventions, total = 0, 0, 0.0
        violation = success = False
        metrics: dict[str, float] = {}
        while True:
            proposed = self._propose(observation)
            action, _, source = self.pilot.compose(observation, proposed)
            following, reward, terminated, truncated, info = self.env.step(action)
            cost = float(info.get("cost", 0.0))
            # Proposed and executed are kept apart: the task policy learns what comes of its
            # proposals, Q_risk what comes of actions.
            self.learner.add(
                Transition(
                    *(observation, proposed, action, float(reward), cost, following),
                    *(bool(terminated), bool(truncated)),
                )
            )
            metrics |= self._update()
            observation = following
            steps, total = steps + 1, total + float(reward)
            interventions += source is not Source.TASK
            violation = violation or cost > 0
            success = bool(info.get("success", False))
            if terminated or truncated:
                break
        self.steps += steps
        if (
            self.config.recovery == "model-based"
            and self.config.dynamics_online_epochs
            and number % self.config.dynamics_update_episodes == 0
        ):
            metrics |= self.learner.fit_dynamics(self.config.dynamics_online_epochs)
        return Episode(steps, total, success and not violation, violation, interventions, metrics)

    def state(self) -> dict[str, Any]:
        """What the next episode depends on, between episodes."""
        return {
            "learner": self.learner.state(),
            "rng": checkpoint.rng_state(self.rng),
            "steps": self.steps,
            "seq": self.pilot.seq,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue bit for bit from `state`."""
        self.learner.restore(state["learner"])
        checkpoint.restore_rng(self.rng, state["rng"])
        self.steps, self.pilot.seq = int(state["steps"]), int(state["seq"])

    def _propose(self, observation: Array) -> Array:
        if self.pilot.seq < self.config.start_steps:
            return self.rng.uniform(self._low, self._high).astype(np.float32)
        return self.learner.propose(observation)

    def _update(self) -> dict[str, float]:
        began = time.perf_counter()
        metrics = self.learner.update()
        self.update_s += time.perf_counter() - began
        self.update_count += 1
        return metrics

    def _refresh_models(self) -> None:
        """Fly with what has been learned up to now, through the same files as in deployment."""
        with exported(self.learner) as files:
            self.pilot.use(files)


@contextmanager
def exported(learner: RecoveryLearner) -> Iterator[dict[str, Path]]:
    """The learner's ONNX files for as long as it takes to load them."""
    with tempfile.TemporaryDirectory(prefix="safetypilot-") as directory:
        yield learner.export(directory)


def evaluate(
    env: Any,
    files: dict[str, Path],
    config: Config,
    interface: Expected,
    *,
    episodes: int,
    seed: int,
    shielded: bool = True,
) -> dict[str, float]:
    """Fly exported files deterministically: the policy's mean action, the shield, the planner.

    Args:
        env: one that training does not use.
        files: paths by kind, as `RecoveryLearner.export` returns them.
        config: eps, recovery and planner settings.
        interface: names, units and limits.
        episodes: how many.
        seed: of the starts and the planner.
        shielded: False lets the task policy fly alone.

    Returns:
        Counts of successes and violations, steps, interventions, and the mean return.
    """
    pilot = Pilot(config if shielded else replace(config, recovery="none"), interface, seed)
    pilot.use(files)
    policy = runtime.load(files["task_policy"])
    counts = dict.fromkeys(("successes", "violations", "steps", "interventions"), 0)
    total = 0.0
    for number in range(episodes):
        observation, _ = env.reset(seed=_start_seed(seed, _EVALUATION_SEED + number))
        pilot.start_episode()
        violation = success = ended = False
        while not ended:
            proposed: NDArray[np.float32] = policy.run(observation=observation[None])["action"][0]
            action, _, source = pilot.compose(observation, proposed)
            observation, reward, terminated, truncated, info = env.step(action)
            violation = violation or info.get("cost", 0.0) > 0
            success = bool(info.get("success", False))
            counts["steps"] += 1
            counts["interventions"] += source is not Source.TASK
            total += float(reward)
            ended = terminated or truncated
        counts["successes"] += success and not violation
        counts["violations"] += violation
    return {"episodes": episodes, **counts, "return_mean": total / max(episodes, 1)}


def _start_seed(seed: int, number: int) -> int:
    """A seed per episode, so that a resumed run meets the same starts."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
