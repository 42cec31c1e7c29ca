"""The plant in simulation: a Gymnasium environment on the graph's clock.

Observations are float32 rows: an image is flattened and keeps its values, 0 to 255. A plant with
discrete actions takes preferences (envs/discrete.py). When it asks and what it accepts is in
plant.py.

With a `control_rate` below the graph's rate each control step of the environment is done in equal
parts, one per observation (envs/substeps.py). Reward, cost, success and the end of an episode come
with the last part, as they would without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from safetypilot.envs import costs, registry
from safetypilot.envs.substeps import SplitStep
from safetypilot.nodes.kernel.errors import NodeError, RequestRefused
from safetypilot.nodes.kernel.node import Context
from safetypilot.nodes.kernel.process import main
from safetypilot.nodes.plant import Array, Order, Outcome, Plant, parts_of_a_step


@dataclass(frozen=True)
class SimulatorConfig:
    """Which environment plays the plant, and how patient it is.

    Attributes:
        env: a Gymnasium id or a short name of envs/registry.py.
        cost: "info" for info["cost"], or a function named in envs/costs.py.
        deadline: share of the period by which a command must have come.
        options: passed to every reset.
        control_rate: Hz of the environment's own control steps, where the graph is faster; None:
            one with every observation.
    """

    env: str
    cost: str = "info"
    deadline: float = 0.85
    options: dict[str, Any] | None = None
    control_rate: float | None = None

    def __post_init__(self) -> None:
        """Says no before anything starts."""
        if self.control_rate is not None and not self.control_rate > 0:
            raise ValueError(f"control_rate is {self.control_rate}; it is a rate in Hz, above 0")


class Simulator(Plant):
    Config = SimulatorConfig

    def __init__(self, config: SimulatorConfig, context: Context) -> None:
        super().__init__(config, context)
        self._began = np.zeros(0, np.float32)  # what was observed as the control step began

    def configure(self) -> None:
        try:
            self._env = registry.make_flat(self.config.env)
            self._cost = costs.cost_function(self.config.cost)
            self._parts = parts_of_a_step(self.config.control_rate, self.context.period_ns)
            self._split = SplitStep(self._env, self._parts) if self._parts > 1 else None
        except ValueError as error:
            raise NodeError(str(error)) from None
        self._estop = (self.context.runtime_dir / "estop").exists()
        seed = self.context.seed + 7919 * self.context.generation
        self._observation = self._reset(seed)

    def _reset(self, seed: int | None = None) -> Array:
        observation, _ = self._env.reset(seed=seed, options=self.config.options)
        return np.asarray(observation, np.float32)

    def _tick(self, now_ns: int) -> None:
        self._keep_time(now_ns)
        self._ask(self._observation, now_ns)

    def _act(self, order: Order, now_ns: int) -> None:
        """Steps the physics one control period and reports what came of it."""
        before = self._observation
        if self._step % self._parts == 0:
            self._began = before
        outcome = self._advance(order.action)
        self._observation = outcome.after
        if self._conclude(before, order, outcome):
            self._observation = self._reset()
        self._rest()

    def _advance(self, action: Array) -> Outcome:
        if self._split is not None and (self._step + 1) % self._parts:
            after = np.asarray(self._split.advance(action), np.float32)
            return Outcome(after, 0.0, 0.0, False, False, False)
        raw, reward, terminated, truncated, info = self._env.step(action)
        after = np.asarray(raw, np.float32)
        cost = float(self._cost(self._began, action, after, terminated, info))
        success = bool(info.get("success", False)) and cost == 0
        return Outcome(after, float(reward), cost, success, bool(terminated), bool(truncated))

    def on_request(self, request: str, arguments: dict[str, Any], now_ns: int) -> dict[str, Any]:
        if request == "epoch":
            return self._set_epoch(arguments.get("epoch"))
        if request not in ("estop", "reset"):
            raise RequestRefused(f"the simulator knows estop, reset and epoch, not {request!r}")
        self._estop = request == "estop"
        self.context.event(request, reason=str(arguments.get("reason", "")))
        return {"estop": self._estop}

    def status(self) -> dict[str, Any]:
        seconds = getattr(self._env.unwrapped, "dt", None)
        return {
            **super().status(),
            "step_seconds": None if seconds is None else seconds / self._parts,
        }

    def close(self) -> None:
        self._env.close()


if __name__ == "__main__":
    main(Simulator)
