"""What the supervisor knows of each node: its process, its health and its past."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from time import monotonic
from typing import Any

from safetypilot.launch.children import Child, describe_code
from safetypilot.launch.plan import NodePlan
from safetypilot.nodes.kernel.node import Spec
from safetypilot.nodes.kernel.process import EXIT_UNUSABLE

_SETTLED_S = 2.0  # a node that was active for this long is not in a row of failures
_START_ATTEMPTS = 3  # of a node that was never active in this run


class State(Enum):
    STARTING = "starting"  # its process runs, it has not reported ready
    READY = "ready"
    ACTIVE = "active"
    WAITING = "waiting"  # for its restart
    ENDED = "ended"  # and will not be restarted


class Member:
    """A node of the run; it lives through several processes, alone or with others (crews.py)."""

    def __init__(self, plan: NodePlan, spec: Spec) -> None:
        self.plan = plan
        self.spec = spec
        self.child: Child | None = None
        self.state = State.ENDED
        self.health: dict[str, Any] = {}
        self.heard = 0.0  # when it last reported
        self.since = 0.0  # when it came into its state
        self.restart_at = 0.0
        self.restarts = 0
        self.failures = 0  # in a row
        self.has_run = False  # any process of it was ever active
        self.swapped: dict[str, Any] = {}  # settings of its config that swaps have changed
        self._earlier: dict[str, int] = {}  # messages lost by earlier processes, by cause

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def generation(self) -> int:
        return self.spec.generation

    def start(self, child: Child) -> None:
        self.child = child
        self.enter(State.STARTING)

    def renew(self) -> None:
        """Before a new process; it resumes with the model that flew, unless that kills it."""
        config = self.plan.config
        if self.failures <= 1:
            config = {**config, **{k: v for k, v in self.swapped.items() if k in config}}
        self.spec = replace(self.spec, generation=self.generation + 1, config=config)
        self.restarts += 1

    def enter(self, state: State) -> None:
        self.state, self.since = state, monotonic()
        self.heard = self.since

    def report(self, health: dict[str, Any]) -> None:
        """Takes in a health report; one of an earlier process is out of date."""
        if self.child and health.get("pid") == self.child.pid:
            self.health, self.heard = health, monotonic()

    def bury(self, code: int) -> str | None:
        """Settles what becomes of it after its process has ended.

        Returns:
            Why the run cannot go on, or None.
        """
        policy = self.plan.restart
        active = self.state is State.ACTIVE
        settled = active and monotonic() - self.since >= _SETTLED_S
        self.has_run = self.has_run or active
        self._earlier = self.lost()
        self.child, self.health = None, {"node": self.health.get("node", {})}
        self.failures = 1 if settled else self.failures + 1
        self.enter(State.ENDED)
        if code == EXIT_UNUSABLE:
            return f"{self.name} cannot run with what it was given"
        if policy.when == "never" or (policy.when == "on-failure" and code == 0):
            return None
        if not self.has_run and self.failures >= _START_ATTEMPTS:
            return f"{self.name} did not start: it {describe_code(code)} {self.failures} times"
        if self.restarts >= policy.limit:
            return f"{self.name} {describe_code(code)} after {self.restarts} restarts, its limit"
        self.enter(State.WAITING)
        self.restart_at = monotonic() + policy.pause_s(self.failures)
        return None

    def lost(self) -> dict[str, int]:
        """Messages that this node refused or had to drop, over all its processes, by cause."""
        lost = dict(self._earlier)
        for topic, port in self.health.get("inputs", {}).items():
            for cause, count in port.get("drops", {}).items():
                _count(lost, f"{topic}: {cause}", count)
        for topic, port in self.health.get("outputs", {}).items():
            for what, count in port.items():
                if what.endswith(".dropped"):
                    _count(lost, f"{topic} to {what.removesuffix('.dropped')}: not taken", count)
        return lost

    def row(self) -> dict[str, Any]:
        """What people see of the node."""
        node = self.health.get("node", {})
        return {
            "state": self.state.value,
            "pid": self.child.pid if self.child else None,
            "process": self.plan.process,
            "generation": self.generation,
            "restarts": self.restarts,
            "rss_mb": self.health.get("rss_mb"),
            "inputs": self.health.get("inputs", {}),
            "handler_us": self.health.get("handler_us", {}),
            "node": node,
        }


def _count(counts: dict[str, int], key: str, number: int) -> None:
    if number:
        counts[key] = counts.get(key, 0) + int(number)
