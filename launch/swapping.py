"""Changing models in a running graph: one, several that belong together, and back.

A set of models is a transaction. Every node stages and checks its own and says so; only when all
have does the plant put the set's epoch into its observations, and each node changes over at the
first observation that carries it. Should one node refuse, or not follow, nobody keeps the new ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import monotonic, sleep
from typing import Any, NamedTuple

from safetypilot.launch.attach import SWAP_PATIENCE_S, Ask
from safetypilot.nodes.kernel.errors import KernelError, RequestRefused, Unanswered

_POLL_S = 0.02
_SETTLE_S = 5.0  # a node that answers observations changes over long before


class Change(NamedTuple):
    """A model for a node.

    Attributes:
        path: an ONNX file.
        kind: which of a node's models, where it holds several; empty: its critic, or its only one.
    """

    node: str
    path: str
    kind: str = ""

    @property
    def at(self) -> dict[str, Any]:
        return {"kind": self.kind} if self.kind else {}

    @property
    def name(self) -> str:
        return f"{self.node}:{self.kind}" if self.kind else self.node


def swap_set(
    ask: Ask,
    plant: str,
    changes: Sequence[Change],
    patience_s: float = SWAP_PATIENCE_S,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Changes several models at one observation, or none of them.

    Args:
        plant: the node that writes the observations.
        patience_s: for staging and shadow together.
        options: `shadow_s`, `shadow_steps`, `contract` for all of them.

    Returns:
        `epoch`, `promoted_at` (the first observation that the set answered) and `nodes`: the
        `swap_status` of each.

    Raises:
        RequestRefused: one was refused, so all were; says which and why.
        Unanswered: not all were ready, or followed, in time; the old models fly.
    """
    if len({change.name for change in changes}) < len(changes):
        raise RequestRefused("a set names a node and kind once")
    epochs = ask(plant, "epoch", {})
    before, epoch = epochs["epoch"], epochs["new"]
    asked: list[Change] = []
    try:
        for change in changes:
            asked.append(change)
            arguments = {"path": change.path, "epoch": epoch, **change.at, **(options or {})}
            _put(ask, change, "swap", arguments)
        _until(ask, changes, "staged", patience_s)
    except KernelError as error:
        for change in asked:
            _give_up(ask, change, f"the set it belongs to was refused: {error}")
        raise
    ask(plant, "epoch", {"epoch": epoch})
    try:
        statuses = _until(ask, changes, "promoted", _SETTLE_S)
    except KernelError:
        ask(plant, "epoch", {"epoch": before})
        for change in changes:
            _give_up(ask, change, "another node did not follow")
        raise
    promoted_at = max(status["promoted_at"] for status in statuses.values())
    return {"epoch": epoch, "promoted_at": promoted_at, "nodes": statuses}


def hand_over(
    ask: Ask, plant: str | None, nodes: Sequence[str], files: Mapping[str, str]
) -> dict[str, Any]:
    """Gives models that were trained together to all who hold such ones, as a set.

    Args:
        nodes: those that take what a learner makes.
        files: kind -> ONNX file.

    Raises:
        RequestRefused, Unanswered: as `swap_set` does; without a plant there are no sets.
    """
    if not plant:
        raise RequestRefused("a graph without a plant has nothing that could put a set in force")
    held = _held(ask, nodes)
    changes = [Change(n, files[kind], kind) for n, its in held for kind in its if kind in files]
    if not changes:
        raise RequestRefused(f"no node takes a learner's {' or '.join(files)}")
    return swap_set(ask, plant, changes)


