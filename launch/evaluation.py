"""Flies what a training left behind and counts; films it if asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from ctypes.util import find_library
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safetypilot.launch import scenes, video
from safetypilot.launch.cli_common import InputError
from safetypilot.launch.risk_map import is_planar, world_of
from safetypilot.launch.trained import Trained
from safetypilot.models import contract as contracts
from safetypilot.models import runtime

# What recovers -> the models that it needs beside the task policy
_NEEDED = {
    "model-based": ("safety_critic", "dynamics"),
    "model-free": ("safety_critic", "recovery_policy"),
    "q-sampling": ("safety_critic",),
    "visual": ("safety_critic", "dynamics", "encoder", "latent_critic"),
}
_RENDER_S = 120  # to import, build and draw on a busy machine
_RENDER = """import sys
from safetypilot.envs import registry
env = registry.make_flat(sys.argv[1], render_mode="rgb_array")
env.reset(seed=0)
env.render()
"""
_FPS = 10.0  # of a task whose own rate nobody could watch
_MOST_FPS = 60.0


@dataclass(frozen=True)
class Request:
    """What is to be flown.

    Attributes:
        policy: name of the task policy's file, `trained` or `novice`.
        shielded: False lets the task policy fly alone.
        video: the file to write, or None.
        filmed: the first episodes that the video shows.
    """

    policy: str = "trained"
    episodes: int = 20
    seed: int = 0
    shielded: bool = True
    video: Path | None = None
    filmed: int = 5


@dataclass
class Flight:
    """Everything loaded and checked, ready to fly."""

    request: Request
    env_name: str
    env: Any
    files: dict[str, Path]
    config: Any
    interface: Any
    versions: dict[str, str]
    scene: video.Scene | None = None
    fps: float = _FPS
    notes: list[str] = field(default_factory=list)

    @property
    def shielded(self) -> bool:
        return self.request.shielded and self.config.recovery not in ("none", "editor")


def prepare(trained: Trained, request: Request) -> Flight:
    """Load and check everything; nothing is written.

    Raises:
        InputError: a model is missing or is another task's, or there can be no such video.
    """
    from safetypilot.envs import registry

    if request.video is not None:
        video.check_name(request.video)
        _offer_gl()
    if not trained.env or not trained.algorithm:
        raise InputError(
            f"{trained.path} does not say what it was trained for; give a run's directory, with "
            "summary.json beside models/"
        )
    notes: list[str] = []
    config = _config(trained, notes)
    files = trained.files(request.policy)
    interface = SimpleNamespace(**registry.describe(trained.env))
    if request.shielded:
        _complete(config.recovery, files, trained)
    versions = _versions(files, interface)
    flight = Flight(request, trained.env, None, files, config, interface, versions, notes=notes)
    if request.video is None:
        flight.env = _judged(registry.make_flat(trained.env), flight)
    else:
        _set_scene(flight)
    return flight


def _config(trained: Trained, notes: list[str]) -> Any:
    """The run's settings as its algorithm types them; what this version does not know is told."""
    try:
        from safetypilot.policies.learn import catalogue
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise InputError(
            "evaluating needs torch: pip install -e '.[train]' in the checkout"
        ) from None
    kind = catalogue.entry(trained.algorithm).kind.Settings
    known = {entry.name for entry in fields(kind)}
    unknown = sorted(set(trained.settings) - known)
    if unknown:
        notes.append(f"settings that this version does not know are left out: {', '.join(unknown)}")
    return kind(**{name: value for name, value in trained.settings.items() if name in known})


def _complete(recovery: str, files: dict[str, Path], trained: Trained) -> None:
    missing = [kind for kind in _NEEDED.get(recovery, ()) if kind not in files]
    if missing:
        raise InputError(
            f"there is no {' and no '.join(missing)} in {trained.models}, which {recovery} "
            "recovery needs; --no-shield flies without"
        )


def _versions(files: dict[str, Path], interface: Any) -> dict[str, str]:
    """The models' versions; all of them load, and the task policy fits the environment."""
    try:
        models = {kind: runtime.load(path) for kind, path in files.items()}
        contracts.check(models["task_policy"].contract, "task_policy", interface)
    except runtime.ModelError as error:
        raise InputError(str(error)) from None
    return {kind: model.version for kind, model in models.items()}


