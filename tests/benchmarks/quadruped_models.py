"""Makes the quadruped's models: three clones of scripted controllers, and a critic of falls.

    python tests/benchmarks/quadruped_models.py --out models/zoo/quadruped
    python tests/benchmarks/quadruped_models.py --out models/zoo/quadruped --evaluate-only

`trained` stands and holds, `novice` leans until it falls, `liedown` recovers. Each learned from a
controller of envs/quadruped_expert.py in the states that it meets itself (DAgger, arXiv 1011.0686).
The critic is Q_risk of the trained policy, learned offline from falls, near falls and rescues.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from quadruped_rates import CASES, Flown, Models, fly

from safetypilot.envs import quadruped_data, quadruped_expert, registry
from safetypilot.envs.data import Policy
from safetypilot.envs.offline import offline_data
from safetypilot.envs.quadruped import Quadruped
from safetypilot.models import export
from safetypilot.models.contract import Contract
from safetypilot.policies.learn import catalogue, manifest
from safetypilot.policies.learn.learner import Learner
from safetypilot.policies.learn.optimiser import Adam

ENV = "quadruped"
SETTINGS = {
    "recovery": "none",
    "gamma_safe": 0.95,
    "eps": 0.3,
    "hidden": 128,
    "batch": 256,
    "positive_fraction": 0.1,
    "offline_size": 60_000,
    "offline_updates": 12_000,
    "nu": 0.0,
}
ROUNDS, ROUND_STEPS, ROUND_UPDATES = 5, 10_000, 2_000
LAST_UPDATES = 12_000
BATCH, RATES = 256, (1e-3, 1e-4)
LIKE_EXPERT = 0.3  # of the flights that the expert flies itself, with noise
NOISE = 0.03  # rad
QUIET = -8.0  # log-deviation of a cloned policy

Start = Callable[[np.random.Generator], tuple[dict[str, Any], Policy | None, int]]


def from_lying(generator: np.random.Generator) -> tuple[dict[str, Any], Policy | None, int]:
    """The task from its beginning, sometimes pushed a little."""
    return {"push": float(generator.choice([0.0, 60.0, 100.0]))}, None, 400


def in_trouble(generator: np.random.Generator) -> tuple[dict[str, Any], Policy | None, int]:
    """What the offline data are made of, taken over after a while."""
    scene = quadruped_data.SCENES[int(generator.integers(len(quadruped_data.SCENES)))]
    options, policy = scene(generator)
    return options, policy, 80


CLONES: dict[str, tuple[Policy, tuple[Start, ...]]] = {
    "trained": (quadruped_expert.stand, (from_lying, in_trouble, in_trouble)),
    "liedown": (quadruped_expert.lie_down, (in_trouble,)),
    "novice": (quadruped_expert.lean, (from_lying, in_trouble)),
}


def main() -> None:
    """Make what is asked for, and write how it flies into the manifest."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("models/zoo/quadruped"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3, help="of the evaluation")
    parser.add_argument("--episodes", type=int, default=50, help="of each evaluation and seed")
    parser.add_argument("--evaluate-only", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    began = time.monotonic()
    if not options.evaluate_only:
        make(options.out, options.seed)
    evaluation = evaluate(options.out, options.seeds, options.episodes)
    write(options, evaluation, time.monotonic() - began)


def make(out: Path, seed: int) -> None:
    interface: Any = SimpleNamespace(**registry.describe(ENV))
    settings = replace(catalogue.settings("recovery-rl", ENV), **SETTINGS)
    learner = Learner("recovery-rl", settings, interface, (seed,))
    say("collecting offline data")
    data = offline_data(ENV, settings.offline_size, seed)
    say(f"{len(data['cost'])} rows, {int(data['cost'].sum())} falls")
    learner.load_offline(data)
    generator = np.random.default_rng(seed)
    actor, first = learner.sac.actor, learner.sac.actor.state_dict()
    first = {name: value.clone() for name, value in first.items()}
    for name in ("novice", "liedown", "trained"):  # whose risk the critic learns comes last
        actor.load_state_dict(first)
        clone(actor, name, generator)
        export.export(actor, out / f"{name}.onnx", contract(interface, name, seed))
    say("learning risk")
    for update in range(settings.offline_updates):
        metrics = learner.update_risk()
        if update % 5_000 == 0:
            say(f"update {update}: {learner.finite(metrics)}")
    critic = learner.risk.critic
    export.export(critic, out / "critic.onnx", contract(interface, "critic", seed))


def contract(interface: Any, name: str, seed: int) -> Contract:
    tuples = ("observation_names", "observation_units", "action_names", "action_units")
    limits = ("action_low", "action_high")
    run = {"command": COMMAND, "env": ENV, "seed": seed, "commit": manifest.commit()}
    return Contract(
        kind="task_policy",
        version=f"{ENV}-seed{seed}-{name}",
        rate_hz=50.0,
        run=run,
        **{field: tuple(getattr(interface, field)) for field in (*tuples, *limits)},
    )


COMMAND = "python tests/benchmarks/quadruped_models.py"


def clone(actor: Any, name: str, generator: np.random.Generator) -> None:
    """Teach an actor what a controller would do in the states that the actor meets."""
    expert, starts = CLONES[name]
    silence(actor)
    optimiser = Adam(actor.parameters(), RATES[0])
    seen: list[Any] = []
    told: list[Any] = []
    env = Quadruped()
    env.reset(seed=int(generator.integers(2**31)))
    for number in range(ROUNDS):
        alone = 1.0 if number == 0 else LIKE_EXPERT
        count = len(seen)
        for observation in states(env, actor, expert, starts, alone, generator):
            seen.append(observation)
            told.append(expert(observation))
            if len(seen) - count >= ROUND_STEPS:
                break
        last = number == ROUNDS - 1
        error = fit(actor, optimiser, seen, told, LAST_UPDATES if last else ROUND_UPDATES, last)
        say(f"{name}: round {number + 1}, {len(seen)} states, mean error {error:.4f} rad")
    silence(actor)


def silence(actor: Any) -> None:
    """The same action every time: the deviation is next to nothing."""
    actions = actor.sizes.action
    with torch.no_grad():
        weight, bias = actor.network.layers[-1]
        weight[:, :, actions:] = 0.0
        bias[:, :, actions:] = QUIET


def states(
    env: Quadruped,
    actor: Any,
    expert: Policy,
    starts: tuple[Start, ...],
    alone: float,
    generator: np.random.Generator,
) -> Iterator[Any]:
    """States that are met on the way, without end."""
    while True:
        options, scene, steps = starts[int(generator.integers(len(starts)))](generator)
        observation, _ = env.reset(options=options)
        taken = int(generator.integers(40)) if scene else 0
        by_expert = generator.random() < alone
        for step in range(steps):
            yield observation
            if scene and step < taken:
                action = scene(observation)
            elif by_expert:
                action = expert(observation) + generator.normal(0.0, NOISE, 12)
            else:
                action = act(actor, observation)
            observation, _, terminated, _, _ = env.step(action)
            if terminated:
                break


def act(actor: Any, observation: Any) -> Any:
    with torch.no_grad():
        return actor(torch.from_numpy(observation)[None, None])[0, 0].numpy()


def fit(
    actor: Any, optimiser: Adam, seen: list[Any], told: list[Any], updates: int, last: bool
) -> float:
    """The mean absolute error of the last updates, rad."""
    observations = torch.from_numpy(np.array(seen, np.float32))
    actions = torch.from_numpy(np.array(told, np.float32))
    errors = []
    for update in range(updates):
        share = update / updates if last else 0.0
        optimiser.rate = RATES[0] * (RATES[1] / RATES[0]) ** share
        rows = torch.randint(len(observations), (BATCH,))
        wanted = actions[rows][None]
        found = actor(observations[rows][None])
        loss = actor.scaling.action(found).sub(actor.scaling.action(wanted)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if update > updates - 100:
            errors.append(float((found.detach() - wanted).abs().mean()))
    return float(np.mean(errors))


def evaluate(out: Path, seeds: int, episodes: int) -> dict[str, Any]:
    """Each policy with and without the shield, pushed and not."""
    models = Models.load(out)
    found: dict[str, Any] = {}
    for name, case in CASES.items():
        flown = [fly(models, case, episodes, seed) for seed in range(seeds)]
        found[name] = Flown.total(flown)
        say(f"{name}: {found[name]}")
    return found


def write(options: argparse.Namespace, evaluation: dict[str, Any], seconds: float) -> None:
    path = options.out / manifest.NAME
    summary = {
        "algorithm": "recovery-rl",
        "env": ENV,
        "seed": options.seed,
        "evaluation": evaluation,
        "settings": SETTINGS,
        "wall_s": seconds,
    }
    if options.evaluate_only:
        content = json.loads(path.read_text("utf-8"))
        content["figures"]["evaluation"] = evaluation
    else:
        manifest.write(options.out, summary, manifest.commit())
        content = json.loads(path.read_text("utf-8"))
        content["command"] = f"{COMMAND} --seed {options.seed}"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)  # noqa: T201 - a command's output


if __name__ == "__main__":
    main()
