"""A run in lockstep: the same nodes on virtual time, in this process or in one process each.

Both ways feed the same frames to the same nodes in the same order, so both give the same
`trace_sha256`. Here the graph waits for its nodes; a process that dies pauses it for good, and the
run fails with that process's last words.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any

from safetypilot.launch import runtime_dir
from safetypilot.launch.children import Child, Reaper, describe_code, end_all
from safetypilot.launch.plan import EPISODE, Step
from safetypilot.launch.progress import Death, Run, handle_signals
from safetypilot.launch.recording import LockstepRecording
from safetypilot.nodes.kernel.errors import KernelError, RequestRefused, Unanswered
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.kernel.lockstep import Handle, Host, Lockstep, Remote
from safetypilot.nodes.kernel.messages import EpisodeReport
from safetypilot.nodes.kernel.node import Node, Spec
from safetypilot.nodes.kernel.process import build_config
from safetypilot.nodes.kernel.transport import Endpoints
from safetypilot.nodes.kernel.wire import Codec

_ROWS_EVERY_S = 1.0  # nodes are asked for their status this often, of the wall clock


class Stepwise:
    """Carries out a plan in lockstep.

    Args:
        in_process: run all nodes here instead of in a process each.
        show: called with the run between two events; draws it if it is time to.
    """

    def __init__(
        self, run: Run, in_process: bool, show: Callable[[Run], None] = lambda run: None
    ) -> None:
        self.progress = run
        self.plan = run.plan
        self._in_process = in_process
        self._show = show
        self._children: dict[str, Child] = {}
        self._reaper: Reaper | None = None
        self._rows: dict[str, dict[str, Any]] = {}
        self._rows_at = 0.0
        self._script = list(run.plan.script)
        self._recording = LockstepRecording(run)
        self._decode = Codec(EpisodeReport, Interface.from_dict(run.plan.interface).dims).decode

    def run(self) -> None:
        """Runs until the plan is fulfilled, somebody stops it or it fails; see `Run`."""
        run = self.progress
        runtime = runtime_dir.create(self.plan.name)
        run.run_id = runtime.run_id
        run.rows = lambda: self._rows
        try:
            with handle_signals(run, self._kill):
                Endpoints(runtime.path).make()
                runtime.describe({**self.plan.describe(), "run_dir": str(run.run_dir)})
                self._run(self._handles(runtime))
        finally:
            run.ended = run.ended or monotonic()
            for child in self._children.values():
                child.send(signal.SIGTERM)
            end_all(self._children.values(), kill_after_s=1.0)
            if self._reaper:
                self._reaper.dismiss()
            runtime.remove()

    def _handles(self, runtime: runtime_dir.RuntimeDir) -> Callable[[], dict[str, Handle]]:
        """Starts what must be started; the handles are made when they are first called for."""
        run = self.progress
        logs = run.run_dir / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        specs = [
            self.plan.spec(node, run.run_dir, runtime.path, os.getpid()) for node in self.plan.nodes
        ]
        if self._in_process:
            return lambda: {spec.name: host(spec) for spec in specs}
        self._reaper = Reaper(runtime.path, runtime.lock)
        for spec in specs:
            log = logs / f"{spec.name}.log"
            log.unlink(missing_ok=True)
            self._children[spec.name] = Child([spec], log, self._reaper)
        endpoints = Endpoints(runtime.path)
        return lambda: {
            name: Remote(endpoints, name, lambda child=child: child.code is None)  # type: ignore[misc]
            for name, child in self._children.items()
        }

    def _run(self, handles: Callable[[], dict[str, Handle]]) -> None:
        run, made = self.progress, dict[str, Handle]()
        try:
            made.update(handles())
            graph = Lockstep(made, self.plan.readers(), self._observe, self._on_event)
            graph.start()
            run.active_since = monotonic()
            graph.run(lambda: self._between_events(graph))
            run.ended = monotonic()
            run.trace_sha256 = graph.trace_sha256
            self._ask_all(graph)
            graph.finish()
        except Unanswered as error:
            self._fail(str(error))
        except KernelError as error:
            run.failure = str(error)
        finally:
            for handle in made.values():
                handle.close()
            self._recording.close()
            self._rows.update(self._recording.rows(self._rows))

    def _fail(self, reason: str) -> None:
        """Tells which process has died, if that is why, and with which last words."""
        run = self.progress
        run.failure = reason
        for name, child in self._children.items():
            if (code := child.code) is None:
                continue
            how, lines = describe_code(code), child.last_lines()
            at_s = round(monotonic() - run.started, 3)
            run.deaths.append(Death(name, code, how, at_s, 0, lines))
            tail = "".join(f"\n    | {line}" for line in lines)
            run.journal.add(name, how + tail, "error")
            run.failure = f"{name} {how}; lockstep cannot go on without it{tail}"

    def _observe(self, topic: str, frame: bytes) -> None:
        self._recording.observe(topic, frame)
        if topic == EPISODE and not self.progress.enough():
            self.progress.tally.add(self._decode(frame))

    def _on_event(self, node: str, data: dict[str, Any]) -> None:
        self.progress.event(node, data)

    def _between_events(self, graph: Lockstep) -> bool:
        """Does what is due between two events; True when the run is over."""
        run = self.progress
        run.virtual_s = graph.now_ns / 1e9
        if run.interrupted or run.enough():
            return True
        while self._script and self._script[0].due(run.tally.episodes, run.elapsed_s):
            self._carry_out(graph, self._script.pop(0))
        if monotonic() - self._rows_at > _ROWS_EVERY_S:
            self._ask_all(graph)
        self._show(run)
        return False

    def _carry_out(self, graph: Lockstep, step: Step) -> None:
        run = self.progress
        run.journal.add(step.node, f"script: {step.text}")
        try:
            _ask(graph, step.node, step.request, step.arguments)
            status = _ask(graph, step.node, "swap_status", {}) if step.request == "swap" else {}
            if status.get("state") == "refused":
                raise RequestRefused(str(status.get("reason")))
        except RequestRefused as error:
            run.script_failures.append(f"{step.text}: {error}")
            run.journal.add(step.node, f"script: {step.text} failed: {error}", "error")

    def _ask_all(self, graph: Lockstep) -> None:
        """What people see of the nodes; asking changes nothing in them."""
        self._rows_at = monotonic()
        for node in self.plan.nodes:
            status = graph.call(node.name, "status").result
            inputs = status.get("inputs", {})
            self._rows[node.name] = {
                "state": "active",
                "pid": status.get("pid"),
                "generation": 0,
                "restarts": 0,
                "inputs": inputs,
                "node": status.get("node", {}),
            }
            self.progress.lost[node.name] = {
                f"{topic}: {cause}": count
                for topic, port in inputs.items()
                for cause, count in port.get("drops", {}).items()
            }

    def _kill(self) -> None:
        """The second Ctrl-C."""
        for child in self._children.values():
            child.send(signal.SIGKILL)
        if self._in_process:
            sys.exit(130)


def _ask(graph: Lockstep, node: str, request: str, arguments: dict[str, Any]) -> dict[str, Any]:
    reply = graph.call(node, "request", request, arguments)
    if reply.error:
        raise RequestRefused(reply.error)
    return reply.result


def host(spec: Spec) -> Host:
    """A node in this process, on virtual time."""
    node_class = load_class(spec.node)
    return Host(node_class, spec, build_config(node_class, spec.config))


def load_class(node: str) -> type[Node]:
    """The class that "module:Class" names."""
    module, _, name = node.partition(":")
    if str(Path.cwd()) not in sys.path and not module.startswith("safetypilot."):
        sys.path.append(str(Path.cwd()))
    loaded: type[Node] = getattr(import_module(module), name)
    return loaded
