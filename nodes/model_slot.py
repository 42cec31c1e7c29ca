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
from safetypilot.nodes.model_swap import (
    FINAL,
    Candidate,
    Flyer,
    Last,
    Role,
    SwapConfig,
    contract_for,
    supplement,
)
from safetypilot.policies.trial import Guard, Shadow

# roles that files of another kind play
FILE_KINDS = {"recovery_policy": "task_policy", "latent_critic": "safety_critic"}
_DOING = {
    "staging": "being staged",
    "shadow": "in its shadow",
    "staged": "staged and waits for its set",
}
_GUARD_EVERY = 10  # steps between two looks of the guard
_KEPT_HISTORY = 50


class ModelSlot:
    """Holds the live model of one kind, the one before and the one to come.

    A node calls `begin` before each answer and `answered` after it, and `on_timer` at
    `next_wake_ns`. All three return at once unless a swap is under way or the guard is on.

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
        self._flying: Flyer | None = None
        self._before: Flyer | None = None
        self._candidate: Candidate | None = None
        self._last: Last | None = None
        self._epoch = self._epoch_before = 0  # of the last observation, and before it changed
        self._before_epoch: int | None = None  # with which the model before comes back
        self._rollback = ""  # why, at the next step
        self._contract = contract_for(config.contract, role.kind)
        self._guard = Guard(config.limits, self._guard_window()) if config.rollback_s else None
        self._watch_until_ns = 0
        self._steps = 0
        self._state: dict[str, Any] = {"state": "none", "reason": "", "version": ""}
        self._ticket = 0
        self._next_path = ""
        self._history: list[dict[str, Any]] = []

    def _guard_window(self) -> int:
        steps = int(self._config.rollback_s * 1e9 / self._context.period_ns)
        return min(max(steps, 100), 10_000)

    @property
    def attentive(self) -> bool:
        """Whether `answered` has anything to do."""
        return self._candidate is not None or self._guard is not None

    @property
    def live(self) -> Model | None:
        return self._flying.model if self._flying else None

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
        self._note("loaded", flyer, None, 0)

    # Requests.

    def answer(self, request: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """What a node with this slot answers to a person: swap, swap_status and its like."""
        if request == "swap":
            return self.request_swap(str(arguments.get("path", "")), arguments)
        if request == "swap_status":
            return self.swap_status()
        if request == "swaps":
            return {self._role.kind: {**self.swap_status(), "history": self._history}}
        if request == "swap_cancel":
            return self._cancel(str(arguments.get("reason") or "cancelled"))
        if request == "rollback":
            return self._ask_rollback(str(arguments.get("reason") or "asked for"))
        raise RequestRefused(
            f"{self._context.name} knows swap, swap_status, swap_cancel and rollback, "
            f"not {request!r}"
        )

    def request_swap(self, path: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Begins to stage a file; a person asks `swap_status` for the outcome.

        Args:
            path: an ONNX file.
            options: `epoch` of the set it belongs to, and `contract`, `shadow_s`, `shadow_steps` in
                place of the config's.
        """
        options = options or {}
        if not path:
            raise RequestRefused("swap needs a path: safetypilot swap NODE FILE.onnx")
        if self._state["state"] not in FINAL:
            raise RequestRefused(
                f"{self._state['path']} is {_DOING[self._state['state']]}; wait for its outcome, "
                "or give it up: safetypilot swap --cancel"
            )
        if self._flying is None and any(self._trial(options)[1:]):
            raise RequestRefused("there is no model file to answer beside; swap without a shadow")
        contract = options.get("contract") or self._contract
        trial = self._trial(options)
        self._ticket += 1
        ticket, now_ns = self._ticket, self._context.clock.now_ns()
        self._state = {
            "state": "staging",
            "ticket": ticket,
            "path": path,
            "reason": "",
            "version": "",
            "previous": self.version,
            "epoch": trial[0],
            "at_ns": {"asked": now_ns},
        }
        self._context.event("staging", model=self._role.kind, path=path)
        self._context.background(
            lambda: self._build(path, contract),
            lambda result, now_ns: self._built(result, ticket, trial, now_ns),
            f"stage {self._role.kind}",
        )
        return self.swap_status()

    def _trial(self, options: dict[str, Any]) -> tuple[int | None, int, int]:
        """Epoch, steps and nanoseconds in the shadow."""
        epoch, config = options.get("epoch"), self._config
        steps, seconds = config.shadow_steps, config.shadow_s
        if options.get("shadow_steps") is not None or options.get("shadow_s") is not None:
            steps = int(options.get("shadow_steps") or 0)
            seconds = float(options.get("shadow_s") or 0.0)
        if steps < 0 or not 0 <= seconds < 1e9:
            raise RequestRefused(f"a shadow of {steps} steps and {seconds} s; neither is below 0")
        if epoch is not None and type(epoch) is not int:
            raise RequestRefused(f"epoch is {epoch!r}; it is a number that the plant handed out")
        return epoch, steps, int(seconds * 1e9)

    def follow(self, path: str) -> None:
        """Stages what was announced or found; while a swap is under way, the newest waits."""
        if self._state["state"] in FINAL and not self._watching:
            self.request_swap(path)
        else:
            self._next_path = path

    @property
    def _watching(self) -> bool:
        return self._guard is not None and self._guard.watching

    def _cancel(self, reason: str) -> dict[str, Any]:
        if self._state["state"] in FINAL:
            raise RequestRefused(f"{self._context.name} has no swap under way")
        self._refuse(reason)
        return self.swap_status()

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
        before = self._before.model.version if self._before else ""
        status = {
            "live": self.version,
            "before": before,
            "before_epoch": self._before_epoch,
            **self._state,
        }
        if self._candidate and self._candidate.shadow.steps:
            status["shadow"] = self._candidate.shadow.report()
        if self._guard is not None:
            status["guard"] = {"watching": self._guard.watching, **self._guard.report()}
        return status

    def status(self) -> dict[str, Any]:
        """For the node's own status."""
        return {"model": self.version, "swap": self._state, "history": self._history[-5:]}

    # Between two steps.

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
            self._restore(self._rollback or "the set of models before is in force again",
                          observation.seq, now_ns)  # fmt: skip
            return True
        if self._rollback and self._before_epoch is None:
            self._restore(self._rollback, observation.seq, now_ns)
            return True
        candidate = self._candidate
        if candidate is None or not candidate.ready:
            return False
        if candidate.epoch is not None and candidate.epoch != observation.epoch:
            return False
        self._promote(candidate, observation.seq, now_ns)
        return True

    def note_command(self, command: Any) -> None:
        """Takes in what the arbiter decided, which the guard goes by."""
        if self._guard is not None and not command.estop:
            self._guard.note_command(command.source != 0, command.risk)

    def answered(self, observation: Any, last: Last) -> None:
        """Called by the node after its answer to an observation has been sent, if `attentive`."""
        if self._guard is not None:
            self._guard.note_call(last.call_ns)
            self._steps += 1
        candidate = self._candidate
        if candidate is not None and not candidate.ready:
            self._last = last._replace(stamp_ns=observation.stamp_ns)
            self.next_wake_ns = candidate.idle_from(observation.stamp_ns, self._context.period_ns)
        elif self._watching and self._steps % _GUARD_EVERY == 0:
            self.next_wake_ns = observation.stamp_ns + self._context.period_ns * 9 // 10

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
        if self._watching and not self._rollback:
            self._look(now_ns)

    def _look(self, now_ns: int) -> None:
        guard = self._guard
        if guard is None:
            return
        reason = guard.trip()
        if reason:
            self._rollback = reason
            self._context.event(
                "tripped", model=self._role.kind, version=self.version, reason=reason,
                epoch=self._before_epoch,
            )  # fmt: skip
        elif now_ns >= self._watch_until_ns:
            guard.end(keep=True)
            self._context.event("kept", model=self._role.kind, version=self.version)
            self._next()

    # Changes of state.

    def _build(self, path: str, contract: dict[str, Any] | str) -> Flyer:
        kind = FILE_KINDS.get(self._role.kind, self._role.kind)
        live = self.live
        model = stage(
            Path(path),
            kind,
            self.expected,
            self._role.budget_s,
            supplement=supplement(contract),
            rate_hz=live.contract.rate_hz if live else None,
        )
        return Flyer(model, self._role.prepare(model), contract)

    def _built(
        self, result: Any, ticket: int, trial: tuple[int | None, int, int], now_ns: int
    ) -> None:
        if ticket != self._ticket or self._state["state"] != "staging":
            return  # it was given up meanwhile
        if isinstance(result, Exception):
            if not isinstance(result, ValueError):
                result = f"{type(result).__name__}: {result}"
            self._refuse(str(result))
            return
        epoch, steps, duration_ns = trial
        shadow = Shadow(self._role.low, self._role.high)
        self._candidate = candidate = Candidate(result, epoch, shadow, steps, duration_ns)
        self._state |= {"state": "shadow", "version": result.model.version}
        self._state["at_ns"]["staged"] = now_ns
        if candidate.done(now_ns):
            self._make_ready(candidate, now_ns)
        else:
            self._context.event("shadow", model=self._role.kind, version=result.model.version)

    def _make_ready(self, candidate: Candidate, now_ns: int) -> None:
        candidate.ready = True
        self._state["state"] = "staged"
        self._state["at_ns"]["ready"] = now_ns
        if candidate.shadow.steps:
            self._state["shadow"] = report = candidate.shadow.report()
            self._context.event("shadowed", model=self._role.kind,
                                version=candidate.flyer.model.version, **report)  # fmt: skip

    def _refuse(self, reason: str) -> None:
        candidate, self._candidate = self._candidate, None
        self._last = None
        if candidate is not None and candidate.shadow.steps:
            self._state["shadow"] = candidate.shadow.report()
        self._state |= {"state": "refused", "reason": reason}
        self._context.event("refused", model=self._role.kind, reason=reason)
        self._next()

    def _next(self) -> None:
        """Goes on with what was announced or found meanwhile."""
        if self._next_path and self._state["state"] in FINAL and not self._watching:
            path, self._next_path = self._next_path, ""
            self.request_swap(path)

    def _install(self, flyer: Flyer, up_to_date: bool = False) -> str:
        """Puts a model to work; what became of recurrent state."""
        how = self._role.install(flyer.engine, up_to_date)
        self._flying, self.version = flyer, flyer.model.version
        return how

    def _promote(self, candidate: Candidate, seq: int, now_ns: int) -> None:
        self._candidate, self._before = None, self._flying
        self._before_epoch = None if candidate.epoch is None else self._epoch_before
        how = self._install(candidate.flyer, candidate.shadow.steps > 0)
        self._rollback = ""
        self._state |= {"state": "promoted", "promoted_at": seq, "recurrent": how}
        self._state["at_ns"]["promoted"] = now_ns
        if self._guard is not None:
            self._guard.end(keep=False)
            self._guard.begin()
            self._watch_until_ns = now_ns + int(self._config.rollback_s * 1e9)
        self._note("promoted", candidate.flyer, seq, now_ns)
        previous = self._before.model.version if self._before else ""
        self._tell("promoted", seq, previous=previous, recurrent=how)

    def _restore(self, reason: str, seq: int, now_ns: int) -> None:
        """Back to the model before."""
        before, self._before = self._before, None
        self._rollback, self._before_epoch = "", None
        if before is None:
            return
        previous, how = self.version, self._install(before)
        if self._guard is not None:
            self._guard.end(keep=False)
        self._state |= {
            "state": "rolled_back",
            "reason": reason,
            "previous": previous,
            "rolled_back_at": seq,
            "recurrent": how,
        }
        self._note("rolled_back", before, seq, now_ns)
        self._tell("rolled_back", seq, previous=previous, reason=reason, recurrent=how)
        self._next()

    def _tell(self, kind: str, seq: int, **data: Any) -> None:
        """Tells the supervisor, which restarts this node with what flies now."""
        flying = self._flying
        if flying is None:
            return
        path = str(flying.model.path)
        settings: dict[str, Any] = {self._role.setting: path}
        if self._role.setting == "model":  # the node's only one
            settings["contract"] = flying.contract
        self._context.event(
            kind, model=self._role.kind, version=self.version, path=path, seq=seq,
            settings=settings, **data,
        )  # fmt: skip

    def _note(self, what: str, flyer: Flyer, seq: int | None, now_ns: int) -> None:
        model = flyer.model
        self._history.append(
            {
                "what": what,
                "version": model.version,
                "sha256": model.sha256,
                "path": str(model.path),
                "seq": seq,
                "at_ns": now_ns,
                "reason": self._state["reason"],
            }
        )
        del self._history[:-_KEPT_HISTORY]
