"""What a model slot remembers of its swaps, and tells people and the supervisor."""

from __future__ import annotations

from typing import Any

from safetypilot.nodes.kernel.node import Context
from safetypilot.nodes.model_swap import FINAL, Flyer, Role, SwapConfig
from safetypilot.policies.trial import Guard

_DOING = {
    "staging": "being staged",
    "shadow": "in its shadow",
    "staged": "staged and waits for its set",
}
_KEPT = 50
_GUARD_EVERY = 10  # steps between two looks of the guard


class Record:
    """The last swap, with all before it in short.

    Attributes:
        state: of the last swap, as `swap_status` shows it.
        ticket: its number.
        history: what flew when, with hashes; the newest last.
    """

    def __init__(self, context: Context, role: Role) -> None:
        self._context = context
        self._role = role
        self.state: dict[str, Any] = {"state": "none", "reason": "", "version": ""}
        self.ticket = 0
        self.history: list[dict[str, Any]] = []

    @property
    def idle(self) -> bool:
        """Whether no swap is under way."""
        return self.state["state"] in FINAL

    @property
    def doing(self) -> str:
        """What is going on, for people."""
        return f"{self.state['path']} is {_DOING[self.state['state']]}"

    def begin(self, path: str, previous: str, epoch: int | None, now_ns: int) -> int:
        """A swap was asked for; its ticket."""
        self.ticket += 1
        self.state = {
            "state": "staging",
            "ticket": self.ticket,
            "path": path,
            "reason": "",
            "version": "",
            "previous": previous,
            "epoch": epoch,
            "at_ns": {"asked": now_ns},
        }
        self._context.event("staging", model=self._role.kind, path=path)
        return self.ticket

    def mark(self, stage: str, now_ns: int, **changes: Any) -> None:
        """The swap has come so far."""
        self.state |= changes
        self.state["at_ns"][stage] = now_ns

    def event(self, kind: str, **data: Any) -> None:
        self._context.event(kind, model=self._role.kind, **data)

    def changed(self, what: str, flyer: Flyer, seq: int | None, now_ns: int) -> None:
        """Another model flies; the supervisor would restart the node with it."""
        model = flyer.model
        self.history.append(
            {
                "what": what,
                "version": model.version,
                "sha256": model.sha256,
                "path": str(model.path),
                "seq": seq,
                "at_ns": now_ns,
                "reason": self.state["reason"],
                "epoch": self.state.get("epoch"),
            }
        )
        del self.history[:-_KEPT]
        if seq is None:
            return
        settings: dict[str, Any] = {self._role.setting: str(model.path)}
        if self._role.setting == "model":  # the node's only one
            settings["contract"] = flyer.contract
        told = {key: self.state.get(key, "") for key in ("previous", "recurrent", "reason")}
        self.event(what, version=model.version, path=str(model.path), seq=seq, settings=settings,
                   **told)  # fmt: skip


class Watchman:
    """Puts the guard to work for the declared time after each promotion."""

    def __init__(self, config: SwapConfig, period_ns: int) -> None:
        self._window_ns = int(config.rollback_s * 1e9)
        steps = min(max(self._window_ns // period_ns, 100), 10_000)
        self._guard = Guard(config.limits, steps)
        self._until_ns = 0
        self._steps = 0

    @property
    def watching(self) -> bool:
        return self._guard.watching

    def promoted(self, now_ns: int) -> None:
        """Begins to watch the model that flies from now on."""
        self._guard.end(keep=False)
        self._guard.begin()
        self._until_ns = now_ns + self._window_ns

    def restored(self) -> None:
        """The model before is back, and so is its past."""
        self._guard.end(keep=False)

    def note_command(self, intervened: bool, risk: float) -> None:
        self._guard.note_command(intervened, risk)

    def note_call(self, call_ns: int) -> bool:
        """Takes a call in; whether it is time for a look."""
        self._guard.note_call(call_ns)
        self._steps += 1
        return self._guard.watching and self._steps % _GUARD_EVERY == 0

    def look(self, now_ns: int) -> str | None:
        """Why the model has to go; empty once the time is over and it may stay; else None."""
        reason = self._guard.trip()
        if reason:
            return reason
        if now_ns < self._until_ns:
            return None
        self._guard.end(keep=True)
        return ""

    def report(self) -> dict[str, Any]:
        return {"watching": self._guard.watching, **self._guard.report()}
