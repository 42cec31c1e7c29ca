"""One place for a model in a running node: stage, shadow, promote at a step, roll back.

Staging (reading, building, warming up, judging) happens off the control path. Then, if the config
asks for it, the candidate answers beside the live model for a while, unheard: in the idle time at
the end of a step, after the plant's deadline. The live model is only ever replaced whole, between
two steps. The one before stays loaded: a person, or the guard while it watches, brings it back.

Models that belong together come as a set: each node stages its own, and all change over at the
first observation that names the set's epoch, and back where it names the one before. The plant
writes the epoch, so no two nodes can differ over a step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetypilot.models.contract import Expected
from safetypilot.models.runtime import Model, stage
from safetypilot.nodes.kernel.errors import NodeError, RequestRefused
from safetypilot.nodes.kernel.node import Context
from safetypilot.nodes.model_record import Record, Watchman
from safetypilot.nodes.model_swap import (
    Candidate,
    Flyer,
    Last,
    Role,
    SwapConfig,
    Trial,
    contract_for,
    supplement,
)
from safetypilot.policies.trial import Shadow

# roles that files of another kind play
FILE_KINDS = {"recovery_policy": "task_policy", "latent_critic": "safety_critic"}


class ModelSlot:
    """Holds the live model of one kind, the one before and the one to come.

    A node calls `begin` before each answer, `answered` after it while the slot is `attentive`, and
    `on_timer` at `next_wake_ns`. They return at once unless there is something to do.

    Attributes:
        expected: what files are compared with: the plant, unless a node says otherwise.
        version: of the live model; empty where there is none.
        next_wake_ns: when `on_timer` is to be called, or None.
    """

    def __init__(self, context: Context, config: SwapConfig, role: Role) -> None:
        self._context = context
        self._config = config
        self._role = role
        self.expected: Expected = context.interface
        self.version = ""
        self.next_wake_ns: int | None = None
        self._record = Record(context, role)
        self._contract = contract_for(config.contract, role.kind)
        self._flying: Flyer | None = None
        self._before: Flyer | None = None
        self._candidate: Candidate | None = None
        self._last: Last | None = None
        self._epoch = self._epoch_before = 0  # of the last observation, and before it changed
        self._before_epoch: int | None = None  # with which the model before comes back
        self._rollback = ""  # why, at the next step
        self._watchman = Watchman(config, context.period_ns) if config.rollback_s else None
        self._untold: tuple[str, Flyer, int, int] | None = None  # a change, to be told when idle
        self._next_path = ""

    @property
    def attentive(self) -> bool:
        """Whether `answered` has anything to do."""
        return self._candidate is not None or self._watchman is not None or self._untold is not None

    @property
    def live(self) -> Model | None:
        return self._flying.model if self._flying else None

    @property
    def _watching(self) -> bool:
        return self._watchman is not None and self._watchman.watching

    def load(self, path: str) -> None:
        """Loads and installs the first model, before the node is active.

        Raises:
            NodeError: the file cannot be used, and why.
        """
        try:
            flyer = self._build(path, self._contract)
        except ValueError as error:
            raise NodeError(f"{self._role.kind}: {error}") from None
        self._install(flyer)
        self._record.changed("loaded", flyer, None, self._context.clock.now_ns())

    # Requests.

    def answer(self, request: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """What a node with this slot answers to a person: swap, swap_status and its like."""
        if request == "swap":
            return self.request_swap(str(arguments.get("path", "")), arguments)
        if request == "swap_status":
            return self.swap_status()
        if request == "swaps":
            return {self._role.kind: {**self.swap_status(), "history": self._record.history}}
        if request == "swap_cancel":
            if self._record.idle:
                raise RequestRefused(f"{self._context.name} has no swap under way")
            self._refuse(str(arguments.get("reason") or "cancelled"))
            return self.swap_status()
        if request == "rollback":
            return self._ask_rollback(str(arguments.get("reason") or "asked for"))
        raise RequestRefused(
            f"{self._context.name} knows swap, swap_status, swaps, swap_cancel and rollback, "
            f"not {request!r}"
        )

    def request_swap(self, path: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Begins to stage a file; a person asks `swap_status` for the outcome.

        Args:
            path: an ONNX file.
            options: `epoch` of the set it belongs to, and `contract`, `shadow_s`, `shadow_steps` in
                place of the config's.

        Raises:
            RequestRefused: another swap is under way, or an option makes no sense.
        """
        options = options or {}
        if not path:
            raise RequestRefused("swap needs a path: safetypilot swap NODE FILE.onnx")
        if not self._record.idle:
            raise RequestRefused(
                f"{self._record.doing}; wait for its outcome, or give it up: "
                "safetypilot swap --cancel"
            )
        trial = Trial.of(self._config, options)
        if self._flying is None and trial.shadow:
            raise RequestRefused("there is no model file to answer beside; swap without a shadow")
        contract = options.get("contract") or self._contract
        now_ns = self._context.clock.now_ns()
        ticket = self._record.begin(path, self.version, trial.epoch, now_ns)
        self._context.background(
            lambda: self._build(path, contract),
            lambda result, now_ns: self._built(result, ticket, trial, now_ns),
            f"stage {self._role.kind}",
        )
        return self.swap_status()

    def follow(self, path: str) -> None:
        """Stages what was announced or found; while a swap is under way, the newest waits."""
        if self._record.idle and not self._watching:
            self.request_swap(path)
        else:
            self._next_path = path

    def _ask_rollback(self, reason: str) -> dict[str, Any]:
        if self._before is None:
            raise RequestRefused(
                f"{self._context.name} has no {self._role.kind} to go back to: it flies the one it "
                "began with, or has gone back already"
            )
        if self._before_epoch is not None:
            raise RequestRefused(
                f"{self._context.name} flies a set of models that belong together; go back with "
                "all of it: safetypilot swap --rollback, without the node"
            )
        self._rollback = reason
        return self.swap_status()

    def swap_status(self) -> dict[str, Any]:
        """The last swap. Its state is none, staging, shadow, staged, promoted, refused or
        rolled_back; `promoted_at` is the observation from which the new model answered."""
        status = {
            "live": self.version,
            "before": self._before.model.version if self._before else "",
            "before_epoch": self._before_epoch,
            **self._record.state,
        }
        if self._candidate and self._candidate.shadow.steps:
            status["shadow"] = self._candidate.shadow.report()
        if self._watchman is not None:
            status["guard"] = self._watchman.report()
        return status

    def status(self) -> dict[str, Any]:
        """For the node's own status."""
        record = self._record
        return {"model": self.version, "swap": record.state, "history": record.history[-5:]}

    # From step to step.

    def begin(self, observation: Any, now_ns: int) -> bool:
        """Called by the node before it answers an observation: changes over if it is time to.

        Returns:
            Whether another model answers from this observation on.
        """
        if self._candidate is None and not self._rollback and observation.epoch == self._epoch:
            return False
        changed = observation.epoch != self._epoch
        if changed:
            self._epoch_before, self._epoch = self._epoch, observation.epoch
        if changed and self._before_epoch == observation.epoch:
            reason = self._rollback or "the set of models before is in force again"
            return self._restore(reason, observation.seq, now_ns)
        if self._rollback and self._before_epoch is None:
            return self._restore(self._rollback, observation.seq, now_ns)
        candidate = self._candidate
        if candidate is None or not candidate.may_fly(observation.epoch):
            return False
        self._promote(candidate, observation.seq, now_ns)
        return True

    def note_command(self, command: Any) -> None:
        """Takes in what the arbiter decided, which the guard goes by."""
        if self._watchman is not None and not command.estop:
            self._watchman.note_command(command.source != 0, command.risk)

    def answered(self, observation: Any, last: Last) -> None:
        """Called by the node after its answer to an observation has been sent."""
        if self._untold is not None:
            untold, self._untold = self._untold, None
            self._record.changed(*untold)
            self._next()
        period_ns, stamp_ns = self._context.period_ns, observation.stamp_ns
        look = self._watchman is not None and self._watchman.note_call(last.call_ns)
        candidate = self._candidate
        if candidate is not None and not candidate.ready:
            self._last = last._replace(stamp_ns=stamp_ns)
            self.next_wake_ns = candidate.idle_from(stamp_ns, period_ns)
        elif look:
            self.next_wake_ns = stamp_ns + period_ns * 9 // 10

    def on_timer(self, now_ns: int) -> None:
        """The idle time of a step: lets the candidate answer too, and the guard look."""
        if self.next_wake_ns is None or now_ns < self.next_wake_ns:
            return
        self.next_wake_ns = None
        last, self._last = self._last, None
        candidate = self._candidate
        if candidate is not None and last is not None and not candidate.ready:
            live = self._flying.engine if self._flying else None
            reason = candidate.compare(self._role, last, live, self._context)
            if reason:
                self._refuse(reason)
            elif candidate.done(now_ns):
                self._make_ready(candidate, now_ns)
        if self._watchman is not None and self._watching and not self._rollback:
            self._look(self._watchman, now_ns)

    def _look(self, watchman: Watchman, now_ns: int) -> None:
        verdict = watchman.look(now_ns)
        if verdict:
            self._rollback = verdict
            self._record.event(
                "tripped", version=self.version, reason=verdict, epoch=self._before_epoch
            )
        elif verdict is not None:
            self._record.event("kept", version=self.version)
            self._next()

    # Changes of state.

    def _build(self, path: str, contract: dict[str, Any] | str) -> Flyer:
        live = self.live
        model = stage(
            Path(path),
            FILE_KINDS.get(self._role.kind, self._role.kind),
            self.expected,
            self._role.budget_s,
            supplement=supplement(contract),
            rate_hz=live.contract.rate_hz if live else None,
        )
        return Flyer(model, self._role.prepare(model), contract)

    def _built(self, result: Any, ticket: int, trial: Trial, now_ns: int) -> None:
        record = self._record
        if ticket != record.ticket or record.state["state"] != "staging":
            return  # it was given up meanwhile
        if isinstance(result, Exception):
            named = "" if isinstance(result, ValueError) else f"{type(result).__name__}: "
            self._refuse(f"{named}{result}")
            return
        shadow = Shadow(self._role.low, self._role.high)
        self._candidate = candidate = Candidate(result, trial, shadow)
        record.mark("staged", now_ns, state="shadow", version=result.model.version)
        if candidate.done(now_ns):
            self._make_ready(candidate, now_ns)
        else:
            record.event("shadow", version=result.model.version)

    def _make_ready(self, candidate: Candidate, now_ns: int) -> None:
        candidate.ready = True
        self._record.mark("ready", now_ns, state="staged")
        if candidate.shadow.steps:
            self._record.state["shadow"] = report = candidate.shadow.report()
            self._record.event("shadowed", version=candidate.flyer.model.version, **report)

    def _refuse(self, reason: str) -> None:
        candidate, self._candidate = self._candidate, None
        self._last = None
        if candidate is not None and candidate.shadow.steps:
            self._record.state["shadow"] = candidate.shadow.report()
        self._record.state |= {"state": "refused", "reason": reason}
        self._record.event("refused", reason=reason)
        self._next()

    def _next(self) -> None:
        """Goes on with what was announced or found meanwhile."""
        if self._next_path and self._record.idle and not self._watching:
            path, self._next_path = self._next_path, ""
            self.request_swap(path)

    def _install(self, flyer: Flyer, up_to_date: bool = False) -> str:
        """Puts a model to work; what became of recurrent state."""
        how = self._role.install(flyer.engine, up_to_date)
        self._flying, self.version = flyer, flyer.model.version
        return how

    def _promote(self, candidate: Candidate, seq: int, now_ns: int) -> None:
        self._candidate, self._before = None, self._flying
        self._before_epoch = None if candidate.trial.epoch is None else self._epoch_before
        self._rollback = ""
        how = self._install(candidate.flyer, candidate.shadow.steps > 0)
        self._record.mark("promoted", now_ns, state="promoted", promoted_at=seq, recurrent=how)
        if self._watchman is not None:
            self._watchman.promoted(now_ns)
        self._untold = ("promoted", candidate.flyer, seq, now_ns)

    def _restore(self, reason: str, seq: int, now_ns: int) -> bool:
        """Back to the model before, if there is one; whether there is."""
        before, self._before = self._before, None
        self._rollback, self._before_epoch = "", None
        if before is None:
            return False
        previous, how = self.version, self._install(before)
        if self._watchman is not None:
            self._watchman.restored()
        self._record.mark("rolled_back", now_ns, state="rolled_back", reason=reason,
                          previous=previous, rolled_back_at=seq, recurrent=how)  # fmt: skip
        self._untold = ("rolled_back", before, seq, now_ns)
        return True
