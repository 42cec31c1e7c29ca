"""Flies the quadruped's models in the simulator as the graph would, at 50 Hz, and counts.

python tests/benchmarks/quadruped_rates.py --models models/zoo/quadruped --episodes 50
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from safetypilot.envs import quadruped_names, registry
from safetypilot.envs.quadruped import Quadruped
from safetypilot.envs.quadruped_body import pose_of, tilt_of
from safetypilot.models import runtime
from safetypilot.policies import shield
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.flight import Pilot
from safetypilot.policies.learn.seeds import start_seed
from safetypilot.policies.shield import Source

EPS = 0.3
DWELL_S = 1.0  # least stay off the task
PUSH = 150.0  # N for 0.2 s
SETTLED = 50  # steps after a new command, when it counts how well it is held


@dataclass(frozen=True)
class Case:
    policy: str
    shielded: bool
    push: float = 0.0


CASES = {
    f"{policy}_{'shielded' if shielded else 'alone'}{'_pushed' if push else ''}": Case(
        policy, shielded, push
    )
    for policy in ("trained", "novice")
    for push in ((0.0, PUSH) if policy == "trained" else (0.0,))
    for shielded in (True, False)
}


@dataclass(frozen=True)
class Models:
    """The files, loaded."""

    policies: dict[str, runtime.Model]
    critic: runtime.Model
    recovery: runtime.Model

    @classmethod
    def load(cls, folder: Path) -> Models:
        found = {name: runtime.load(folder / f"{name}.onnx") for name in ("trained", "novice")}
        return cls(
            found, runtime.load(folder / "critic.onnx"), runtime.load(folder / "liedown.onnx")
        )


@dataclass
class Flown:
    """What came of some episodes.

    Attributes:
        successes, violations: held to the end, and fallen.
        rescued: the recovery acted, and nothing fell.
        lying: of those, lay level at some time after that.
        interventions: steps off the task.
        height_error, yaw_error: mean, in m and rad, where a command has been there for a second
            and the task flies.
    """

    episodes: int = 0
    successes: int = 0
    violations: int = 0
    rescued: int = 0
    lying: int = 0
    steps: int = 0
    interventions: int = 0
    return_mean: float = 0.0
    height_error: float = 0.0
    yaw_error: float = 0.0

    @classmethod
    def total(cls, parts: list[Flown]) -> dict[str, float]:
        """Sums, and means of what is a mean."""
        episodes = sum(part.episodes for part in parts)
        found = {}
        for each in fields(cls):
            values = [getattr(part, each.name) for part in parts]
            whole = sum(values)
            if each.type == "float":
                weights = [part.episodes for part in parts]
                whole = round(float(np.average(values, weights=weights)), 5) if episodes else 0.0
            found[each.name] = whole
        return found


class Guard(Pilot):
    """The shield as the launch file sets it, at the rate of the policies; it always has a plan."""

    def __init__(self, models: Models, shielded: bool, eps: float = EPS) -> None:
        interface: Any = SimpleNamespace(**registry.describe("quadruped"))
        super().__init__(Config(eps=eps), interface, None)
        self._models = models
        self.rules = replace(
            self.rules,
            shield=shielded,
            failsafe=tuple(quadruped_names.FAILSAFE),
            dwell_steps=round(DWELL_S * quadruped_names.RATE_HZ),
        )

    def choose(self, observation: Any, proposed: Any) -> tuple[Any, Source]:
        """What flies, and who decided it."""
        seq, now_ns = self.seq, self.seq * 20_000_000
        rows = {"observation": observation[None], "action": proposed[None]}
        risk = float(self._models.critic.run(**rows)["risk"][0])
        plan = self._models.recovery.run(observation=observation[None])["action"]
        inputs = shield.Inputs(
            shield.Observation(seq, now_ns, self.step),
            shield.Proposal(seq, now_ns, seq, proposed),
            shield.Risk(seq, now_ns, seq, risk),
            shield.Recovery(seq, now_ns, plan, float("nan")),
        )
        self.state, decision = shield.decide(self.state, inputs, now_ns, self.rules)
        self.seq += 1
        self.step += 1
        return decision.action, decision.source


def fly(models: Models, case: Case, episodes: int, seed: int, eps: float = EPS) -> Flown:
    """Some episodes, each from another start."""
    env, flown = Quadruped(), Flown(episodes)
    guard = Guard(models, case.shielded, eps)
    errors: list[tuple[float, float]] = []
    for number in range(episodes):
        options = {"push": case.push} if case.push else {}
        observation, _ = env.reset(seed=start_seed(seed, 10**6 + number), options=options)
        guard.start_episode()
        acted, since, lay, info = 0, 0, False, {"cost": 0.0, "success": False}
        for _ in range(quadruped_names.EPISODE_STEPS):
            proposed = models.policies[case.policy].run(observation=observation[None])["action"][0]
            action, source = guard.choose(observation, proposed)
            acted += source is not Source.TASK
            following, reward, terminated, _, info = env.step(action)
            same = np.array_equal(following[-2:], observation[-2:]) and source is Source.TASK
            since = since + 1 if same else 0
            observation = following
            lay = lay or (acted > 0 and lies(observation))
            if since > SETTLED:
                pose = pose_of(observation)
                errors.append((abs(pose.height - observation[-2]), abs(pose.yaw - observation[-1])))
            flown.steps += 1
            flown.return_mean += float(reward) / episodes
            if terminated:
                break
        count(flown, acted, lay, info)
    if errors:
        flown.height_error, flown.yaw_error = np.mean(errors, axis=0).tolist()
    return flown


def lies(observation: Any) -> bool:
    low = pose_of(observation).height < quadruped_names.LYING_HEIGHT + 0.02
    return low and tilt_of(observation) < 0.1


def count(flown: Flown, acted: int, lay: bool, info: dict[str, Any]) -> None:
    fell = info["cost"] > 0
    flown.violations += fell
    flown.successes += bool(info["success"])
    flown.interventions += acted
    flown.rescued += bool(acted) and not fell
    flown.lying += lay and not fell


def main() -> None:
    """Print the figures of every case as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=Path("models/zoo/quadruped"))
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eps", type=float, default=EPS)
    options = parser.parse_args()
    models = Models.load(options.models)
    for name, case in CASES.items():
        flown = fly(models, case, options.episodes, options.seed, options.eps)
        print(json.dumps({name: asdict(flown)}), flush=True)  # noqa: T201 - a command's output


if __name__ == "__main__":
    main()
