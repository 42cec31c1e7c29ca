"""The race of Recovery RL: every algorithm on every task, several seeds each, and the table.

    python -m tests.benchmarks.race --preset default --seeds 20-24 --out runs/race-default
    safetypilot table runs/race-default

Each algorithm on each task is one `safetypilot train`; what is finished already is left alone, and
a training that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from safetypilot.policies.learn import catalogue
from safetypilot.policies.learn.seeds import seeds_of

ONE_BY_ONE = ("image-maze",)  # pixels are learned from one seed at a time
EPISODES = {"navigation1": 300, "navigation2": 300, "maze": 500}
COMPARISONS = ("sac", "rp", "lr", "rspo", "sqrl", "rcpo")
ALGORITHMS = {
    "default": (
        *("recovery-rl", "recovery-rl-model-free", "recovery-rl-q-sampling"),
        *(*COMPARISONS, "csc", "safety-editor"),
    ),
    "published": ("recovery-rl-model-free", *COMPARISONS),
}


def main() -> None:
    """Run what is missing, and say how each went."""
    options = parsed()
    tasks = [
        (env, algorithm, seeds)
        for env in options.env or EPISODES
        for algorithm in options.algorithm or ALGORITHMS[options.preset]
        for seeds in (map(str, seeds_of(options.seeds)) if env in ONE_BY_ONE else [options.seeds])
    ]
    for env in options.env or EPISODES:
        collect(env, options)
    with ThreadPoolExecutor(options.jobs) as pool:
        codes = list(pool.map(lambda task: run(*task, options), tasks))
    sys.exit(max(codes, default=0))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--preset", default="default", choices=list(ALGORITHMS))
    parser.add_argument("--seeds", default="20-24")
    parser.add_argument("--env", action="append", help="repeatable; all three by default")
    parser.add_argument("--algorithm", action="append", help="repeatable; all by default")
    parser.add_argument("--episodes", type=int, help="instead of the task's usual number")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--set", action="append", default=[], help="as in `safetypilot train`")
    parser.add_argument("--label", default="", help="added to the directory's name")
    parser.add_argument("--out", type=Path, default=Path("runs/race"))
    return parser.parse_args()


def collect(env: str, options: argparse.Namespace) -> None:
    """Make each seed's offline data once, for all algorithms."""
    size = catalogue.settings("recovery-rl", env, options.preset).offline_size
    for seed in seeds_of(options.seeds):
        out = data(env, str(seed), options)
        if not out.exists():
            words = [program(), "collect", "--env", env, "--policy", "recipe", "--json"]
            words += ["--size", str(size), "--seed", str(seed), "--out", str(out)]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def data(env: str, seed: str, options: argparse.Namespace) -> Path:
    out: Path = options.out / "data" / f"{env}-{seed}-v0"
    return out


def program() -> str:
    return str(Path(sys.executable).with_name("safetypilot"))


def run(env: str, algorithm: str, seeds: str, options: argparse.Namespace) -> int:
    """Train one algorithm on one task, unless it has been done."""
    out = options.out / env / (algorithm + options.label)
    if env in ONE_BY_ONE:
        out /= f"seed-{seeds}"
    summary = out / "summary.json"
    if summary.exists() and '"interrupted": true' not in summary.read_text(encoding="utf-8"):
        return 0
    out.mkdir(parents=True, exist_ok=True)
    words = [program(), "train", algorithm, "--json"]
    if (out / "checkpoint.pt").exists():
        words += ["--resume", str(out)]
    else:
        words += ["--env", env, "--data", str(data(env, "{seed}", options))]
        words += ["--preset", options.preset, "--seeds", seeds, "--out", str(out)]
        words += ["--episodes", str(options.episodes or EPISODES[env])]
        for setting in ("evaluate_episodes=0", "novice_episodes=0", *options.set):
            words += ["--set", setting]
    with (out / "log.txt").open("w", encoding="utf-8") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        finished = subprocess.run(words, stdout=log, stderr=log, env=environment, check=False)
    sys.stdout.write(f"{env} {algorithm} {seeds}: exit {finished.returncode}\n")
    sys.stdout.flush()
    return finished.returncode


if __name__ == "__main__":
    main()
