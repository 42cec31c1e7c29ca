"""What a training left behind, found again: its models, and what they were trained for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetypilot.launch.cli_common import InputError, choose
from safetypilot.launch.curves import SUMMARY, short_name
from safetypilot.policies.learn import manifest

# kind of model -> its file, as `safetypilot train` writes them; the task policy has a choice
FILES = {kind: name for kind, name in manifest.FILES.items() if kind != "task_policy"}
POLICIES = ("trained", "novice")
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Trained:
    """A directory of trained models.

    Attributes:
        models: where the ONNX files are.
        env: short name or Gymnasium id; "" if nothing says.
        algorithm: "" if nothing says.
        settings: of the training; empty if nothing says.
    """

    path: Path
    models: Path
    env: str
    algorithm: str
    settings: Mapping[str, Any]

    def files(self, policy: str = "trained") -> dict[str, Path]:
        """Paths by kind, with this task policy.

        Raises:
            InputError: there is no such policy.
        """
        there = [path.stem for path in sorted(self.models.glob("*.onnx"))]
        others = set(FILES.values())
        policies = [name for name in there if f"{name}.onnx" not in others]
        choose(f"policy in {self.models}", policy, policies)
        found = {kind: self.models / name for kind, name in FILES.items()}
        found = {kind: path for kind, path in found.items() if path.exists()}
        return {"task_policy": self.models / f"{policy}.onnx", **found}

    @property
    def eps(self) -> float | None:
        """Risk above which recovery takes over, if the run says."""
        eps = self.settings.get("eps")
        return float(eps) if isinstance(eps, int | float) else None


def find(path: Path) -> Trained:
    """The models of a run's directory, or of a directory of models.

    Raises:
        InputError: there are none, or those of several runs.
    """
    if not path.is_dir():
        raise InputError(f"there is no directory {path}; give that of a training run")
    places = [place for place in (path / "models", path) if any(place.glob("*.onnx"))]
    if not places:
        below = sorted({file.parent for file in path.rglob("*.onnx")})
        runs = [str(place.parent if place.name == "models" else place) for place in below]
        hint = f"choose one of {', '.join(runs)}" if runs else "train one with `safetypilot train`"
        raise InputError(f"there are no models in {path}; {hint}")
    return describe(path, places[0])


def describe(path: Path, models: Path) -> Trained:
    """What the summary or the manifest beside these models says; else what a model says itself."""
    summary = _json(path / SUMMARY) or _json(models.parent / SUMMARY)
    manifest = _json(models / _MANIFEST)
    about = _about(models)
    return Trained(
        path,
        models,
        env=short_name(str(summary.get("env") or about.get("env") or "")),
        algorithm=str(summary.get("algorithm") or about.get("algorithm") or ""),
        settings=summary.get("settings") or manifest.get("settings") or {},
    )


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no such file.

    Raises:
        InputError: the file is there and broken.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); restore it") from None
    return content if isinstance(content, dict) else {}


def _about(models: Path) -> Mapping[str, Any]:
    """What one of the models says about the run that made it."""
    from safetypilot.models import runtime

    for file in sorted(models.glob("*.onnx")):
        try:
            return runtime.load(file).contract.run
        except runtime.ModelError:
            continue
    return {}
