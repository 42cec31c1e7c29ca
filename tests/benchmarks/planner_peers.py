"""A recovery plan of ours beside mbrl-lib's PETS agent, both on one thread.

    python -m tests.benchmarks.planner_peers --mbrl /path/to/venv/bin/python [--rounds 5]

The paper's setting: CEM with population 400, 40 elites, 5 iterations, 20 particles that keep their
net, horizon 5, five nets of 3x200, and a twin critic of 2x256 that judges every step. Then what is
deployed: iCEM with 64 plans, 3 iterations, 5 particles. Weights are random: that costs the same.
Each also with OpenVINO as the engine, in bf16, where that is installed.

mbrl 0.2.0 asks for hydra 1.0, which does not start on Python 3.11, and for an old gymnasium, so it
gets an environment of its own:

    python -m venv VENV
    VENV/bin/pip install torch mbrl
    VENV/bin/pip install -U hydra-core omegaconf
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from safetypilot.models import runtime
from safetypilot.policies.recovery import RecoveryConfig, RecoveryPlanner
from tests.benchmarks.interleaved import Timed, interleaved, ratio
from tests.benchmarks.learners import ours

HORIZON = 5
CHILD = Path(__file__).with_name("pets_child.py")


def settings() -> dict[str, RecoveryConfig]:
    """Ours, by name."""
    deployed = RecoveryConfig()
    planner = replace(deployed.planner, horizon=HORIZON)
    return {
        "ours, the paper's setting": RecoveryConfig.published(HORIZON),
        "ours, as deployed": replace(deployed, planner=planner),
    }


def planners(folder: Path) -> dict[str, Callable[[], object]]:
    """One plan each from a random state, on freshly exported nets."""
    sizes: dict[str, Any] = {"dynamics_hidden": 200, "dynamics_layers": 3, "ensemble": 5}
    learner = ours("recovery-rl", 2, 2, recovery="model-based", horizon=HORIZON, **sizes)
    learner.dynamics_fitted = True
    files = learner.export(folder)
    models = [runtime.load(files[kind]) for kind in ("dynamics", "safety_critic")]
    engines: dict[str, list[Any]] = {"": models}
    if find_spec("openvino"):
        engines[", bf16"] = [runtime.Accelerated(model) for model in models]
    rng, made = np.random.default_rng(0), {}
    for (name, config), engine in itertools.product(settings().items(), engines):
        planner = RecoveryPlanner(config, *engines[engine], [-1.0, -1.0], [1.0, 1.0])
        made[name + engine] = _ask(planner, rng)
    return made


def _ask(planner: RecoveryPlanner, rng: np.random.Generator) -> Callable[[], object]:
    seq = itertools.count()
    return lambda: planner.plan(rng.uniform(-1.0, 1.0, 2), next(seq))


def beside_mbrl(python: Path, rounds: int) -> dict[str, Timed]:
    """Rounds in turn: ours here, mbrl's in its own process, never both at once."""
    command = [str(python), "-W", "ignore", str(CHILD), str(HORIZON)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with tempfile.TemporaryDirectory() as folder, subprocess.Popen(command, **pipes) as child:
        calls = planners(Path(folder))
        one: dict[str, list[Timed]] = {name: [] for name in calls}
        theirs: list[dict[str, float]] = []
        for number in range(rounds + 1):
            child.stdin.write("plan 1\n")
            child.stdin.flush()
            answer = json.loads(child.stdout.readline())
            timed = interleaved(calls, rounds=1, each=1)
            if number:  # the first round warms up
                theirs.append(answer)
                for name, each in timed.items():
                    one[name].append(each)
        child.stdin.close()
    mbrl = Timed(*(np.array([each[key] for each in theirs]) for key in ("cpu", "wall")))
    return {"mbrl-lib's PETS": mbrl} | {name: _joined(each) for name, each in one.items()}


def _joined(parts: list[Timed]) -> Timed:
    columns = ([each.cpu for each in parts], [each.wall for each in parts])
    return Timed(*(np.concatenate(column) for column in columns))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mbrl", type=Path, required=True, help="a Python that has mbrl and torch")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    timed = beside_mbrl(options.mbrl, options.rounds)
    peer = timed["mbrl-lib's PETS"]
    for name, each in timed.items():
        sys.stdout.write(f"{name:32s} {each.line()}  {ratio(peer, each)} times as fast\n")


if __name__ == "__main__":
    main()