def rollback(ask: Ask, plant: str, nodes: Sequence[str], node: str = "") -> dict[str, Any]:
    """Brings the model before back: a node's, or of all nodes that flew as a set.

    Args:
        nodes: all of the graph.
        node: whose; "node:kind" where it holds several. Empty: the set's, else the only one's.

    Returns:
        Node (and kind) -> its `swap_status` once it has gone back.

    Raises:
        RequestRefused: there is nothing to go back to. Unanswered: not in time.
    """
    if node:
        name, _, kind = node.partition(":")
        change = Change(name, "", kind)
        _put(ask, change, "rollback", change.at)
        return _until(ask, [change], "rolled_back", _SETTLE_S)
    slots = statuses(ask, nodes)
    sets = {name: s for name, s in slots.items() if s.get("before_epoch") is not None}
    changes = [Change(*_split(name)) for name in sets]
    if sets:
        newest = max(sets.values(), key=lambda s: _set_of(s) or 0)
        if apart := [n for n, s in slots.items() if n not in sets and _was_in(s, _set_of(newest))]:
            raise RequestRefused(
                f"{', '.join(apart)} has been changed since the set was: what flew before it no "
                "longer belongs together; swap in the models that are to fly"
            )
        ask(plant, "epoch", {"epoch": newest["before_epoch"]})
        return _until(ask, changes, "rolled_back", _SETTLE_S)
    single = [name for name, status in slots.items() if status.get("before")]
    if len(single) != 1:
        which = ", ".join(single)
        raise RequestRefused(
            f"which node is to go back? there is a model before in {which}"
            if single
            else "there is no model to go back to: every node flies the one it began with"
        )
    return rollback(ask, plant, nodes, single[0])


def _set_of(status: Mapping[str, Any]) -> int | None:
    """The set whose model a slot flies; None: of none."""
    flown = [entry for entry in status["history"] if entry["what"] == "promoted"]
    return flown[-1]["epoch"] if flown else None


def _was_in(status: Mapping[str, Any], epoch: int | None) -> bool:
    """Whether a slot has changed over with a set, and has not gone back since."""
    whats = [entry["what"] for entry in status["history"] if entry["epoch"] == epoch]
    return epoch is not None and whats[-1:] == ["promoted"]


def cancel(ask: Ask, nodes: Sequence[str]) -> dict[str, Any]:
    """Gives up what is being staged or in its shadow, everywhere; slot -> its `swap_status`."""
    given_up = {}
    for name, status in statuses(ask, nodes).items():
        if status["state"] in ("staging", "shadow", "staged"):
            change = Change(*_split(name))
            given_up[name] = ask(
                change.node, "swap_cancel", {"reason": "given up by a person", **change.at}
            )
    return given_up


def statuses(ask: Ask, nodes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Every model slot of the graph, with its history: "node", or "node:kind" -> status."""
    found = {}
    for node, slots in _held(ask, nodes):
        for kind, status in slots.items():
            found[node if len(slots) == 1 else f"{node}:{kind}"] = status
    return found


def _held(ask: Ask, nodes: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The nodes that hold models, each with its slots: kind -> status."""
    for node in nodes:
        try:
            yield node, ask(node, "swaps", {})
        except KernelError:
            continue  # it holds no models, or does not answer


def follow_trip(ask: Ask, plant: str | None, event: Mapping[str, Any]) -> None:
    """A node's guard found a set worse than the one before: the whole set goes back."""
    if plant and event.get("epoch") is not None:
        ask(plant, "epoch", {"epoch": event["epoch"]})


def _split(name: str) -> tuple[str, str, str]:
    node, _, kind = name.partition(":")
    return node, "", kind


def _put(ask: Ask, change: Change, request: str, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        return ask(change.node, request, arguments)
    except RequestRefused as error:
        raise RequestRefused(f"{change.name}: {error}") from None


def _give_up(ask: Ask, change: Change, reason: str) -> None:
    try:
        ask(change.node, "swap_cancel", {"reason": reason, **change.at})
    except KernelError:
        pass  # it had nothing under way, or is gone; either way it flies the old one


def _until(
    ask: Ask, changes: Sequence[Change], state: str, patience_s: float
) -> dict[str, dict[str, Any]]:
    """Waits until all are in a state; name -> status, in the order of the changes."""
    deadline = monotonic() + patience_s
    reached: dict[str, dict[str, Any]] = {}
    while True:
        for change in changes:
            if change.name in reached:
                continue
            status = ask(change.node, "swap_status", change.at)
            if status["state"] == state:
                reached[change.name] = status
            elif status["state"] == "refused" and state != "rolled_back":
                raise RequestRefused(f"{change.name}: {status['reason']}")
        if len(reached) == len(changes):
            return {change.name: reached[change.name] for change in changes}
        if monotonic() > deadline:
            late = ", ".join(c.name for c in changes if c.name not in reached)
            raise Unanswered(f"{late} not {state.replace('_', ' ')} after {patience_s:g} s")
        sleep(_POLL_S)
