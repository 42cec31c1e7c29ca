"""Whether the models of a graph were made for its plant and its rates, by their own contracts.

Each node checks the same once more when it loads the file, and then also that the file keeps what
it promises. Here nothing is started yet, and it is a line of the launch file that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from safetypilot.envs import registry as envs
from safetypilot.launch.resolved import NodeSpec
from safetypilot.models import contract as contracts
from safetypilot.models.errors import ModelError
from safetypilot.models.model_file import contract_of
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
    for node in nodes:
        for setting, role in _held(node).items():
            path = node.config.get(setting)
            if not isinstance(path, str) or not Path(path).is_file() or path.endswith(".xml"):
                continue
            # What is compared with models of latents is known once the encoder is loaded.
            latent = bool(node.config.get("encoder")) and setting != "encoder"
            why = _why(node, path, role, None if latent else plant, step_rate(node, nodes, rate))
            if why:
                yield Misfit(node.name, setting, why)


def step_rate(node: NodeSpec, nodes: Sequence[NodeSpec], rate: float) -> float:
    """How many steps a second the models of a node stand for.

    A planner may plan more rarely than the policy answers; its models then still know the steps
    that the rows of a plan are meant for.
    """
    if node.type == _PLANNER:
        for other in nodes:
            if other.config.get("plan_rate"):
                return float(other.config["plan_rate"])
    return rate / node.every


def _held(node: NodeSpec) -> dict[str, str]:
    if node.type == _PLANNER and node.config.get("encoder"):
        return _LATENT
    return _HELD.get(node.type, {})


def _why(node: NodeSpec, path: str, role: str, plant: Interface | None, rate: float) -> str:
    """What speaks against a file; empty: nothing."""
    try:
        said = supplement(contract_for(node.config.get("contract") or {}, role))
        contract = contract_of(path, said)
    except ModelError:
        return ""
    try:
        if contract is not None:
            contracts.check(contract, FILE_KINDS.get(role, role), plant, rate)
        elif isinstance(said.get("rate_hz"), int | float):
            contracts.check_rate(said["rate_hz"], rate)
    except ModelError as error:
        return f"{path}: {error}"
    return ""
