"""A recorder with the rules of a CUDA graph, on a CPU.

It notes every operation with the very tensors it read and wrote. A replay does the same operations
on the same memory, and none of the Python around them: what an update keeps anywhere but in place
is lost, as it would be on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from safetypilot.policies.learn.capture import Captured, Metrics

_WAITS = {  # for the device; a capture refuses them
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.multinomial.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.equal.default,
}


class Tape(TorchDispatchMode):
    """Operations in order, with their tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.fresh = True

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in _WAITS:
            raise RuntimeError(f"{function} is not permitted when stream is capturing\nmore")
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        self.operations.append((function, args, kwargs, result))
        return result

    def replay(self) -> None:
        """Again, on the same memory. A capture only notes, this also ran: the first is done."""
        if self.fresh:
            self.fresh = False
            return
        with torch.no_grad():
            for function, args, kwargs, result in self.operations:
                again = function(*args, **kwargs)
                for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class Taped(Captured[Any]):
    """A captured update whose graph is a tape."""

    def _aside(self, update: Callable[[], Metrics]) -> Metrics:
        return update()

    def _record(self, update: Callable[[], Metrics]) -> tuple[Any, Metrics]:
        with Tape() as tape:
            return tape, update()
