"""Every setting that the algorithms share, typed; `presets` has the values per task.

An algorithm with settings of its own extends `Config`, as a frozen dataclass, in its own file.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from safetypilot.policies.learn.errors import LearnError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of off-policy learning, with and without Q_risk and recovery.

    Attributes:
        recovery: `model-based` (planner), `model-free` (policy), `q-sampling` (the safest of many
            actions), `visual` (planner on latents), `editor` (the policy, always) or `none`.
        cost: what violates: `info` takes the environment's `info["cost"]`, `termination` an episode
            that ends before its time, `none` nothing; for environments that know no cost.
        eps: risk above which recovery takes over.
        gamma_safe: discount of the risk.
        tau_safe: target rate of Q_risk. The paper's; its code used 0.0002, so slow that Q_risk
            looked only a few steps ahead.
        bootstrap: whose action follows in Q_risk's target: `task` policy, or `composite`.
        risk_loss: `cross-entropy`, or `squared` as published; see `risk.error`.
        risk_critics: networks of Q_risk; the largest counts, so more are more careful.
        conservative: weight of the gap that raises the risk of unseen actions (CSC); 0 is off.
        positive_fraction: part of a risk batch that is violations; 0 samples uniformly.
        stuck_fraction: part kept of the offline rows that start inside a violation. The published
            maze data go on after a touch, so nine violations in ten start inside a wall, where no
            shield ever decides, and drown those that show how one gets there.
        recovery_deviation: of the model-free recovery policy at first, in parts of half the
            action box; 0 makes it deterministic, as in the paper; the code had a Gaussian.
        recovery_samples: actions that `q-sampling` chooses from.
        horizon: H of the planner, in steps.
        planner_method: see policies/planning.py.
        gamma: discount of the reward.
        tau: target rate of the task critic.
        reward_scale: multiplies rewards in the task critic.
        alpha: temperature; the first one, if automatic.
        automatic_alpha: follow `target_entropy`, which is per action dimension, of actions scaled
            to [-1, 1].
        choice_entropy: the same for discrete actions, in parts of log n.
        task_demos: part of each task batch that comes from the offline transitions.
        demo_size: of demonstrations to take that part from, in transitions; 0 takes it from the
            offline transitions.
        cloning: weight of staying near what demonstrations do, in the actor's loss; see `cloning`.
        relabel: store the proposed action for the task critic, not the executed one.
        both_transitions: where recovery acted, store the executed one for it as well.
        timeout_terminates: take the end of the clock for the end of the task, as the original did
            in the maze.
        scale_observations: by the statistics of the first data.
        encoder: of pixels: `fast`, or `published`, which costs 12 to 26 times as much.
        encoder_features: numbers that `fast` makes of an image.
        latent: L, of the visual recovery's model; 256 in the original.
        latent_steps: gradient steps on it, offline.
        latent_batch: stretches per step.
        latent_length: steps of a stretch, at least as many as it looks ahead, 5.
        capture: record updates and replay them, on a GPU as CUDA graphs, else as straight code.
        precision: of matrix products while learning: `fp32`, or `bf16`, quicker where the machine
            has units for it.
        batch: rows per update of the task policy and of Q_risk.
        updates_per_step: of the task policy, per environment step.
        risk_updates_per_step: of Q_risk (and the model-free recovery policy).
        recovery_every: updates of Q_risk to one of the recovery policy; 1 as published. 2, as in
            TD3 (arXiv 1802.09477), saves a fifth of the cost and was as safe on two tasks.
        start_steps: uniformly random proposals at first, also through the shield.
        offline: learn from offline transitions first; off is an ablation.
        online: go on learning risk and dynamics during the episodes; off is an ablation.
        offline_size: transitions asked of the offline recipe.
        offline_updates: of Q_risk before the first episode.
        task_offline_updates: of the task policy before the first episode, with `task_demos`.
        dynamics_epochs: passes over the offline data.
        dynamics_batch: rows per net. The original's was 32, at several times the cost per epoch.
        dynamics_update_episodes: refit after so many episodes, for `dynamics_online_epochs`.
        novice_episodes: the task policy after so many episodes is kept as `novice.onnx`.
        steps: most environment steps; 0 is no limit.
        evaluate_every: episodes between evaluations, each of `evaluate_episodes`.
        final_episodes: of the last evaluation, with and without the shield.
        checkpoint_every: episodes between checkpoints.
    """

    recovery: str = "model-based"
    cost: str = "info"
    eps: float = 0.15
    gamma_safe: float = 0.5
    tau_safe: float = 0.005
    bootstrap: str = "task"
    risk_loss: str = "cross-entropy"
    positive_fraction: float = 0.3
    stuck_fraction: float = 0.1
    risk_learning_rate: float = 3e-4
    risk_critics: int = 2
    conservative: float = 0.0
    recovery_deviation: float = 0.0
    recovery_samples: int = 1000

    horizon: int = 15
    planner_method: str = "icem"
    planner_population: int = 64
    planner_elites: int = 8
    planner_iterations: int = 3
    planner_particles: int = 5

    gamma: float = 0.99
    tau: float = 0.005
    learning_rate: float = 3e-4
    reward_scale: float = 1.0
    alpha: float = 0.2
    automatic_alpha: bool = False
    target_entropy: float = -1.0
    choice_entropy: float = 0.4
    task_demos: float = 0.0
    demo_size: int = 0
    cloning: float = 0.0
    relabel: bool = True
    both_transitions: bool = False
    timeout_terminates: bool = False
    scale_observations: bool = True

    encoder: str = "fast"
    encoder_features: int = 64
    latent: int = 32
    latent_steps: int = 1000
    latent_batch: int = 32
    latent_length: int = 5
    capture: bool = True
    precision: str = "fp32"
    hidden: int = 64
    layers: int = 2
    batch: int = 128
    capacity: int = 200_000
    updates_per_step: int = 1
    risk_updates_per_step: int = 1
    recovery_every: int = 2
    start_steps: int = 100

    offline: bool = True
    online: bool = True
    offline_size: int = 10_000
    offline_updates: int = 10_000
    task_offline_updates: int = 0

    ensemble: int = 5
    dynamics_hidden: int = 64
    dynamics_layers: int = 2
    dynamics_learning_rate: float = 1e-3
    dynamics_batch: int = 256
    dynamics_epochs: int = 50
    dynamics_online_epochs: int = 5
    dynamics_update_episodes: int = 5

    episodes: int = 500
    steps: int = 0
    novice_episodes: int = 10
    evaluate_every: int = 25
    evaluate_episodes: int = 10
    final_episodes: int = 50
    checkpoint_every: int = 25

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise LearnError(
                    f"{name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}"
                )
        for field in fields(self):
            low, high = _RANGES.get(field.name, (None, None))
            value = getattr(self, field.name)
            if low is not None and not low <= value <= high:
                raise LearnError(f"{field.name} is {value}; it must lie in [{low}, {high}]")
        for least, most in _AT_MOST:
            if getattr(self, least) > getattr(self, most):
                raise LearnError(
                    f"{least} is {getattr(self, least)}, more than {most}, "
                    f"{getattr(self, most)}; change either"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and checkpoints."""
        return asdict(self)


Settings = TypeVar("Settings", bound=Config)

_CHOICES = {
    "recovery": ("model-based", "model-free", "q-sampling", "visual", "editor", "none"),
    "cost": ("info", "termination", "none"),
    "encoder": ("fast", "published"),
    "planner_method": ("random", "cem", "icem", "mppi"),
    "bootstrap": ("task", "composite"),
    "precision": ("fp32", "bf16"),
    "risk_loss": ("cross-entropy", "squared"),
}
_AT_MOST = (("batch", "capacity"), ("planner_elites", "planner_population"))
_MANY = 10**9
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("eps", "gamma_safe", "gamma", "task_demos", "stuck_fraction"), (0.0, 1.0)),
    **dict.fromkeys(("tau", "tau_safe"), (1e-6, 1.0)),
    **dict.fromkeys(("alpha", "reward_scale"), (1e-9, 1e9)),
    **dict.fromkeys(("nu", "nu_end", "penalty", "editor_weight"), (0.0, 1e9)),
    **dict.fromkeys(("nu_learning_rate", "penalty_learning_rate"), (0.0, 1.0)),
    "target_entropy": (-100.0, 100.0),
    "choice_entropy": (0.0, 1.0),
    "positive_fraction": (0.0, 0.9),
    "latent_length": (5, 1000),
    **dict.fromkeys(("conservative", "cloning"), (0.0, 1e6)),
    "recovery_deviation": (0.0, 10.0),
    **dict.fromkeys(("learning_rate", "risk_learning_rate", "dynamics_learning_rate"), (0.0, 1.0)),
    **dict.fromkeys(
        (
            *("horizon", "planner_population", "planner_elites", "planner_iterations"),
            *("recovery_samples", "planner_particles", "hidden", "layers", "batch", "capacity"),
            *(
                "ensemble",
                "risk_critics",
                "encoder_features",
                "latent",
                "latent_steps",
                "latent_batch",
            ),
            *("dynamics_hidden", "dynamics_layers", "dynamics_batch", "dynamics_update_episodes"),
            *("evaluate_every", "checkpoint_every", "episodes", "recovery_every"),
        ),
        (1, _MANY),
    ),
    **dict.fromkeys(
        (
            *("updates_per_step", "risk_updates_per_step", "start_steps", "offline_updates"),
            *("task_offline_updates", "dynamics_epochs", "dynamics_online_epochs", "steps"),
            *("novice_episodes", "evaluate_episodes", "final_episodes", "offline_size"),
            *("demo_size", "samples"),
        ),
        (0, _MANY),
    ),
}


def with_settings(config: Settings, settings: Mapping[str, str]) -> Settings:
    """A config with settings as typed on a command line, `{"gamma": "0.95"}`.

    Raises:
        LearnError: an unknown name, with the nearest one, or a value of the wrong type.
    """
    known = {field.name: getattr(config, field.name) for field in fields(config)}
    values: dict[str, Any] = {}
    for given, text in settings.items():
        name = given.strip().lstrip("-").replace("-", "_")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
            raise LearnError(f"unknown setting {given!r}; {hint}")
        values[name] = _parse(name, str(text).strip(), known[name])
    return replace(config, **values)


def _parse(name: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            raise LearnError(f"{name} is {text!r}; say true or false")
        return words[text.lower()]
    if isinstance(default, str):
        return text
    kind = type(default)
    try:
        number = float(text)
        if kind is int and number != int(number):
            raise ValueError
        return kind(number)
    except (ValueError, OverflowError):
        wanted = "a whole number" if kind is int else "a number"
        raise LearnError(f"{name} is {text!r}; it must be {wanted}, such as {default}") from None
