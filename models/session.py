"""Runs a deployed network: one ONNX file, one CPU thread, buffers bound once.

The bytes are read once; what is hashed, judged and built is those bytes, so a file that is being
replaced meanwhile is either the old one or the new one. Letters as in `contract`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safetypilot.models import contract as contracts
from safetypilot.models import onnx_file
from safetypilot.models.contract import Contract, Expected
from safetypilot.models.errors import ModelError
from safetypilot.models.model_file import external, kind_of, lacking, read_bytes, summarise

__all__ = ["Array", "Bound", "Model", "kind_of", "load", "read_bytes"]

Array = NDArray[np.float32]

_KEPT_SHAPES = 8  # bound buffer sets that `run` keeps, oldest thrown out first


class Bound:
    """Buffers of one shape, bound to a session: write `inputs`, `run()`, read `outputs`.

    The arrays are the same ones at every run, so copy what has to outlive the next.

    Attributes:
        inputs: name -> array to be filled in place.
        outputs: name -> array that `run` fills.
    """

    def __init__(
        self,
        session: Any,
        inputs: dict[str, Array],
        names: Mapping[str, str],
        wanted: Sequence[str] | None = None,
    ) -> None:
        """Allocate and bind.

        Args:
            session: an onnxruntime session.
            inputs: name -> first contents, which also say the shapes.
            names: this project's tensor name -> the file's.
            wanted: outputs by the file's names; None: all.
        """
        import onnxruntime

        as_value = onnxruntime.OrtValue.ortvalue_from_numpy  # on CPU this shares the memory
        self.inputs = inputs
        outputs = list(wanted or (output.name for output in session.get_outputs()))
        ours = {theirs: name for name, theirs in names.items()}
        feed = {names.get(name, name): array for name, array in inputs.items()}
        first = session.run(outputs, feed)  # sizes the outputs, and warms up
        self.outputs: dict[str, Array] = {
            ours.get(name, name): np.ascontiguousarray(array)
            for name, array in zip(outputs, first, strict=True)
        }
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(names.get(name, name), as_value(array))
        for name, array in self.outputs.items():
            binding.bind_ortvalue_output(names.get(name, name), as_value(array))
        self._session, self._binding = session, binding  # keep both alive
        self._run = session._sess.run_with_iobinding  # the public wrapper costs 0.3 us more
        self._raw = binding._iobinding

    def run(self) -> None:
        """Evaluate `inputs` into `outputs`, a few microseconds for a small network."""
        self._run(self._raw, None)


class Model:
    """One loaded ONNX file.

    Attributes:
        path: where the bytes came from.
        contract: what it promises.
        sha256: of the file's bytes, hex.
        version: `<contract version>@<12 hex digits>`, the name in messages and reports.
        tensors: our tensor names -> the file's, where they differ.
        graph_changed: whether the graph is another than its contract was written for.
        call_s: what a call takes at the 99th percentile, once `stage` has measured it.
    """

    def __init__(self, path: Path, contract: Contract, sha256: str, session: Any) -> None:
        """Wrap a session that `load` has built."""
        self.path = path
        self.contract = contract
        self.sha256 = sha256
        self.version = f"{contract.version}@{sha256[:12]}"
        self.call_s: float | None = None
        self.graph_changed = False
        self.tensors: Mapping[str, str] = contract.tensors
        self._session = session
        self._bound: dict[tuple[tuple[int, ...], ...], Bound] = {}
        ours = {theirs: name for name, theirs in contract.tensors.items()}
        self.input_shapes: dict[str, list[int | str | None]] = {
            ours.get(value.name, value.name): value.shape for value in session.get_inputs()
        }
        self.output_shapes: dict[str, list[int | str | None]] = {
            ours.get(value.name, value.name): value.shape for value in session.get_outputs()
        }

    def bind(self, **shapes: tuple[int, ...]) -> Bound:
        """Fixed buffers for the given input shapes: the fast path of a loop.

        Example: `bound = model.bind(observation=(1, 2)); bound.inputs["observation"][:] = x`.
        """
        self._check_names(set(shapes))
        zeros = {name: np.zeros(shapes[name], np.float32) for name in self.input_shapes}
        return self._guard(lambda: Bound(self._session, zeros, self.contract.tensors))

    def run(self, **inputs: Array) -> dict[str, Array]:
        """Evaluate once; outputs are fresh arrays by name. Shapes seen before keep their buffers.

        Raises:
            ModelError: input names or shapes do not fit.
        """
        try:
            key = tuple(inputs[name].shape for name in self.input_shapes)
            bound = self._bound[key]
        except KeyError:
            bound = self._bind_for(inputs)
        for name, buffer in bound.inputs.items():
            buffer[...] = inputs[name]
        bound.run()
        return {name: array.copy() for name, array in bound.outputs.items()}

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the recurrent inputs, for one row: a size that is left open is 1."""
        return {
            name: tuple(size if isinstance(size, int) else 1 for size in self.input_shapes[name])
            for name, _ in self.contract.recurrent
        }

    @property
    def members(self) -> int | None:
        """E of a dynamics model, None for the other kinds."""
        size = self.input_shapes["observation"][0] if self.contract.kind == "dynamics" else None
        return size if isinstance(size, int) else None

    def _bind_for(self, inputs: Mapping[str, Array]) -> Bound:
        self._check_names(set(inputs))
        bound = self.bind(**{name: np.shape(array) for name, array in inputs.items()})
        while len(self._bound) >= _KEPT_SHAPES:
            del self._bound[next(iter(self._bound))]
        self._bound[tuple(inputs[name].shape for name in self.input_shapes)] = bound
        return bound

    def _check_names(self, given: set[str]) -> None:
        if given != set(self.input_shapes):
            raise ModelError(
                f"{self.path.name} takes {sorted(self.input_shapes)}, got {sorted(given)}"
            )

    def _guard(self, build: Any) -> Bound:
        try:
            bound: Bound = build()
        except Exception as error:  # noqa: BLE001 - onnxruntime's own classes have no common base
            raise ModelError(
                f"{self.path.name} cannot run with these shapes, it wants {self.input_shapes}: "
                f"{_first_line(error)}"
            ) from None
        return bound


