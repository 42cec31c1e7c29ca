"""Whether the models of a graph were made for its plant and its rates, by their own contracts.

A node compares a file with its plant once more when it loads it, and whether it keeps what it
promises; of rates it knows only that of the model before. Here nothing is started yet, and it is a
line of the launch file that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isclose
from pathlib import Path
from typing import NamedTuple

from safetypilot.bridge.contract import DriverError
from safetypilot.envs import registry as envs
from safetypilot.launch.resolved import NodeSpec
from safetypilot.models import contract as contracts
from safetypilot.models.errors import ModelError
from safetypilot.models.model_file import contract_of
from safetypilot.nodes.bridge_config import BridgeConfig
from safetypilot.nodes.kernel.errors import KernelError
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.model_slot import FILE_KINDS
from safetypilot.nodes.model_swap import contract_for, supplement

_POLICY, _CRITIC, _PLANNER = "task_policy", "safety_critic", "recovery_planner"
# node type -> {field of its config: role of the file}
_HELD = {
    _POLICY: {"model": "task_policy"},
    _CRITIC: {"model": "safety_critic"},
    _PLANNER: {"critic": "safety_critic", "dynamics": "dynamics", "policy": "recovery_policy"},
}
_LATENT = {"encoder": "encoder", "latent_critic": "latent_critic", "dynamics": "dynamics"}


class Misfit(NamedTuple):
    """A model that is not for this graph."""

    node: str
    setting: str
    why: str


def misfits(nodes: Sequence[NodeSpec], env: str, rate: float) -> Iterator[Misfit]:
    """The models whose contracts say that they are for another plant, kind or rate.

    A file that is not here, or that cannot be read, is the affair of the node that loads it.

    Args:
        rate: of the graph, Hz.
    """
    try:
        plant = Interface.from_dict(envs.describe(env))
    except (ValueError, KernelError):
        return  # noted elsewhere
    factor = _time_factor(nodes)
    for node in nodes:
        own = _step_rate(node, nodes, rate)
        for setting, role in _held(node).items():
            path = node.config.get(setting)
            if not isinstance(path, str) or not Path(path).is_file() or path.endswith(".xml"):
                continue
            # What is compared with models of latents is known once the encoder is loaded.
            latent = bool(node.config.get("encoder")) and setting != "encoder"
            why = _why(node, path, role, None if latent else plant, (own, own / factor))
            if why:
                yield Misfit(node.name, setting, why)


def _step_rate(node: NodeSpec, nodes: Sequence[NodeSpec], rate: float) -> float:
    """How many steps a second the models of a node stand for, by the graph's clock.

    A planner may plan more rarely than the policy answers; its models then still know the steps
    that the rows of a plan are meant for.
    """
    steps = rate / node.every
    if node.type == _PLANNER:
        steps = next((float(p) for o in nodes if (p := o.config.get("plan_rate"))), steps)
    return steps


def _time_factor(nodes: Sequence[NodeSpec]) -> float:
    """Seconds of the plant per second of the graph: a simulated device may be slower or faster."""
    for node in nodes:
        if node.type == "bridge":
            try:
                return BridgeConfig(**node.config).description.time_factor
            except (DriverError, TypeError, ValueError):
                return 1.0  # noted elsewhere
    return 1.0


def _held(node: NodeSpec) -> dict[str, str]:
    if node.type == _PLANNER and node.config.get("encoder"):
        return _LATENT
    return _HELD.get(node.type, {})


def _why(
    node: NodeSpec, path: str, role: str, plant: Interface | None, rates: tuple[float, float]
) -> str:
    """What speaks against a file; empty: nothing.

    Args:
        rates: Hz by the graph's clock and by the plant's; a model for either fits.
    """
    try:
        said = supplement(contract_for(node.config.get("contract") or {}, role))
        contract = contract_of(path, said)
    except ModelError:
        return ""
    try:
        trained = said.get("rate_hz") if contract is None else contract.rate_hz
        own, plants = rates
        rate = plants if isclose(trained or 0.0, plants, rel_tol=contracts.RATE_TOLERANCE) else own
        if contract is not None:
            contracts.check(contract, FILE_KINDS.get(role, role), plant, rate)
        elif isinstance(trained, int | float):
            contracts.check_rate(trained, rate)
    except ModelError as error:
        return f"{path}: {error}"
    return ""
