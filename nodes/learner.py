"""Trains while the graph runs: takes every transition, updates, exports, announces models.

It costs the control path nothing: transitions come over a stream whose writer never waits, models
leave as files that the other nodes stage by themselves. Work is done in short slices, so that a
request or a shutdown never waits long.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from safetypilot.envs import registry
from safetypilot.nodes.joined import Joiner
from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.errors import NodeError, RequestRefused
from safetypilot.nodes.kernel.node import Context, Input, Node
from safetypilot.nodes.kernel.process import main

_SLICE = 5  # updates between two looks at the sockets
_OUTCOMES = {"task_policy", "safety_critic", "dynamics"}


@dataclass(frozen=True)
class LearnerConfig:
    """What is learned, from where, and how often it is announced.

    Attributes:
        env: whose preset of policies/learn/presets.py to use.
        algorithm: a name of policies/learn/catalogue.py.
        settings: changes to that preset, "key=value".
        start: weights or a checkpoint to go on from; empty starts anew with the offline phase.
        updates_per_step: gradient rounds per transition received.
        announce_after: transitions before the first announcement; a policy that has seen less is
            not worth flying.
        announce_every: transitions between announcements.
        kinds: what is announced.
        together: the models of one announcement are a set: they change over at one observation, or
            none does. The supervisor sees to it; in lockstep each node takes its own.
    """

    env: str
    algorithm: str = "recovery-rl"
    settings: tuple[str, ...] = ()
    start: str = ""
    updates_per_step: int = 1
    announce_after: int = 500
    announce_every: int = 500
    kinds: tuple[str, ...] = ("task_policy", "safety_critic")
    together: bool = True


class Learner(Node):
    inputs = (Input("transition"),)
    outputs = ("model",)
    Config = LearnerConfig

    def __init__(self, config: LearnerConfig, context: Context) -> None:
        super().__init__(config, context)
        self._received = self._lost = self._owed = self._announced = self._episodes = 0
        self._offline_owed = 0
        self._last_seq = -1
        self._joiner = Joiner(context.every)
        self._metrics: dict[str, float] = {}
        self._ready = False

    def configure(self) -> None:
        unknown = set(self.config.kinds) - _OUTCOMES
        if unknown:
            raise NodeError(f"learner.kinds: {sorted(unknown)}; known: {sorted(_OUTCOMES)}")
        try:
            import torch

            from safetypilot.policies.learn import catalogue
            from safetypilot.policies.learn.config import with_settings
            from safetypilot.policies.learn.learner import Learner as Core
        except ImportError as error:
            raise NodeError(
                f"the learner needs the train extra ({error.name} is missing): "
                "pip install -e '.[train]' in the checkout, or launch with learner=off"
            ) from None
        torch.set_num_threads(1)
        try:
            registry.resolve(self.config.env)
            algorithm = self.config.algorithm
            chosen = with_settings(
                catalogue.settings(algorithm, self.config.env),
                dict(item.split("=", 1) for item in self.config.settings),
            )
            seeds = (self.context.seed,)
            self._learner = Core(algorithm, chosen, self.context.interface, seeds)
            if self.config.start:
                self._learner.load(self.config.start)
        except ValueError as error:
            raise NodeError(f"learner: {error}") from None
        self._offline = chosen
        self._ready = self._learner.risk_replay.size > 0

    def activate(self, now_ns: int) -> None:
        if not self._ready:
            self.context.background(self._offline_data, self._take_offline, "offline data")

    def _offline_data(self) -> Any:
        from safetypilot.envs.offline import offline_data

        return offline_data(self.config.env, self._offline.offline_size, self.context.seed)

    def _take_offline(self, data: Any, now_ns: int) -> None:
        if isinstance(data, Exception):
            raise NodeError(f"learner: no offline data for {self.config.env!r}: {data}")
        self._learner.load_offline(data)
        # Weights have been through the offline phase; only its data is needed, for its violations.
        self._offline_owed = 0 if self.config.start else self._offline.offline_updates
        self.context.event("offline phase", rows=len(data["cost"]), updates=self._offline_owed)
        self._ready = True
        self.next_wake_ns = now_ns

    def on_message(self, topic: str, message: messages.Transition, now_ns: int) -> None:
        from safetypilot.policies.learn.replay import Transition

        same_plant = message.seq >> 32 == self._last_seq >> 32
        if same_plant and message.seq > self._last_seq + 1 and self._received:
            self._lost += message.seq - self._last_seq - 1
            self.context.event("lost transitions", total=self._lost)
        self._last_seq = message.seq
        whole = self._joiner.take(message)
        if whole is None:
            return
        message = whole
        self._received += 1
        proposed = message.proposed if np.isfinite(message.proposed).all() else message.executed
        self._learner.add(
            Transition(
                message.observation,
                proposed,
                message.executed,
                message.reward,
                message.cost,
                message.next_observation,
                message.terminated,
                message.truncated,
            )
        )
        self._owed += self.config.updates_per_step
        if message.terminated or message.truncated:
            self._episodes += 1  # some multipliers go by it
            self._learner.algorithm.start_episode(0, self._episodes + 1)
        if self._ready:
            self.next_wake_ns = now_ns

    def on_timer(self, now_ns: int) -> None:
        """A slice of the work that is owed, then a look at the sockets."""
        if self._offline_owed > 0:
            count = min(_SLICE, self._offline_owed)
            for _ in range(count):
                self._metrics |= self._learner.finite(self._learner.update_risk())
            self._offline_owed -= count
        elif self._owed > 0:
            count = min(_SLICE, self._owed)
            self._metrics |= self._learner.update(count)
            self._owed -= count
        due = self.config.announce_after + self._announced * self.config.announce_every
        if not self._offline_owed and self._received >= due:
            self._announced += 1
            self._announce(now_ns)
        busy = self._offline_owed > 0 or self._owed > 0
        self.next_wake_ns = now_ns if busy else None

    def _announce(self, now_ns: int) -> None:
        folder = self.context.run_dir / "models" / f"learner-{self._announced:04d}"
        version = f"learned-{self._received}"
        run = {"env": self.config.env, "seed": self.context.seed, "transitions": self._received}
        exported = self._learner.export(folder, version, run)
        files = {kind: str(exported[kind]) for kind in self.config.kinds if kind in exported}
        if self.config.together and self.context.realtime and len(files) > 1:
            self.context.event("trained", version=version, files=files)
            return
        for kind, path in files.items():
            self._emit(kind, Path(path), version, now_ns)

    def _emit(self, kind: str, path: Path, version: str, now_ns: int) -> None:
        digest = sha256(path.read_bytes()).hexdigest()
        self.context.event("announced", model=kind, version=version, path=str(path))
        self.context.emit(
            "model",
            messages.ModelAnnouncement(
                self._last_seq, now_ns, now_ns, kind, str(path), digest, version
            ),
        )

    def on_request(self, request: str, arguments: dict[str, Any], now_ns: int) -> dict[str, Any]:
        if request == "announce" and self._ready:
            self._announce(now_ns)
            return {"announced": list(self.config.kinds)}
        if request == "save":
            return {"path": str(self._save())}
        raise RequestRefused(f"the learner knows announce and save, not {request!r} (yet)")

    def _save(self) -> Path:
        path = self.context.run_dir / "models" / "learner.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._learner.save(path)
        return path

    def status(self) -> dict[str, Any]:
        return {
            "received": self._received,
            "lost": self._lost,
            "updates_owed": self._owed + self._offline_owed,
            "announced": self._announced,
            "metrics": {name: round(value, 5) for name, value in self._metrics.items()},
        }

    def deactivate(self, now_ns: int) -> None:
        if self._received:
            self._save()


if __name__ == "__main__":
    main(Learner)