def load(
    path: Path | str,
    supplement: Mapping[str, Any] | None = None,
    kind: str | None = None,
    expected: Expected | None = None,
) -> Model:
    """Build a model from a file that says what it is. `stage` also proves that it works.

    Args:
        path: an ONNX file.
        supplement: contract entries that the file lacks; for files from other tools see
            models/foreign.py.
        kind: what it is to be, where the file does not say.
        expected: the plant, for files from other tools.

    Raises:
        ModelError: the file cannot be used, and why.
    """
    path = Path(path)
    data = read_bytes(path)
    try:
        summary = summarise(data)
        beside = external(path, summary.external)
        session = _session(data, beside)
        sha256 = hashlib.sha256(data + b"".join(beside.values())).hexdigest()
        said = dict(supplement or {})
        if contracts.METADATA_KEY in summary.metadata:
            text = summary.metadata[contracts.METADATA_KEY]
            model = Model(path, contracts.from_json(text, lacking(said)), sha256, session)
            graph = hashlib.sha256(onnx_file.without_metadata(data)).hexdigest()
            model.graph_changed = model.contract.graph_sha256 not in ("", graph)
        else:
            from safetypilot.models import foreign

            said.setdefault("kind", kind)
            model = foreign.adapt(path, session, sha256, summary.metadata, said, expected)
        _check_types(session, model)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    return model


def _check_types(session: Any, model: Model) -> None:
    """Everything that goes in or out is float32."""
    used = {*model.tensors.values(), *(name for pair in model.contract.recurrent for name in pair)}
    values = [("input", value) for value in session.get_inputs()]
    values += [("output", v) for v in session.get_outputs() if not used or v.name in used]
    for side, value in values:
        if value.type != "tensor(float)":
            raise ModelError(
                f"{side} {value.name} is a {value.type}, tensor(float) was wanted; export it in "
                "float32"
            )


def _session(data: bytes, beside: Mapping[str, bytes]) -> Any:
    """A CPU session that leaves the other cores and most of the memory to other processes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # failures come as exceptions, once
    if beside:
        names, contents = list(beside), list(beside.values())
        options.add_external_initializers_from_files_in_memory(
            names, contents, list(map(len, contents))
        )
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - onnxruntime's own classes have no common base
        raise ModelError(f"onnxruntime refuses it: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
