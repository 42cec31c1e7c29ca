"""An algorithm's learner without an environment: buffers, networks, updates, export.

The training loop and the learner node of a running graph feed the same object. Letters: S seeds
that train side by side, B batch, N rows, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safetypilot.models.contract import Expected, image_shape, observation_size
from safetypilot.models.encoders import EncoderSizes
from safetypilot.models.latent import LatentSizes
from safetypilot.models.networks import DynamicsEnsemble, Sizes
from safetypilot.policies.learn import (
    capture,
    catalogue,
    checkpoint,
    cloning,
    discrete,
    dynamics,
    exports,
    offline,
    risk,
    sac,
    saving,
)
from safetypilot.policies.learn.algorithms.base import Parts
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.optimiser import Adam
from safetypilot.policies.learn.precision import matrix_products
from safetypilot.policies.learn.replay import Array, Replay, Transition
from safetypilot.policies.learn.seeds import mixed
from safetypilot.policies.learn.visual import Visual


class Learner:
    """Learns a task policy, and what the algorithm needs of Q_risk, dynamics and recovery policy.

    Attributes:
        task_replay: transitions met online, for the task policy.
        risk_replay: offline and online transitions, for Q_risk and the dynamics.
        demos: offline transitions, for the task policy; here a violation does not terminate.
        updates: gradient rounds so far.
    """

    def __init__(
        self,
        algorithm: str,
        config: Config,
        interface: Expected,
        seeds: Sequence[int] = (0,),
        device: str = "cpu",
    ) -> None:
        """Build with weights that depend on the seeds alone.

        Args:
            algorithm: a name of the catalogue.
            config: the settings.
            interface: names, units and limits of the plant.
            seeds: fix weights, batches and noise; each trains a policy of its own, side by side.
            device: where networks live: `cpu` or `cuda`.

        Raises:
            LearnError: there is no such device, or no such way to learn this plant.
        """
        self.config = config
        self.interface = interface
        self.seeds = tuple(seeds)
        self.device = capture.usable(device)
        low, high = tuple(interface.action_low), tuple(interface.action_high)
        observations = observation_size(interface.observation_names)
        count = len(self.seeds)
        hidden = (config.hidden,) * config.layers
        shape = image_shape(interface.observation_names)
        if shape is not None and count > 1:
            raise LearnError("pixels are learned from one seed at a time; give --seed")
        self._pixels = shape is not None
        image = None if shape is None else _encoder(shape, config)
        sizes = Sizes(observations, low, high, hidden, count, image)
        risk_sizes = sizes
        if config.recovery == "visual":
            if shape is None:
                raise LearnError("recovery=visual plans from pixels; use model-based on vectors")
            risk_sizes = replace(sizes, image=LatentSizes(shape, low, high, config.latent))
        elif config.recovery == "model-based" and shape is not None:
            raise LearnError("recovery=model-based needs vectors; on pixels use visual")
        model_hidden = (config.dynamics_hidden,) * config.dynamics_layers
        model_sizes = Sizes(observations, low, high, model_hidden)
        self.discrete = discrete.is_choice(interface.action_names)
        if self.discrete and config.recovery == "visual":
            raise LearnError("recovery=visual knows no choices; use model-free or q-sampling")
        kinds = discrete.KINDS if self.discrete else (sac.Sac, risk.Risk, DynamicsEnsemble)
        task_kind, risk_kind, model_kind = kinds
        gpus = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=gpus), torch.device(self.device):
            torch.manual_seed(mixed(self.seeds))
            self.sac = task_kind(sizes, config)
            self.risk = risk_kind(risk_sizes, config)
            self.dynamics = []
            if shape is None:
                self.dynamics = [model_kind(model_sizes, config.ensemble) for _ in seeds]
            self.visual: Visual | None = None
            if isinstance(risk_sizes.image, LatentSizes):
                self.visual = Visual(risk_sizes.image, config, self.seeds[0])
        self.dynamics_optimisers = [
            Adam(ensemble.parameters(), config.dynamics_learning_rate) for ensemble in self.dynamics
        ]
        self._widths = observations, len(low)
        columns = (*self._widths, count, self._pixels)
        self.task_replay = Replay(config.capacity, *columns)
        self.risk_replay = Replay(config.capacity, *columns)
        demos = (config.demo_size or config.offline_size) if config.task_demos > 0 else 1
        self.demos = Replay(max(1, demos), *columns)
        self.rng = np.random.default_rng(self.seeds)
        self.generator = torch.Generator(self.device).manual_seed(mixed(self.seeds))
        parts = Parts(self.sac, self.risk, self.generator, count)
        self.name = algorithm
        with torch.device(self.device):  # multipliers live where the losses do
            self.algorithm = catalogue.entry(algorithm).kind(config, parts)
        self._prepare_updates()
        self.updates = 0
        self.risk_updates = 0
        self.dynamics_fitted = False
        self.scaled = self._pixels or not config.scale_observations

    @property
    def trains_recovery(self) -> bool:
        """Whether the model-free recovery policy is used, and so trained."""
        used = self.config.recovery in ("model-free", "editor")
        return used or self.config.bootstrap == "composite"

    def load_offline(self, data: Mapping[str, Array], index: int = 0) -> None:
        """Take offline transitions, and the observation scale from them if there is none yet.

        Args:
            data: arrays of N rows: observation, action, cost, next_observation; for the task
                policy also reward; terminated and truncated, else a cost is what terminates.
            index: which of the seeds they are for.
        """
        rows = self._rows(data)
        if self.visual is not None:
            self.visual.load(data)
        if not self.scaled:  # restored networks keep the scale they were trained with
            self._fit_scale(rows.observation, index)
        if self.algorithm.uses_risk:
            kept = self.rng.random(len(rows.cost)) < self.config.stuck_fraction
            kept |= ~offline.starts_in_violation(rows)
            self.risk_replay.extend(offline.choose(rows, kept), index)
        if self.config.task_demos > 0 and not self.config.demo_size:
            # A violation that ended the episode would also end its negative rewards, and so look
            # attractive; leaving those rows out lets the critic dream of what lies behind a wall.
            # The recording went on instead, stuck, and that is what the task policy learns from.
            ends = rows.terminated & (rows.cost == 0)
            self.load_demos({**data, "terminated": ends}, index)
        if index == len(self.seeds) - 1:
            self.scaled = True

    def load_demos(self, data: Mapping[str, Array], index: int = 0) -> None:
        """Take transitions for the task policy to learn from beside its own."""
        if "reward" not in data:
            raise LearnError("task_demos needs rewards in the data; set it to 0")
        self.demos.extend(self._rows(data), index)

    def _rows(self, data: Mapping[str, Array]) -> Transition:
        rows = offline.rows(data, *self._widths)
        return discrete.choices(rows) if self.discrete else rows

    def fit_scale(self) -> None:
        """Scale observations by the statistics of what was met so far, in every network."""
        for index in range(len(self.seeds)):
            self._fit_scale(self.task_replay.rows(index).observation, index)
        self.scaled = True

    def _fit_scale(self, observations: Array, index: int) -> None:
        tensor = sac.tensor(observations, self.device)
        for network in self.networks().values():
            if not isinstance(network, DynamicsEnsemble):
                network.scaling.fit(tensor, index)

    def add(self, transition: Transition, index: int = 0, recovered: bool = False) -> None:
        """Take one online step of one seed; `recovered` if another action than proposed acted."""
        if self.discrete:
            transition = discrete.choices(transition)
        self.risk_replay.add(transition, index)
        config = self.config
        if config.timeout_terminates and transition.truncated:
            transition = transition._replace(terminated=True)
        executed = transition._replace(proposed=transition.executed)
        self.task_replay.add(transition if config.relabel else executed, index)
        if config.both_transitions and recovered:
            self.task_replay.add(executed, index)

    def propose(self, observations: Array) -> Array:
        """An action to explore with for each seed, (S, O) -> (S, A)."""
        with torch.no_grad():
            rows = sac.tensor(observations, self.device)[:, None]
            action: Array = self.algorithm.propose(rows)[:, 0].cpu().numpy()
        return action

    def risks(self, observations: Array, actions: Array) -> Array:
        """Q_risk of one action for each seed, (S, O), (S, A) -> (S,)."""
        with torch.no_grad():
            rows = (sac.tensor(array, self.device)[:, None] for array in (observations, actions))
            found: Array = self.risk.critic.risk(*rows)[:, 0].cpu().numpy()
        return found

    def recover(self, observation: Array, index: int = 0) -> Array:
        """The recovery policy's action for one seed, (O,) -> (A,)."""
        rows = np.zeros((len(self.seeds), 1, len(observation)), np.float32)
        rows[index, 0] = observation
        with torch.no_grad():
            action = self.risk.recovery.sample(sac.tensor(rows, self.device), self.generator)
        found: Array = action[index, 0].cpu().numpy()
        return found

    def update(self, n: int = 1) -> dict[str, float]:
        """Update everything that has data, `n` environment steps' worth.

        Returns:
            Metrics of the last update of each network.

        Raises:
            LearnError: a loss is not finite; it says which, and nothing more is updated.
        """
        metrics: dict[str, Tensor] = {}
        config = self.config
        if not self.scaled and self.task_replay.size >= config.batch:
            self.fit_scale()
        for _ in range(n):
            for _ in range(config.updates_per_step):
                if self.task_ready:
                    metrics |= self.update_task()
            for _ in range(config.risk_updates_per_step if config.online else 0):
                if self.risk_ready:
                    metrics |= self.update_risk()
            self.updates += 1
        return self.finite(metrics)

    @property
    def task_ready(self) -> bool:
        """Enough rows for a batch of the task policy."""
        return self.task_replay.size + self.demos.size >= self.config.batch

    @property
    def risk_ready(self) -> bool:
        """Enough rows, and enough violations among them for a stratified batch."""
        config, replay = self.config, self.risk_replay
        wanted = config.batch * config.positive_fraction
        return (
            self.algorithm.uses_risk and replay.size >= config.batch and replay.violations >= wanted
        )

    def update_task(self) -> sac.Metrics:
        """One soft actor-critic update; a part of the batch from the demos."""
        count = self.config.batch
        demos = round(count * self.config.task_demos) if self.demos.size else 0
        if not self.task_replay.size:
            demos = count
        parts = []
        if demos:
            parts.append(self.demos.sample(self.rng, demos))
        if demos < count:
            parts.append(self.task_replay.sample(self.rng, count - demos))
        rows = parts[0]
        if len(parts) > 1:
            rows = Transition(*(np.concatenate(pair, axis=1) for pair in zip(*parts, strict=True)))
        batch = sac.TaskBatch.of(rows, self._rows_device)
        batch.demonstrated[:, :demos] = 1.0
        with matrix_products(self.config.precision):
            return self._task_step(batch) | self.algorithm.after_update(batch)

    def _update_task(self, batch: sac.TaskBatch) -> sac.Metrics:
        algorithm = self.algorithm
        batch = batch._replace(reward=algorithm.reward(batch))
        if self.discrete:
            return discrete.update(
                self.sac, batch, self.config, self.generator, algorithm.actor_penalty
            )
        penalty = algorithm.actor_penalty
        if self.config.cloning > 0:
            penalty = cloning.beside(penalty, self.sac, batch, self.config.cloning)
        return sac.update(self.sac, batch, self.config, self.generator, penalty)

    def update_risk(self) -> sac.Metrics:
        """One update of Q_risk, and of the recovery policy if it is used and its turn has come."""
        config = self.config
        due = self.trains_recovery and self.risk_updates % config.recovery_every == 0
        self.risk_updates += 1
        rows = self.risk_replay.sample(self.rng, config.batch, config.positive_fraction)
        with matrix_products(config.precision):
            step = self._risk_step if due else self._critic_step
            return step(risk.RiskBatch.of(rows, self._rows_device))

    def _update_risk(self, batch: risk.RiskBatch, recovery: bool = True) -> sac.Metrics:
        config, algorithm = self.config, self.algorithm
        next_action: risk.NextAction = algorithm.sample
        if config.bootstrap == "composite":
            next_action = risk.composite(self.risk, next_action, config, self.generator)
        recovery_loss: risk.RecoveryLoss | None = None
        if recovery:
            recovery_loss = algorithm.recovery_loss
            if self.discrete:
                recovery_loss = discrete.expected(recovery_loss)
        return risk.update(self.risk, batch, config, next_action, self.generator, recovery_loss)

    def _prepare_updates(self) -> None:
        """Choose between updates as they are and updates that are replayed."""
        where = self.device, self.generator, self.config.capture
        self._task_step = capture.captured(self._update_task, *where)
        self._risk_step = capture.captured(self._update_risk, *where)
        alone = partial(self._update_risk, recovery=False)
        self._critic_step = capture.captured(alone, *where)
        self._rows_device = torch.device("cpu") if self.config.capture else self.device

    def fit_dynamics(self, epochs: int, index: int = 0) -> dict[str, float]:
        """Fit the ensemble of one seed to all its transitions."""
        rows = self.risk_replay.rows(index)
        inputs = np.concatenate((rows.observation, rows.executed), axis=1)
        metrics = dynamics.fit(
            self.dynamics[index],
            self.dynamics_optimisers[index],
            sac.tensor(inputs, self.device),
            sac.tensor(rows.next_observation - rows.observation, self.device),
            epochs=epochs,
            batch=self.config.dynamics_batch,
            generator=self.generator,
        )
        self.dynamics_fitted = True
        return self.finite(metrics)

    def finite(self, metrics: Mapping[str, Tensor]) -> dict[str, float]:
        """Metrics as numbers.

        Raises:
            LearnError: one is not finite, by name and update.
        """
        tensors = metrics.values()
        if tensors and self.device.type == "cuda":  # one transfer, not one for each
            tensors = torch.stack([each.to(self.device).reshape(()) for each in tensors]).cpu()
        values = {name: value.item() for name, value in zip(metrics, tensors, strict=True)}
        bad = [name for name, value in values.items() if not np.isfinite(value)]
        if bad:
            raise LearnError(
                f"{', '.join(bad)} not finite at update {self.updates}; "
                "lower the learning rate, or look for bad rows in the data"
            )
        return values

    def export(
        self,
        directory: Path | str,
        version: str = "unversioned",
        run: Mapping[str, Any] | None = None,
        index: int = 0,
    ) -> dict[str, Path]:
        """Write what one seed has learned as ONNX files that can fly; see `exports.export`."""
        return exports.export(self, Path(directory), version, run, index)

    def export_policy(
        self, path: Path | str, version: str, run: Mapping[str, Any] | None = None, index: int = 0
    ) -> Path:
        """Write the task policy of one seed alone."""
        return exports.export_policy(self, Path(path), version, run, index)

    def state(self) -> dict[str, Any]:
        """Everything that the next update depends on, as tensors and plain values."""
        return saving.state(self)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue bit for bit from `state`, or from weights alone; see `saving.restore`."""
        saving.restore(self, state)
        self._prepare_updates()  # what was recorded has the old rates in it

    def save(self, path: Path | str) -> None:
        """Write everything to one file, atomically."""
        checkpoint.save(path, {"learner": self.state()})

    def save_weights(self, path: Path | str, index: int = 0) -> None:
        """Write the networks of one seed alone, atomically."""
        checkpoint.save(path, {"learner": saving.weights(self, index)})

    def load(self, path: Path | str) -> None:
        """Continue from a file that `save` or `save_weights` wrote."""
        state = checkpoint.load(path)
        if "learner" not in state:
            raise LearnError(
                f"{path} is of a whole training run; give the weights.pt beside its models"
            )
        self.restore(state["learner"])

    def networks(self) -> dict[str, Any]:
        """All networks by name."""
        return {
            "actor": self.sac.actor,
            "critic": self.sac.critic,
            "target": self.sac.target,
            "risk": self.risk.critic,
            "risk_target": self.risk.target,
            "recovery": self.risk.recovery,
            **{f"dynamics_{i}": ensemble for i, ensemble in enumerate(self.dynamics)},
            **({} if self.visual is None else {"latent": self.visual.model}),
        }

    def optimisers(self) -> dict[str, Any]:
        """All optimisers by name."""
        return {
            "actor": self.sac.actor_optimiser,
            "critic": self.sac.critic_optimiser,
            "alpha": self.sac.alpha_optimiser,
            "risk": self.risk.critic_optimiser,
            "recovery": self.risk.recovery_optimiser,
            **{f"dynamics_{i}": each for i, each in enumerate(self.dynamics_optimisers)},
        }

    def replays(self) -> dict[str, Replay]:
        """All buffers by name."""
        return {"task": self.task_replay, "risk": self.risk_replay, "demos": self.demos}


def _encoder(shape: tuple[int, int, int], config: Config) -> EncoderSizes:
    if config.encoder == "published":
        return EncoderSizes.published(shape)
    return EncoderSizes(shape, features=config.encoder_features)
