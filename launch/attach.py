"""What one can ask of the nodes of a running graph, from any process of this user."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import monotonic, monotonic_ns, sleep
from typing import Any

from safetypilot.launch.plan import Step
from safetypilot.nodes.kernel.errors import RequestRefused, Unanswered
from safetypilot.nodes.kernel.transport import Endpoints, request

Ask = Callable[[str, str, dict[str, Any]], dict[str, Any]]  # (node, request, arguments) -> result
SWAP_PATIENCE_S = 30.0


def asker(runtime_dir: Path, timeout_s: float = 5.0) -> Ask:
    """A function that puts requests to the nodes of a run."""
    endpoints = Endpoints(runtime_dir)

    def ask(node: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return request(endpoints, node, name, arguments, timeout_s)

    return ask


def swap(
    ask: Ask,
    node: str,
    path: str,
    patience_s: float = SWAP_PATIENCE_S,
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Has a node stage, check and promote a model, and waits for the outcome.

    Args:
        patience_s: for staging and shadow together.
        options: `kind`, where the node holds several models; `shadow_s`, `shadow_steps` and
            `contract` in place of the node's config.

    Returns:
        The node's `swap_status` once the model flies: state, version, previous.

    Raises:
        RequestRefused: the model was refused, and why. Unanswered: no outcome in time.
    """
    options = options or {}
    kind = {"kind": options["kind"]} if "kind" in options else {}
    ask(node, "swap", {"path": path, **options})
    deadline = monotonic() + patience_s
    while True:
        status = ask(node, "swap_status", kind)
        if status.get("state") == "promoted":
            return status
        if status.get("state") == "refused":
            raise RequestRefused(str(status.get("reason") or "no reason given"))
        if monotonic() > deadline:
            raise Unanswered(
                f"{node} is still {status.get('state', 'silent')} after {patience_s:g} s; "
                "the old model flies on"
            )
        sleep(0.05)


def carry_out(ask: Ask, step: Step) -> dict[str, Any]:
    """Does a line of the script; raises as `swap` does."""
    if step.request == "swap":
        return swap(ask, step.node, str(step.arguments["path"]))
    return ask(step.node, step.request, step.arguments)


def latch(path: Path, reason: str) -> None:
    """Sets the e-stop latch, which every node that starts from now on honours."""
    path.write_text(json.dumps({"reason": reason, "at_ns": monotonic_ns()}))


def tell_all(ask: Ask, nodes: list[str], name: str, reason: str) -> dict[str, str]:
    """Puts `estop` or `reset` to several nodes; node -> "ok" or what went wrong."""
    outcome = {}
    for node in nodes:
        try:
            ask(node, name, {"reason": reason})
            outcome[node] = "ok"
        except (RequestRefused, Unanswered) as error:
            outcome[node] = str(error)
    return outcome
