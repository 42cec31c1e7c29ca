"""How much longer than others a process may take to end: a bridge as long as its robot needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line's help needs neither
    from safetypilot.nodes.kernel.node import Spec


def down_s(specs: Iterable[Spec]) -> float:
    """Beside what every process has; by the drivers of the bridges in it."""
    from safetypilot.launch.plan import BRIDGE

    return max((_of_bridge(spec) for spec in specs if spec.node == BRIDGE), default=0.0)


def _of_bridge(spec: Spec) -> float:
    from safetypilot.bridge.contract import DriverError
    from safetypilot.nodes.bridge_config import BridgeConfig

    try:
        return BridgeConfig(**spec.config).description.down_s
    except DriverError:
        return 0.0  # then the bridge has none either, and ends at once
