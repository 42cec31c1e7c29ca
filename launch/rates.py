"""Rates of single nodes: each acts on every so many-th observation of the graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from safetypilot.envs import registry
from safetypilot.envs.substeps import SplitStep
from safetypilot.launch.checks import Check
from safetypilot.launch.loader import Place
from safetypilot.launch.resolved import NodeSpec

_EXACT = 1e-6  # of the ratio: rates are written with a few digits
# Fields of a node's config that are rates of their own: each divides the graph's rate.
_CONFIG = {"control_rate": "the plant's control steps", "plan_rate": "the rows of a recovery plan"}


def settle(check: Check, nodes: Iterable[NodeSpec]) -> tuple[NodeSpec, ...]:
    """The nodes with the number of observations from one of their answers to the next.

    A critic and a learner go with the policy whose proposals they judge and learn from; every other
    node takes the graph's rate where it names none.
    """
    settled = [replace(node, every=_own(check, node)) for node in nodes]
    policy = _writer(settled, "proposal")
    place: Place
    for index, node in enumerate(settled):
        if policy is not None and _follows(node):
            settled[index] = _with_policy(check, node, policy)
        for key, what in _CONFIG.items():
            rate = node.config.get(key)
            if isinstance(rate, int | float) and not isinstance(rate, bool):
                place = ("nodes", node.name, "config", key)
                parts = _divided(check, place, rate, f"the rate of {what}")
                if key == "control_rate" and parts > 1:
                    _divisible(check, place, parts)
    _rows(check, settled)
    return tuple(settled)


def _own(check: Check, node: NodeSpec) -> int:
    """What the node's own `rate` says; 1 where it says nothing."""
    rate = check.file.nodes[node.name].rate
    if rate is None:
        return 1
    place: Place = ("nodes", node.name, "rate")
    every = _divided(check, place, rate, f"the rate of node {node.name!r}")
    writes = {port.name for port in node.outputs} & {"observation", "command"}
    if every > 1 and writes:
        message = f"node {node.name!r} writes {writes.pop()}, which sets the pace of the graph"
        check.complain(place, message, f"leave its rate out, or make it {check.file.rate:g}")
        return 1
    return every


def _divided(check: Check, place: Place, rate: float, what: str) -> int:
    """By how much the graph's rate is faster; complains unless that is a whole number."""
    graph = check.file.rate
    ratio = graph / rate if rate > 0 else 0.0
    every = round(ratio)
    if every >= 1 and abs(ratio - every) <= _EXACT * every:
        return every
    message = f"{what}, {rate:g} Hz, does not divide the graph's rate, {graph:g} Hz"
    below, above = max(1, int(ratio)), int(ratio) + 1
    near = [f"{graph / n:.6g} Hz (every {_ordinal(n)} observation)" for n in (below, above)]
    if ratio < 1:
        near = [f"at most {graph:g} Hz"]
    check.complain(place, message, f"take {' or '.join(near)}")
    return 1


def _divisible(check: Check, place: Place, parts: int) -> None:
    """Complains if the environment cannot do a control step in so many parts."""
    try:
        env = registry.make_flat(check.file.env)
    except ValueError:
        return  # noted elsewhere
    try:
        SplitStep(env, parts)
    except ValueError as error:
        check.complain(place, str(error))
    finally:
        env.close()


def _ordinal(number: int) -> str:
    if number == 1:
        return "single"
    last = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if 11 <= number % 100 <= 13 else last}"


def _writer(nodes: Iterable[NodeSpec], topic: str) -> NodeSpec | None:
    found = (node for node in nodes if any(port.name == topic for port in node.outputs))
    return next(found, None)


def _follows(node: NodeSpec) -> bool:
    """Whether a node judges the policy's proposals, or learns to propose."""
    reads = {port.name for port in node.inputs}
    writes = {port.name for port in node.outputs}
    return ("proposal" in reads and "risk" in writes) or (
        "transition" in reads and "model" in writes
    )


def _with_policy(check: Check, node: NodeSpec, policy: NodeSpec) -> NodeSpec:
    if check.file.nodes[node.name].rate is not None and node.every != policy.every:
        place: Place = ("nodes", node.name, "rate")
        rate = check.file.rate / policy.every
        message = f"node {node.name!r} goes with {policy.name!r}, at {rate:g} Hz"
        check.complain(place, message, "leave its rate out")
    return replace(node, every=policy.every)


def _rows(check: Check, nodes: list[NodeSpec]) -> None:
    """Planner and policy at different rates: how long a row of a plan is must be said."""
    arbiter, policy = _writer(nodes, "command"), _writer(nodes, "proposal")
    planner = _writer(nodes, "recovery")
    if arbiter is None or planner is None or policy is None or planner.every == policy.every:
        return
    if "plan_rate" in arbiter.config and arbiter.config["plan_rate"] is None:
        message = f"{planner.name!r} and {policy.name!r} have different rates, so it must be said "
        message += "for how long each row of a recovery plan is meant"
        mend = f"add plan_rate: {check.file.rate / policy.every:g} if a row is one step of the "
        mend += f"policy, {check.file.rate / planner.every:g} if it is one of the planner"
        check.complain(("nodes", arbiter.name, "config"), message, mend)
