"""Recovery RL's learner without an environment: buffers, networks, updates, export.

The training loop and the learner node of a running graph feed the same object.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from safetypilot.models import export as exporting
from safetypilot.models.contract import Contract, Expected
from safetypilot.models.networks import DynamicsEnsemble, Sizes
from safetypilot.policies.learn import checkpoint, dynamics, offline, risk, sac
from safetypilot.policies.learn.config import Config
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.replay import Array, Replay, Transition

FILES = {
    "task_policy": "trained.onnx",
    "safety_critic": "critic.onnx",
    "dynamics": "dynamics.onnx",
    "recovery_policy": "recovery.onnx",
}


class RecoveryLearner:
    """Learns a task policy, Q_risk, the dynamics and, if asked, a recovery policy.

    Attributes:
        task_replay: transitions met online, for the task policy.
        risk_replay: offline and online transitions, for Q_risk and the dynamics.
        demos: offline transitions, for the task policy; here a violation does not terminate.
        updates: gradient rounds so far.
    """

    def __init__(self, config: Config, interface: Expected, seed: int = 0) -> None:
        """Build with weights that depend on the seed alone.

        Args:
            config: the settings.
            interface: names, units and limits of the plant.
            seed: fixes weights, batches and noise.
        """
        self.config = config
        self.interface = interface
        low, high = tuple(interface.action_low), tuple(interface.action_high)
        observations = len(interface.observation_names)
        sizes = Sizes(observations, low, high, (config.hidden,) * config.layers)
        model_sizes = Sizes(
            observations, low, high, (config.dynamics_hidden,) * config.dynamics_layers
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.sac = sac.Sac(sizes, config)
            self.risk = risk.Risk(sizes, config)
            self.dynamics = DynamicsEnsemble(model_sizes, config.ensemble)
        self.dynamics_optimiser = sac.adam(self.dynamics, config.dynamics_learning_rate)
        self.task_replay = Replay(config.capacity, observations, len(low))
        self.risk_replay = Replay(config.capacity, observations, len(low))
        self.demos = Replay(max(1, config.offline_size), observations, len(low))
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.updates = 0
        self.dynamics_fitted = False
        self.scaled = False

    @property
    def trains_recovery(self) -> bool:
        """Whether the model-free recovery policy is used, and so trained."""
        return self.config.recovery == "model-free" or self.config.bootstrap == "composite"

    def load_offline(self, data: Mapping[str, Array]) -> None:
        """Take offline transitions, and the observation scale from them if there is none yet.

        Args:
            data: arrays of N rows: observation, action, cost, next_observation; for the task
                policy also reward; terminated and truncated, else a cost is what terminates.
        """
        rows = offline.rows(data)
        if not self.scaled:  # restored networks keep the scale they were trained with
            self.fit_scale(rows.observation)
        kept = self.rng.random(len(rows.cost)) < self.config.stuck_fraction
        kept |= ~offline.starts_in_violation(rows)
        self.risk_replay.extend(offline.choose(rows, kept))
        if self.config.task_demos > 0:
            if "reward" not in data:
                raise LearnError("task_demos needs rewards in the offline data; set it to 0")
            # A violation that ended the episode would also end its negative rewards, and so look
            # attractive; leaving those rows out lets the critic dream of what lies behind a wall.
            # The recording went on instead, stuck, and that is what the task policy learns from.
            ends = rows.terminated & (rows.cost == 0)
            self.demos.extend(rows._replace(terminated=ends))

    def fit_scale(self, observations: Array) -> None:
        """Scale observations by the statistics of these, (N, O), in every network."""
        tensor = torch.from_numpy(np.ascontiguousarray(observations, np.float32))
        for network in self._networks().values():
            if not isinstance(network, DynamicsEnsemble):
                network.scaling.fit(tensor)
        self.scaled = True

    def add(self, transition: Transition) -> None:
        """Take one online step."""
        self.risk_replay.add(transition)
        if not self.config.relabel:
            transition = transition._replace(proposed=transition.executed)
        self.task_replay.add(transition)

    def propose(self, observation: Array) -> Array:
        """A sample of the task policy, (O,) -> (A,)."""
        with torch.no_grad():
            row = torch.from_numpy(np.asarray(observation, np.float32))[None]
            action: Array = self.sac.actor.sample(row, self.generator)[0][0].numpy()
        return action

    def update(self, n: int = 1) -> dict[str, float]:
        """Update everything that has data, `n` environment steps' worth.

        Returns:
            Metrics of the last update of each network.

        Raises:
            LearnError: a loss is not finite; it says which, and nothing more is updated.
        """
        metrics: dict[str, Tensor] = {}
        if not self.scaled and self.task_replay.size:
            self.fit_scale(self.task_replay.rows().observation)
        for _ in range(n):
            for _ in range(self.config.updates_per_step):
                if self.task_replay.size + self.demos.size >= self.config.batch:
                    metrics |= self.update_task()
            for _ in range(self.config.risk_updates_per_step):
                if self.risk_ready:
                    metrics |= self.update_risk()
            self.updates += 1
        return self.finite(metrics)

    @property
    def risk_ready(self) -> bool:
        """Enough rows, and enough violations among them for a stratified batch."""
        config, replay = self.config, self.risk_replay
        if config.recovery == "none":
            return False
        wanted = config.batch * config.positive_fraction
        return replay.size >= config.batch and replay.violations >= wanted

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
        rows = Transition(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        batch = sac.TaskBatch.of(rows)
        return sac.update(self.sac, batch, self.config, self.generator)

    def update_risk(self) -> sac.Metrics:
        """One update of Q_risk, and of the recovery policy if it is used."""
        config = self.config
        rows = self.risk_replay.sample(self.rng, config.batch, config.positive_fraction)
        batch = risk.RiskBatch.of(rows)
        next_action: risk.NextAction = self._task_sample
        if config.bootstrap == "composite":
            next_action = risk.composite(self.risk, next_action, config, self.generator)
        return risk.update(
            self.risk, batch, config, next_action, self.generator, self.trains_recovery
        )

    def fit_dynamics(self, epochs: int) -> dict[str, float]:
        """Fit the ensemble to all transitions held."""
        rows = self.risk_replay.rows()
        inputs = np.concatenate((rows.observation, rows.executed), axis=1)
        metrics = dynamics.fit(
            self.dynamics,
            self.dynamics_optimiser,
            torch.from_numpy(inputs),
            torch.from_numpy(rows.next_observation - rows.observation),
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
        values = {name: value.item() for name, value in metrics.items()}
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
    ) -> dict[str, Path]:
        """Write what has been learned as ONNX files that can fly at once.

        Returns:
            Paths by kind; `recovery_policy` is a file of kind task_policy. What was not learned
            (the dynamics before their first fit, Q_risk without a shield) is left out.
        """
        networks: dict[str, nn.Module] = {"task_policy": self.sac.actor}
        if self.config.recovery != "none":
            networks["safety_critic"] = self.risk.critic
        if self.dynamics_fitted:
            networks["dynamics"] = self.dynamics
        if self.trains_recovery:
            networks["recovery_policy"] = self.risk.recovery
        contract = self._contract(version, run)
        return {
            kind: exporting.export(network, Path(directory) / FILES[kind], contract).path
            for kind, network in networks.items()
        }

    def export_policy(
        self, path: Path | str, version: str, run: Mapping[str, Any] | None = None
    ) -> Path:
        """Write the task policy alone."""
        return exporting.export(self.sac.actor, path, self._contract(version, run)).path

    def _contract(self, version: str, run: Mapping[str, Any] | None) -> Contract:
        interface = self.interface
        return Contract(
            kind="task_policy",
            observation_names=tuple(interface.observation_names),
            observation_units=tuple(interface.observation_units),
            action_names=tuple(interface.action_names),
            action_units=tuple(interface.action_units),
            action_low=tuple(interface.action_low),
            action_high=tuple(interface.action_high),
            version=version,
            run=dict(run or {}),
        )

    def state(self) -> dict[str, Any]:
        """Everything that the next update depends on, as tensors and plain values."""
        return {
            **checkpoint.collect(self._networks(), self._optimisers(), self._replays()),
            "log_alpha": self.sac.log_alpha.detach().clone(),
            "rng": checkpoint.rng_state(self.rng),
            "generator": self.generator.get_state(),
            "updates": self.updates,
            "dynamics_fitted": self.dynamics_fitted,
            "scaled": self.scaled,
        }

    def weights(self) -> dict[str, Any]:
        """The networks alone: what another learner can go on from with data of its own."""
        return {
            **checkpoint.collect(self._networks(), {}, {}),
            "log_alpha": self.sac.log_alpha.detach().clone(),
            "updates": self.updates,
            "dynamics_fitted": self.dynamics_fitted,
            "scaled": self.scaled,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue bit for bit from `state`, or with new optimisers and data from `weights`."""
        whole = bool(state["replays"])
        checkpoint.put_back(
            state,
            self._networks(),
            self._optimisers() if whole else {},
            self._replays() if whole else {},
        )
        with torch.no_grad():
            self.sac.log_alpha.copy_(state["log_alpha"])
        if whole:
            checkpoint.restore_rng(self.rng, state["rng"])
            self.generator.set_state(state["generator"])
        self.updates = int(state["updates"])
        self.dynamics_fitted = bool(state["dynamics_fitted"])
        self.scaled = bool(state["scaled"])

    def save(self, path: Path | str) -> None:
        """Write everything to one file, atomically."""
        checkpoint.save(path, {"learner": self.state()})

    def save_weights(self, path: Path | str) -> None:
        """Write the networks alone, atomically."""
        checkpoint.save(path, {"learner": self.weights()})

    def load(self, path: Path | str) -> None:
        """Continue from a file that `save` or `save_weights` wrote."""
        self.restore(checkpoint.load(path)["learner"])

    def _task_sample(self, observation: Tensor) -> Tensor:
        return self.sac.actor.sample(observation, self.generator)[0]

    def _networks(self) -> dict[str, Any]:
        return {
            "actor": self.sac.actor,
            "critic": self.sac.critic,
            "target": self.sac.target,
            "risk": self.risk.critic,
            "risk_target": self.risk.target,
            "recovery": self.risk.recovery,
            "dynamics": self.dynamics,
        }

    def _optimisers(self) -> dict[str, Any]:
        return {
            "actor": self.sac.actor_optimiser,
            "critic": self.sac.critic_optimiser,
            "alpha": self.sac.alpha_optimiser,
            "risk": self.risk.critic_optimiser,
            "recovery": self.risk.recovery_optimiser,
            "dynamics": self.dynamics_optimiser,
        }

    def _replays(self) -> dict[str, Replay]:
        return {"task": self.task_replay, "risk": self.risk_replay, "demos": self.demos}
