"""Updates as CUDA graphs: recorded once, then replayed by one call instead of a few hundred.

At these sizes a GPU waits for the CPU to name the next kernel, so what counts is how few calls an
update takes. The rules of a capture (torch.cuda.graphs, CUDA semantics in PyTorch's notes) ask of
an update: its inputs are always in the same memory, so batches are copied into buffers; nothing in
it waits for the device; all that outlasts it (weights, moments, temperatures, multipliers) is
changed in place; whatever draws random numbers is known to the graph. Adam (`optimiser`) counts its
steps on the device, as torch's own does only with capturable=True.

This has never run on a GPU: there was none where it was written. What the CPU can show is tested,
with a recorder in place of the device's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.recorded import Recorded

Metrics = dict[str, Tensor]
Batch = TypeVar("Batch", bound=tuple[Tensor, ...])

WARM_UP = 3  # updates before the recording, as PyTorch's notes advise


def usable(name: str) -> torch.device:
    """The device of this name.

    Raises:
        LearnError: there is no such device here.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise LearnError(f"--device {name}: networks learn on cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise LearnError(
            f"--device {name}: torch.cuda.is_available() is False, for want of a GPU, its driver "
            f"or a torch that was built for it (this is {torch.__version__}); use --device cpu"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise LearnError(
            f"--device {name}: there are {torch.cuda.device_count()} GPUs, counted from 0"
        )
    return device


class Captured(Generic[Batch]):
    """An update that is replayed. Called like it; the metrics last until the next call.

    The first calls are ordinary updates on a side stream, which also warm up what the recording
    must not contain; the next one records, which changes nothing, and replays. So a call is always
    one update, and no batch is seen twice.
    """

    def __init__(
        self, update: Callable[[Batch], Metrics], device: torch.device, generator: torch.Generator
    ) -> None:
        """Wrap; nothing runs yet.

        Args:
            update: from a batch to metrics; what it does must depend on nothing else that changes
                but tensors changed in place.
            device: a GPU.
            generator: the source of the update's chance.
        """
        self._update, self._device, self._generator = update, device, generator
        self._batch: Batch | None = None
        self._graph: Any = None
        self._metrics: Metrics = {}
        self._warm = 0

    def __call__(self, batch: Batch) -> Metrics:
        """One update with a batch of the first one's shapes, wherever it lies."""
        own = self._fill(batch)
        if self._graph is None and self._warm < WARM_UP:
            self._warm += 1
            return self._aside(lambda: self._update(own))
        if self._graph is None:
            self._graph, self._metrics = self._record(lambda: self._update(own))
        self._graph.replay()
        return self._metrics

    def _fill(self, batch: Batch) -> Batch:
        """The buffers that the graph reads, filled."""
        if self._batch is None:
            copies = (torch.empty_like(each, device=self._device) for each in batch)
            self._batch = type(batch)(*copies)
        for mine, given in zip(self._batch, batch, strict=True):
            if mine.shape != given.shape:  # copy_ would broadcast
                raise LearnError(
                    f"a captured update takes rows of {tuple(mine.shape)}, not "
                    f"{tuple(given.shape)}; set capture=false"
                )
            mine.copy_(given)
        return self._batch

    def _aside(self, update: Callable[[], Metrics]) -> Metrics:
        """Run on a side stream, after and before all else."""
        stream, current = torch.cuda.Stream(self._device), torch.cuda.current_stream(self._device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            metrics = update()
        current.wait_stream(stream)
        return metrics

    def _record(self, update: Callable[[], Metrics]) -> tuple[Any, Metrics]:
        """The update as a graph, and where its replays leave their metrics."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        try:
            with torch.cuda.device(self._device), torch.cuda.graph(graph):
                metrics = update()
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise LearnError(
                f"this update cannot be captured: {reason}; set capture=false"
            ) from error
        return graph, metrics


def captured(
    update: Callable[[Batch], Metrics],
    device: torch.device,
    generator: torch.Generator,
    wanted: bool = True,
) -> Callable[[Batch], Metrics]:
    """The update itself, or, if wanted, one that is replayed: as a graph on a GPU, else as code."""
    if not wanted:
        return update
    return Captured(update, device, generator) if device.type == "cuda" else Recorded(update)
