"""Episodes in the environment, several seeds side by side: one step of each, then one update.

Letters: S seeds, O observation, A action.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from safetypilot.policies.learn import checkpoint
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.flight import Pilot, PolicyRecovery
from safetypilot.policies.learn.learner import Learner
from safetypilot.policies.learn.live import learned_recovery
from safetypilot.policies.learn.replay import Array, Transition
from safetypilot.policies.learn.seeds import start_seed
from safetypilot.policies.shield import Source


class Episode(NamedTuple):
    """What happened in one episode."""

    steps: int
    total_reward: float
    success: bool
    violation: bool
    interventions: int
    recovering: bool  # recovery acted in the step that violated

    def figures(self) -> dict[str, float]:
        """As numbers for a log."""
        return {
            "episode/return": self.total_reward,
            "episode/steps": self.steps,
            "episode/success": float(self.success),
            "episode/violation": float(self.violation),
            "episode/interventions": self.interventions,
            "episode/recovering": float(self.recovering),
        }


class Track:
    """One seed's episode under way.

    Attributes:
        number: of the episode, 1 and up.
        taken: (proposed, risk, executed) of its steps; what brings a resumed run back here.
    """

    def __init__(self, env: Any, pilot: Pilot, seed: int) -> None:
        self.env, self.pilot, self.seed = env, pilot, seed
        self.rng = np.random.default_rng((seed, 1))
        self.number = 0
        self.steps = 0  # of the whole run
        self.start()

    def start(self, number: int = 1) -> None:
        """Begin episode `number`."""
        self.number = number
        observation, _ = self.env.reset(seed=start_seed(self.seed, number))
        self.observation: Array = np.asarray(observation, np.float32).ravel()
        self.pilot.start_episode()
        self.taken: list[tuple[Array, float, Array]] = []
        self.interventions, self.total = 0, 0.0
        self.violation = self.success = self.recovering = False

    def step(self, proposed: Array, executed: Array, risk: float, source: Source) -> Transition:
        """Move the environment and count; `terminated` or `truncated` ends the episode."""
        raw, reward, terminated, truncated, info = self.env.step(executed)
        if "cost" not in info:
            raise LearnError(
                'the environment reports no info["cost"]; use one of safetypilot\'s, or wrap it: '
                "safety cannot be learned without costs"
            )
        cost = float(info["cost"])
        if not 0.0 <= cost <= 1.0:
            raise LearnError(f"the environment's cost is {cost}; wanted 1 for a violation, else 0")
        following = np.asarray(raw, np.float32).ravel()
        rows = (self.observation, proposed, executed, float(reward), cost, following)
        self.taken.append((proposed, risk, executed))
        self.observation = following
        self.steps += 1
        self.total += float(reward)
        recovered = source is not Source.TASK
        self.interventions += recovered
        if cost > 0 and not self.violation:
            self.recovering = recovered
        self.violation = self.violation or cost > 0
        self.success = bool(info.get("success", False))
        return Transition(*rows, bool(terminated), bool(truncated))

    def finished(self) -> Episode:
        """The episode, once it has ended."""
        success = self.success and not self.violation
        counts = (self.interventions, self.recovering)
        return Episode(len(self.taken), self.total, success, self.violation, *counts)

    def state(self) -> dict[str, Any]:
        """Where it stands, as what leads there: an environment itself cannot be saved."""
        return {
            "number": self.number,
            "steps": self.steps,
            "seq": self.pilot.seq - len(self.taken),
            "taken": [(p.tolist(), risk, e.tolist()) for p, risk, e in self.taken],
            "rng": checkpoint.rng_state(self.rng),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Start the episode again and do what was done."""
        checkpoint.restore_rng(self.rng, state["rng"])
        self.pilot.seq = int(state["seq"])
        self.start(int(state["number"]))
        recovery = self.pilot.recovery
        for proposed, risk, executed in state["taken"]:
            wanted, done = np.array(proposed, np.float32), np.array(executed, np.float32)
            if recovery is not None:  # what it did then, whatever it would do now
                self.pilot.recovery = PolicyRecovery(lambda _, done=done: done)  # type: ignore[misc]
            source = self.pilot.compose(self.observation, wanted, risk).source
            self.step(wanted, done, risk, source)
        self.pilot.recovery = recovery
        self.steps = int(state["steps"])


class Episodes:
    """All seeds' episodes: who proposes, who decides, what is learned.

    Attributes:
        learner: networks and buffers.
        tracks: one per seed.
        update_s: time spent in online updates, since the start of this process.
        update_count: rounds of them.
        metrics: of the last updates.
    """

    def __init__(self, learner: Learner, envs: Sequence[Any]) -> None:
        """Build; nothing has moved yet.

        Args:
            learner: learns.
            envs: one Gymnasium environment per seed; `info` holds `cost`, and `success` if it has
                a goal.
        """
        self.learner = learner
        config, interface = learner.config, learner.interface
        self.tracks = []
        for index, env in enumerate(envs):
            shielded = config.recovery not in ("none", "editor")
            recovery = learned_recovery(learner, index) if shielded else None
            self.tracks.append(Track(env, Pilot(config, interface, recovery), learner.seeds[index]))
        self._low = np.asarray(interface.action_low, np.float32)
        self._high = np.asarray(interface.action_high, np.float32)
        self.update_s, self.update_count = 0.0, 0
        self.metrics: dict[str, float] = {}

    def step(self, active: Sequence[int]) -> list[int]:
        """One step of each active seed and one update of all; who has ended an episode."""
        learner, config = self.learner, self.learner.config
        observations = np.stack([track.observation for track in self.tracks])
        proposed = self._propose(observations)
        risks = [float("nan")] * len(self.tracks)
        if self.tracks[0].pilot.recovery is not None:
            risks = learner.risks(observations, proposed).tolist()
        ended = []
        for index in active:
            track, wanted, risk = self.tracks[index], proposed[index], risks[index]
            executed, _, source = track.pilot.compose(track.observation, wanted, risk)
            if config.recovery == "editor":
                executed = learner.recover(track.observation, index)
            transition = track.step(wanted, executed, risk, source)
            learner.add(transition, index, recovered=source is not Source.TASK)
            if transition.terminated or transition.truncated:
                ended.append(index)
        began = time.perf_counter()
        self.metrics |= learner.update()
        self.update_s += time.perf_counter() - began
        self.update_count += 1
        return ended

    def _propose(self, observations: Array) -> Array:
        """Uniformly random at first, then the algorithm's; (S, O) -> (S, A)."""
        first = self.learner.config.start_steps
        random = [track.steps < first for track in self.tracks]
        proposed = np.empty((len(self.tracks), len(self._low)), np.float32)
        if not all(random):
            proposed = self.learner.propose(observations).astype(np.float32)
        for index, track in enumerate(self.tracks):
            if random[index]:
                proposed[index] = track.rng.uniform(self._low, self._high)
        return proposed

    def state(self) -> dict[str, Any]:
        """What the next step depends on."""
        return {
            "learner": self.learner.state(),
            "tracks": [track.state() for track in self.tracks],
            "metrics": dict(self.metrics),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue bit for bit from `state`."""
        self.learner.restore(state["learner"])
        if len(state["tracks"]) != len(self.tracks):
            raise LearnError(
                f"the checkpoint has {len(state['tracks'])} seeds, this run {len(self.tracks)}"
            )
        for track, saved in zip(self.tracks, state["tracks"], strict=True):
            track.restore(saved)
        self.metrics = dict(state["metrics"])
