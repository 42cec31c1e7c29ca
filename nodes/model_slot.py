"""One place for a model in a running node: load, stage beside the live one, promote at a step.

Staging (reading, building, warming up, judging) happens off the control path; the live model flies
on meanwhile and is only ever replaced whole, between two steps, by one that passed. A shadow period
and automatic rollback will stand between `staged` and `promoted`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetypilot.models.contract import Expected
from safetypilot.models.runtime import Model, stage
from safetypilot.nodes.kernel.errors import NodeError, RequestRefused
from safetypilot.nodes.kernel.node import Context

# roles that files of another kind play
_FILE_KINDS = {"recovery_policy": "task_policy", "latent_critic": "safety_critic"}


class ModelSlot:
    """Holds the live model of one kind.

    Attributes:
        expected: what files are compared with: the plant, unless a node says otherwise.

    Args:
        kind: "task_policy", "safety_critic", "dynamics", "recovery_policy", "encoder" or
            "latent_critic".
        budget_s: what a call may take at the 99th percentile; None: not judged.
        install: puts a model to work, for example by binding buffers; called at promotion. What it
            prepares for a staged model off the control path is up to `prepare`.
        prepare: builds what `install` takes from a model, in the background.
    """

    def __init__(
        self,
        context: Context,
        kind: str,
        budget_s: float | None,
        prepare: Callable[[Model], Any],
        install: Callable[[Any], None],
    ) -> None:
        self._context = context
        self._kind = kind
        self._budget_s = budget_s
        self._prepare = prepare
        self._install = install
        self.expected: Expected = context.interface
        self._staged: tuple[Model, Any] | None = None
        self._state: dict[str, Any] = {"state": "none", "reason": "", "version": ""}
        self._ticket = 0
        self._next_path = ""
        self._history: list[dict[str, Any]] = []
        self.live: Model | None = None
        self.version = ""

    def load(self, path: str) -> None:
        """Loads and installs the first model, before the node is active.

        Raises:
            NodeError: the file cannot be used, and why.
        """
        try:
            model, prepared = self._build(path)
        except ValueError as error:
            raise NodeError(f"{self._kind}: {error}") from None
        self._put(model, prepared, 0)

    def request_swap(self, path: str) -> dict[str, Any]:
        """Begins to stage a file; a person asks `swap_status` for the outcome."""
        if not path:
            raise RequestRefused("swap needs a path: safetypilot swap NODE FILE.onnx")
        if self._state["state"] == "staging":
            raise RequestRefused(
                f"{self._state['path']} is being staged; ask again when it is done"
            )
        self._ticket += 1
        self._state = {
            "state": "staging",
            "ticket": self._ticket,
            "path": path,
            "reason": "",
            "version": "",
            "previous": self.version,
        }
        self._context.event("staging", model=self._kind, path=path)
        self._context.background(lambda: self._build(path), self._built, f"stage {self._kind}")
        return self.swap_status()

    def follow(self, path: str) -> None:
        """Stages what the learner announced; while another is being staged, the newest waits."""
        if self._state["state"] == "staging":
            self._next_path = path
        else:
            self.request_swap(path)

    def swap_status(self) -> dict[str, Any]:
        """Outcome of the last swap: state is none, staging, staged, promoted or refused."""
        return {"live": self.version, **self._state}

    def answer(self, request: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """What a node with this slot answers to a person: swap and swap_status."""
        if request == "swap":
            return self.request_swap(str(arguments.get("path", "")))
        if request == "swap_status":
            return self.swap_status()
        raise RequestRefused(f"{self._context.name} knows swap and swap_status, not {request!r}")

    def status(self) -> dict[str, Any]:
        """For the node's own status."""
        return {"model": self.version, "swap": self.swap_status(), "history": self._history}

    def promote(self, now_ns: int) -> None:
        """Called by the node between two steps: puts a staged model to work, if there is one."""
        if self._staged is None:
            return
        (model, prepared), self._staged = self._staged, None
        previous = self.version
        self._put(model, prepared, now_ns)
        self._state["state"] = "promoted"
        self._context.event(
            "promoted",
            model=self._kind,
            version=self.version,
            previous=previous,
            path=str(model.path),
        )

    def _build(self, path: str) -> tuple[Model, Any]:
        kind = _FILE_KINDS.get(self._kind, self._kind)
        model = stage(Path(path), kind, self.expected, self._budget_s)
        return model, self._prepare(model)

    def _built(self, result: Any, now_ns: int) -> None:
        if isinstance(result, Exception):
            if not isinstance(result, ValueError):
                result = f"{type(result).__name__}: {result}"
            self._state |= {"state": "refused", "reason": str(result)}
            self._context.event("refused", model=self._kind, reason=str(result))
        else:
            self._staged = result
            self._state |= {"state": "staged", "version": result[0].version}
        if self._next_path:
            path, self._next_path = self._next_path, ""
            self.request_swap(path)

    def _put(self, model: Model, prepared: Any, now_ns: int) -> None:
        self._install(prepared)
        self.live, self.version = model, model.version
        self._history.append({"version": model.version, "path": str(model.path), "at_ns": now_ns})
        del self._history[:-20]
