"""What goes beside exported files, so that they can be made again and told apart."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

NAME = "manifest.json"

# What a learner has learned -> the file it is exported as
FILES = {
    "task_policy": "trained.onnx",
    "safety_critic": "critic.onnx",
    "dynamics": "dynamics.onnx",
    "recovery_policy": "recovery.onnx",
    "encoder": "encoder.onnx",
    "latent_critic": "latent_critic.onnx",
}


def command(algorithm: str, env: str, seed: int) -> str:
    """The command that makes such a run; settings other than the preset stand in the manifest."""
    return f"safetypilot train {algorithm} --env {env} --seed {seed}"


def commit() -> str:
    """The commit of this code, with `+` if files differ from it; `unknown` outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "models/*.py",
                       "policies", "envs")  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head[:12] + ("+" if changed else "")


def write(directory: Path, summary: Mapping[str, Any], made_at: str) -> None:
    """Write `manifest.json` for the ONNX files in a directory; `made_at` is a commit."""
    files = {
        path.name: {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in sorted(directory.glob("*.onnx"))
    }
    content = {
        "schema": 1,
        "command": command(summary["algorithm"], summary["env"], summary["seed"]),
        "commit": made_at,
        "seed": summary["seed"],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": files,
        "figures": {
            key: summary[key]
            for key in (
                *("episodes", "steps", "successes", "violations", "interventions", "ratio"),
                *("return_mean", "wall_s", "updates_per_s", "evaluation"),
            )
            if key in summary
        },
        "settings": summary["settings"],
    }
    (directory / NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _git(root: Path, *arguments: str) -> str:
    finished = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
    )
    return finished.stdout.strip()