def _set_scene(flight: Flight) -> None:
    """Choose how the world is drawn, and make the environment for it."""
    from safetypilot.envs import registry

    names = flight.interface.observation_names
    shape = contracts.image_shape(names)
    env: Any = None
    if is_planar(names, flight.env_name):
        flight.scene = scenes.PlanScene(world_of(flight.env_name))
    elif shape is not None:
        flight.scene = scenes.PixelScene(shape)
    else:
        env = _rendered(flight)
    flight.env = scenes.Watched(_judged(env or registry.make_flat(flight.env_name), flight))
    if flight.scene is None:
        eps = flight.config.eps if flight.shielded else float("nan")
        low, high = flight.interface.action_low, flight.interface.action_high
        flight.scene = scenes.SignalScene(low, high, eps)


def _judged(env: Any, flight: Flight) -> Any:
    """The environment, with what the run was told to take for a violation."""
    if flight.config.cost == "info":
        return env
    from safetypilot.envs import costs
    from safetypilot.policies.learn.world import Costed

    return Costed(env, costs.cost_function(flight.config.cost, flight.env_name))


def _rendered(flight: Flight) -> Any:
    """The environment in a mode that renders, with its scene; None where that cannot be had."""
    from safetypilot.envs import registry

    cause = _cannot_render(flight.env_name)
    if cause:
        flight.notes.append(
            f"{flight.env_name} cannot be rendered here ({cause}); the video shows risk, reward "
            "and actions instead"
        )
        return None
    env = registry.make_flat(flight.env_name, render_mode="rgb_array")
    env.reset(seed=0)
    flight.scene = scenes.RenderedScene(env)
    rate = float(env.metadata.get("render_fps") or _FPS)
    flight.fps = min(max(rate, _FPS), _MOST_FPS)
    return env


def _cannot_render(env: str) -> str:
    """Why this environment does not render here; empty if it does.

    Tried in a process of its own: a graphics driver may end the process instead of saying so.
    """
    command = [sys.executable, "-P", "-c", _RENDER, env]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_RENDER_S)
    except subprocess.TimeoutExpired:
        return f"no picture within {_RENDER_S} s"
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[-1].partition(": ")[2][:160] or lines[-1][:160]


def _offer_gl() -> None:
    """Let MuJoCo render without a display, where it can; it reads this when it is imported."""
    if not os.environ.get("DISPLAY") and find_library("EGL"):
        os.environ.setdefault("MUJOCO_GL", "egl")


def fly(flight: Flight, on_step: Callable[[Any], None] | None = None) -> dict[str, Any]:
    """Fly and count, and write the video.

    Args:
        flight: from `prepare`.
        on_step: called after every step, for progress.
    """
    request, began = flight.request, time.monotonic()
    film = None
    listeners = [on_step] if on_step is not None else []
    if request.video is not None and flight.scene is not None:
        eps = flight.config.eps if flight.shielded else float("nan")
        target = video.writer(request.video, flight.fps)
        film = video.Film(target, flight.scene, flight.env, flight.fps, eps, request.filmed)
        listeners.append(film.on_step)

    def tell(record: Any) -> None:
        for listener in listeners:
            listener(record)

    try:
        counts = _evaluate(flight, tell if listeners else None)
    except BaseException:
        if film is not None:
            film.discard()
        raise
    finally:
        flight.env.close()
    if film is not None:
        film.close()
    return _figures(flight, counts, time.monotonic() - began)


def _evaluate(flight: Flight, on_step: Callable[[Any], None] | None) -> dict[str, Any]:
    """The one door to the learning core."""
    from safetypilot.policies.learn.evaluation import evaluate

    request = flight.request
    return dict(
        evaluate(
            flight.env,
            flight.files,
            flight.config,
            flight.interface,
            episodes=request.episodes,
            seed=request.seed,
            shielded=flight.shielded,
            on_step=on_step,
        )
    )


def _figures(flight: Flight, counts: dict[str, Any], wall_s: float) -> dict[str, Any]:
    request = flight.request
    return {
        "env": flight.env_name,
        "policy": request.policy,
        "shield": flight.shielded,
        "eps": flight.config.eps if flight.shielded else None,
        "seed": request.seed,
        **counts,
        "ratio": (counts["successes"] + 1) / (counts["violations"] + 1),
        "wall_s": round(wall_s, 3),
        "models": flight.versions,
        "video": None if request.video is None else str(request.video),
        "notes": flight.notes,
    }
