"""How a process begins: `python -P -m safetypilot.nodes.<node> SPEC.json`.

One with several nodes begins in group.py.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetypilot.nodes.kernel import schedule
from safetypilot.nodes.kernel.errors import KernelError, NodeError
from safetypilot.nodes.kernel.lockstep import Host, serve
from safetypilot.nodes.kernel.node import Node, Spec
from safetypilot.nodes.kernel.realtime import RealtimeExecutor

EXIT_UNUSABLE = 3  # the node can never work with what it was given: restarting is no use
_AUTOGROUP = Path("/proc/self/autogroup")
_PR_SET_NAME, _PR_SET_PDEATHSIG = 15, 1


def main(node_class: type[Node]) -> None:
    """Runs one node as the spec file named on the command line says; never returns."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {Path(sys.argv[0]).name} SPEC.json (the supervisor starts nodes)")
    run([(node_class, read_spec(Path(sys.argv[1])))], "")


def read_spec(file: Path) -> Spec:
    return Spec(**json.loads(file.read_text()))


def run(nodes: Sequence[tuple[type[Node], Spec]], name: str) -> None:
    """Runs nodes in this process until they are told to stop; never returns.

    Args:
        name: of the process, where it is not its only node's.
    """
    spec = nodes[0][1]
    name = name or spec.name
    _tie_to_parent(spec, name)
    _take_nice(spec)
    sys.setswitchinterval(0.0005)  # a background thread may hold the loop up no longer than this
    try:
        crew = [(cls, its, build_config(cls, its.config)) for cls, its in nodes]
        granted = _schedule([its for _, its in nodes], name)
        if spec.clock == "lockstep":
            serve(Host(*crew[0]), spec)
        else:
            RealtimeExecutor(crew, granted).run()
    except (NodeError, KernelError) as error:
        sys.stderr.write(f"{name}: {error}\n")
        sys.exit(EXIT_UNUSABLE)
    sys.exit(0)


def build_config(node_class: type[Node], values: dict[str, Any]) -> Any:
    """The node's frozen config; lists of the JSON become tuples."""
    try:
        return node_class.Config(
            **{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        )
    except TypeError as error:
        raise NodeError(f"config of {node_class.__name__}: {error}") from None


def _tie_to_parent(spec: Spec, name: str) -> None:
    """Asks the kernel for SIGTERM when the supervisor dies, and names the process."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    libc.prctl(_PR_SET_NAME, f"sp:{name}"[:15].encode(), 0, 0, 0)
    if spec.supervisor_pid and os.getppid() != spec.supervisor_pid:
        sys.exit(0)  # it died before the request above


def _schedule(specs: Sequence[Spec], name: str) -> schedule.Granted:
    """Takes what the launch file asks of the machine; says once what it does not give.

    Nodes of one process agree on it (the launch layer sees to that), save for priority and
    rehearsal, of which the highest counts.
    """
    spec = specs[0]
    asked = [schedule.Settings.of(its.realtime if its.clock == "realtime" else {}) for its in specs]
    settings = replace(
        asked[0],
        priority=max(one.priority for one in asked),
        rehearse_us=max(one.rehearse_us for one in asked),
    )
    if not settings.cpus:
        settings = replace(settings, cpus=tuple(spec.cpus))
    granted = schedule.apply(settings)
    for text in granted.missing:
        sys.stderr.write(f"{name}: {text}; running without\n")
    return granted


def _take_nice(spec: Spec) -> None:
    """Niceness; said once and gone without where the machine refuses."""
    if not spec.nice:
        return
    try:
        os.setpriority(os.PRIO_PROCESS, 0, spec.nice)
        # Each session is a scheduling group of its own, within which alone nice counts; the
        # group has a niceness too (sched(7), autogroup).
        if _AUTOGROUP.exists():
            _AUTOGROUP.write_text(str(spec.nice))
    except OSError:
        sys.stderr.write(f"{spec.name}: may not take nice {spec.nice}; running without\n")
