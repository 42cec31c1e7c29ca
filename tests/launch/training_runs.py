"""Makes synthetic training runs on disk and calls the command line, for the tests of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner, Result

import safetypilot.launch
from safetypilot.launch import cli

ZOO = Path(safetypilot.launch.__path__[0]).parent / "models" / "zoo"


def call(*words: object) -> Result:
    """The command line, in this process."""
    return CliRunner().invoke(cli.app, [str(word) for word in words], prog_name="safetypilot")


def write_run(
    directory: Path,
    env: str = "maze",
    algorithm: str = "recovery-rl",
    seed: int = 0,
    episodes: int = 200,
    chances: tuple[float, float] = (0.8, 0.05),
    **summary: Any,
) -> Path:
    """A run whose episodes succeed and violate by chance; `chances` are those after learning."""
    rng = np.random.default_rng((seed, len(algorithm), len(env)))
    learned = 1 - np.exp(-np.arange(episodes) / (0.15 * episodes * rng.uniform(0.7, 1.4)))
    success = rng.random(episodes) < chances[0] * learned
    violation = ~success & (rng.random(episodes) < chances[1] * (2 - learned))
    returns = -30 + 25 * learned + rng.normal(0, 3, episodes)
    lines = [json.dumps({"step": 0, "offline/risk/loss": 0.4})]
    for i in range(episodes):
        entry = {
            "step": 40 * (i + 1),
            "episode": float(i + 1),
            "episode/return": returns[i],
            "episode/steps": 40,
            "episode/success": float(success[i]),
            "episode/violation": float(violation[i]),
            "episode/interventions": 3,
            "episode/recovering": float(violation[i] and rng.random() < 0.7),
        }
        lines.append(json.dumps(entry))
    return write_lines(
        directory, lines, {"env": env, "algorithm": algorithm, "seed": seed, **summary}
    )


def write_lines(directory: Path, lines: list[str], summary: dict[str, Any]) -> Path:
    """A run of exactly these lines."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (directory / "summary.json").write_text(json.dumps(summary))
    return directory


def write_outcomes(
    directory: Path, outcomes: str, returns: list[float] | None = None, **summary: Any
) -> Path:
    """A run of one episode per letter: s success, v violation, V violation while recovering, -."""
    lines = []
    for i, letter in enumerate(outcomes):
        entry = {
            "step": i + 1,
            "episode": i + 1,
            "episode/return": returns[i] if returns else -1.0,
            "episode/success": int(letter == "s"),
            "episode/violation": int(letter in "vV"),
            "episode/recovering": int(letter == "V"),
        }
        lines.append(json.dumps(entry))
    facts = {"env": "maze", "algorithm": "recovery-rl", "seed": 0, **summary}
    return write_lines(directory, lines, facts)
