"""Updates recorded once on the CPU and replayed without Python's part in them.

An update of small networks is some 300 tensor operations, and deciding which comes next (autograd's
graph, modules, optimisers) takes as long as half the arithmetic. But it is the same sequence every
time. So the first update is watched from below autograd, where only plain operations are left, and
written down as straight-line code; the next ones run that code. Same operations in the same order,
hence the same bits.

The rules are those of a graph on a GPU (see `capture`): shapes stay; what outlasts the update is
changed in place; no value decides what is done next; numbers of Python (rates, discounts) are
written down as they are.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from safetypilot.policies.learn.errors import LearnError

aten = torch.ops.aten
_FUNCTIONS = set(
    "add addcmul amax amin baddbmm bmm cat clamp div exp mean mul neg rsub sigmoid sub sum tanh "
    "transpose unsqueeze".split()
)
_METHODS = set("add_ addcmul_ copy_ expand mul_ relu_ sub_ view".split())

Metrics = dict[str, Tensor]
Batch = TypeVar("Batch", bound=tuple[Tensor, ...])


class Recorded(Generic[Batch]):
    """An update that is replayed. Called like it; a batch of new shapes is recorded anew."""

    def __init__(self, update: Callable[[Batch], Metrics]) -> None:
        """Wrap; nothing runs yet."""
        self._update = update
        self._tracks: dict[tuple[torch.Size, ...], _Track] = {}

    def __call__(self, batch: Batch) -> Metrics:
        """One update.

        Raises:
            LearnError: a value decides what it does next.
        """
        shapes = tuple(each.shape for each in batch)
        track = self._tracks.get(shapes)
        if track is None:
            return self._record(shapes, batch)
        with torch.no_grad():
            values = track.code(*track.given, *batch)
        return dict(zip(track.names, values, strict=True))

    def _record(self, shapes: tuple[torch.Size, ...], batch: Batch) -> Metrics:
        """One update as it is, watched."""
        with _Watch() as watch:
            metrics = self._update(batch)
        given, code = straight_line(watch.steps, batch, list(metrics.values()))
        self._tracks[shapes] = _Track(given, code, list(metrics))
        return metrics


class _Track(NamedTuple):
    """A recording: what its code takes before the batch, the code, and the names of its values."""

    given: list[Any]
    code: Callable[..., list[Tensor]]
    names: list[str]


class Step(NamedTuple):
    """One operation that was done, with what it took and gave."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any


class _Watch(TorchDispatchMode):  # type: ignore[misc]
    """Notes every operation; holding all tensors keeps their ids their own."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []

    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if any(isinstance(leaf, bool | int | float) for leaf in pytree.tree_leaves(result)):
            raise LearnError(
                f"this update cannot be recorded: {function} takes a number out of a tensor; "
                "set capture=false"
            )
        self.steps.append(Step(function, args, kwargs, result))
        return result


def straight_line(
    steps: Sequence[Step], batch: Sequence[Tensor], wanted: Sequence[Tensor]
) -> tuple[list[Any], Callable[..., list[Tensor]]]:
    """Steps as a function of what was there before them.

    Args:
        steps: in their order.
        batch: what differs in each call.
        wanted: what the function returns.

    Returns:
        Everything else that the steps use (weights, moments, generators), and the function, which
        takes these and then a batch.
    """
    given = list(_from_before(steps, batch))
    graph = fx.Graph()
    nodes = {id(value): graph.placeholder(f"given_{i}") for i, value in enumerate(given)}
    nodes |= {id(value): graph.placeholder(f"batch_{i}") for i, value in enumerate(batch)}

    def replaced(tree: Any) -> Any:
        return pytree.tree_map(lambda leaf: nodes[id(leaf)] if _is_kept(leaf) else leaf, tree)

    for step in _without_copies(steps):
        if step.function is aten.detach.default:  # below autograd the same tensor
            nodes[id(step.result)] = nodes[id(step.args[0])]
            continue
        node = _call(graph, step.function, replaced(step.args), replaced(step.kwargs))
        several = isinstance(step.result, tuple | list)
        for index, result in enumerate(step.result if several else [step.result]):
            if _is_kept(result) and id(result) not in nodes:  # else in place
                each = graph.call_function(operator.getitem, (node, index)) if several else node
                nodes[id(result)] = each
    graph.output([nodes[id(value)] for value in wanted])
    return given, fx.GraphModule({}, graph).forward


def _call(graph: fx.Graph, function: Any, args: Any, kwargs: Any) -> fx.Node:
    """A call by the name that is found soonest: torch's own functions check less than its table."""
    name = function.__name__.partition(".")[0]
    if name in _METHODS:
        return graph.call_method(name, args, kwargs)
    return graph.call_function(
        getattr(torch, name) if name in _FUNCTIONS else function, args, kwargs
    )


def _without_copies(steps: Sequence[Step]) -> list[Step]:
    """The steps without the copies that autograd made for us.

    A gradient that nobody else holds becomes the parameter's own without a copy. While we watch,
    we hold everything, so it is copied: into new memory, from memory that is not used again.
    """
    last: dict[int, int] = {}  # storage: the last step that uses it
    for number, step in enumerate(steps):
        for value in pytree.tree_leaves((step.args, step.kwargs, step.result)):
            if isinstance(value, Tensor):
                last[_storage(value)] = number
    kept: list[Step] = []
    for number, step in enumerate(steps):
        before = kept[-1] if kept else None
        if (
            before is not None
            and step.function is aten.copy_.default
            and before.function is aten.new_empty_strided.default
            and step.args[0] is before.result
            and step.args[1] is before.args[0]
            and step.args[1].stride() == before.result.stride()
            and last[_storage(step.args[1])] == number
        ):
            kept[-1] = Step(aten.detach.default, (step.args[1],), {}, before.result)
        else:
            kept.append(step)
    return kept


def _storage(value: Tensor) -> int:
    number: int = value.untyped_storage()._cdata
    return number


def _from_before(steps: Sequence[Step], batch: Sequence[Tensor]) -> Iterator[Any]:
    """What the steps use and neither made nor found in the batch, each once."""
    known = {id(value) for value in batch}
    for step in steps:
        for value in pytree.tree_leaves((step.args, step.kwargs)):
            if _is_kept(value) and id(value) not in known:
                known.add(id(value))
                yield value
        known |= {id(value) for value in pytree.tree_leaves(step.result)}


def _is_kept(value: Any) -> bool:
    return isinstance(value, Tensor | torch.Generator)
