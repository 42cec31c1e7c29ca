"""Runs a deployed network on many rows at once through OpenVINO: what a planner asks thousands of.

Where the cores multiply bf16 matrices in hardware (AMX), a twin critic of 2x256 judges 8000 rows
five times as fast as onnxruntime does in float32. Few rows go to onnxruntime, in float32: there it
is as fast, and the plan that is chosen in the end is judged exactly.
"""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safetypilot.models.errors import ModelError
from safetypilot.models.session import Model, read_bytes

Array = NDArray[np.float32]

_FEW = 64  # rows that are left to onnxruntime
_KEPT_SHAPES = 16  # compiled networks that are kept, oldest thrown out first


class Accelerated:
    """Stands in for a `Model` where only `run` and `members` are asked.

    One thread, as everything on the control path.

    Attributes:
        members: E of a dynamics model, None for the other kinds.
        precision: `bf16`, or `f32` where the machine has no units for that.
    """

    def __init__(self, model: Model) -> None:
        """Read the model's file again for OpenVINO.

        Raises:
            ModelError: OpenVINO is not installed or cannot read it, or the file has changed.
        """
        try:
            import openvino
        except ImportError:
            raise ModelError(
                "engine: openvino needs OpenVINO: pip install 'safetypilot[openvino]', or leave "
                "engine at onnxruntime"
            ) from None
        data = read_bytes(model.path)
        if hashlib.sha256(data).hexdigest() != model.sha256:
            raise ModelError(f"{model.path} was replaced while it was being loaded; load it again")
        self.members = model.members
        self._model = model
        self._core = openvino.Core()
        self._share = openvino.Tensor
        able = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = "bf16" if able else "f32"
        self._data = data
        self._names = model.contract.tensors
        self._requests: dict[tuple[tuple[int, ...], ...], tuple[Any, dict[str, Array]]] = {}

    def run(self, **inputs: Array) -> dict[str, Array]:
        """As `Model.run`: evaluate once; outputs are fresh arrays by name.

        Raises:
            ModelError: input names or shapes do not fit.
        """
        shape = inputs["observation"].shape
        if int(np.prod(shape[:-1])) <= _FEW:
            return self._model.run(**inputs)
        key = tuple(array.shape for array in inputs.values())
        if key not in self._requests:
            self._requests[key] = self._compile(inputs)
            while len(self._requests) > _KEPT_SHAPES:
                del self._requests[next(iter(self._requests))]
        request, buffers = self._requests[key]
        for name, array in inputs.items():
            buffers[name][...] = array
        request.infer()
        return {
            name: request.get_tensor(self._names.get(name, name)).data.copy()
            for name in self._model.output_shapes
        }

    def _compile(self, inputs: dict[str, Array]) -> tuple[Any, dict[str, Array]]:
        """For inputs of these shapes: takes a tenth of a second, so `warm_up` first."""
        try:
            network = self._core.read_model(io.BytesIO(self._data))
            network.reshape(
                {self._names.get(name, name): list(array.shape) for name, array in inputs.items()}
            )
            compiled = self._core.compile_model(
                network,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": self.precision,
                    "INFERENCE_NUM_THREADS": 1,
                    "NUM_STREAMS": 1,
                    "ENABLE_CPU_PINNING": False,
                },
            )
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1][:300]
            raise ModelError(f"{self._model.path}: OpenVINO refuses it: {reason}") from None
        request = compiled.create_infer_request()
        buffers = {name: np.zeros(array.shape, np.float32) for name, array in inputs.items()}
        for name, buffer in buffers.items():
            request.set_tensor(self._names.get(name, name), self._share(buffer, shared_memory=True))
        return request, buffers
