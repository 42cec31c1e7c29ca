"""Every kind of bad model is refused, each with its own reason, and the process lives on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from safetypilot.models import runtime
from safetypilot.models.contract import Contract
from safetypilot.models.runtime import ModelError

Change = Callable[[Any, dict[str, Any]], None]


def edited(change: Change, golden: bool = False) -> Callable[[bytes], bytes]:
    """A file after `change(model, contract)`; golden rows go, unless they are the point."""

    def edit(data: bytes) -> bytes:
        model = onnx.load_from_string(data)
        contract = json.loads(model.metadata_props[0].value)
        if not golden:
            contract["golden"] = {}
            contract["graph_sha256"] = ""
        change(model, contract)
        if model.metadata_props:
            model.metadata_props[0].value = json.dumps(contract)
        return bytes(model.SerializeToString())

    return edit


def said(**changes: Any) -> Callable[[bytes], bytes]:
    return edited(lambda model, contract: contract.update(changes))


def weight(value: float) -> Change:
    def change(model: Any, contract: dict[str, Any]) -> None:
        tensor = next(t for t in model.graph.initializer if len(t.dims) == 2)
        weights = numpy_helper.to_array(tensor).copy()
        weights.flat[0] = value
        tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))

    return change


def after(*nodes: tuple[str, list[str], list[str]], **constants: Any) -> Change:
    """More operators behind the network, whose output is now called `own`."""

    def change(model: Any, contract: dict[str, Any]) -> None:
        for node in model.graph.node:
            node.output[:] = ["own" if name == "action" else name for name in node.output]
        for name, value in constants.items():
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        for kind, inputs, outputs in nodes:
            model.graph.node.append(helper.make_node(kind, inputs, outputs))

    return change


def slow(model: Any, contract: dict[str, Any]) -> None:
    """A million multiplications beside the network, of which the action needs one."""
    big = np.full((1500, 1500), 1e-9, np.float32)
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["own" if name == "action" else name for name in node.output]
    graph.initializer.append(numpy_helper.from_array(big, "big"))
    graph.node.append(helper.make_node("ReduceSum", ["own"], ["sum"], keepdims=0))
    graph.node.append(helper.make_node("Mul", ["big", "sum"], ["filled"]))
    graph.node.append(helper.make_node("MatMul", ["filled", "big"], ["product"]))
    graph.node.append(helper.make_node("ReduceMin", ["product"], ["least"], keepdims=0))
    graph.initializer.append(numpy_helper.from_array(np.float32(0.0), "zero"))
    graph.node.append(helper.make_node("Mul", ["least", "zero"], ["nothing"]))
    graph.node.append(helper.make_node("Add", ["own", "nothing"], ["action"]))


def retyped(model: Any, contract: dict[str, Any]) -> None:
    graph = model.graph
    graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in graph.node:
        node.input[:] = ["narrow" if name == "observation" else name for name in node.input]
    cast = helper.make_node("Cast", ["observation"], ["narrow"], to=TensorProto.FLOAT)
    graph.node.insert(0, cast)


def beside(location: str) -> Change:
    def change(model: Any, contract: dict[str, Any]) -> None:
        tensor = next(t for t in model.graph.initializer if len(t.dims) == 2)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location

    return change


def remembering(gives: int) -> Change:
    """A recurrent pair of which one end has another size."""

    def change(model: Any, contract: dict[str, Any]) -> None:
        contract["recurrent"] = [["h_in", "h_out"]]
        graph, make = model.graph, helper.make_tensor_value_info
        graph.input.append(make("h_in", TensorProto.FLOAT, [1, 4]))
        graph.output.append(make("h_out", TensorProto.FLOAT, [1, gives]))
        zeros = np.zeros((4, gives), np.float32)
        graph.initializer.append(numpy_helper.from_array(zeros, "mix"))
        graph.node.append(helper.make_node("MatMul", ["h_in", "mix"], ["h_out"]))

    return change


def operator(model: Any, contract: dict[str, Any]) -> None:
    model.graph.node[0].domain = "com.example"


def unknown_operator(model: Any, contract: dict[str, Any]) -> None:
    model.graph.node[0].op_type = "Hyperlinear"


def silent(model: Any, contract: dict[str, Any]) -> None:
    del model.metadata_props[:]


def nan_beyond(edge: float) -> Change:
    return after(
        ("ReduceMax", ["observation"], ["most"]),
        ("Greater", ["most", "edge"], ["beyond"]),
        ("Where", ["beyond", "nan", "own"], ["action"]),
        edge=np.float32(edge),
        nan=np.float32(np.nan),
    )


OTHER = ["force_y", "force_x"]
BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "is empty"),
    "text": (lambda data: b"this is no model", "not a whole ONNX model"),
    "truncated": (lambda data: data[: len(data) // 2], "not a whole ONNX model"),
    "one byte short": (lambda data: data[:-1], "not a whole ONNX model"),
    "no graph": (lambda data: b"\x08\x07", "no graph in it"),
    "wrong kind": (said(kind="safety_critic"), "a safety_critic model, a task_policy was wanted"),
    "unknown kind": (said(kind="oracle"), "model kind 'oracle' is unknown"),
    "later contract": (said(schema=2), "contract schema 2"),
    "observation names": (said(observation_names=["x", "y", "z"]), "observation names differ"),
    "observation order": (said(observation_names=["y", "x", "heading"]), "in another order"),
    "observation units": (said(observation_units=["m", "mm", "rad"]), "observation units differ"),
    "observation size": (
        said(observation_names=["x", "y"], observation_units=["m", "m"]),
        "observation size 2, the plant has 3",
    ),
    "size in the graph": (
        said(observation_names=["x", "y", "heading[2]"]),
        "observation size 4, the plant has 3",
    ),
    "action names": (said(action_names=["force_x", "torque"]), "action names differ"),
    "action order": (said(action_names=OTHER), "action names in another order"),
    "action limits": (said(action_high=[0.1, 0.3]), "action_high of 'force_y' is 0.3"),
    "limits reversed": (said(action_low=[0.2, -0.2]), "the first the smaller"),
    "rate": (said(rate_hz=500.0), "trained at 500 Hz, to be run at 20 Hz"),
    "NaN weights": (edited(weight(float("nan"))), "output action is not finite"),
    "NaN for large inputs": (edited(nan_beyond(500.0)), "output action is not finite"),
    "infinite weights": (edited(weight(float("inf"))), "output action is not finite"),
    "output out of limits": (
        edited(after(("Mul", ["own", "three"], ["action"]), three=np.float32(3.0))),
        "scale or squash the output",
    ),
    "other weights": (edited(weight(5.0), golden=True), "golden output action is off by"),
    "other golden rows": (
        edited(lambda m, c: c["golden"]["outputs"].update(action=[[0.0]]), golden=True),
        "golden output action has another shape",
    ),
    "graph hash": (said(graph_sha256="0" * 64), "graph_sha256"),
    "custom operator": (edited(operator), "operators of com.example"),
    "unknown operator": (edited(unknown_operator), "onnxruntime refuses it"),
    "weights elsewhere": (edited(beside("/etc/passwd")), "only one beside the model is read"),
    "weights above": (edited(beside("../w.bin")), "only one beside the model is read"),
    "weights missing": (edited(beside("w.bin")), "w.bin does not exist"),
    "wrong type": (edited(retyped), "input observation is a tensor(double)"),
    "pair broken": (edited(remembering(5)), "recurrent pair h_in, h_out: [1, 4] goes in"),
    "pair missing": (said(recurrent=[["h_in", "h_out"]]), "its inputs are ['observation']"),
    "no contract": (edited(silent), "give them under `contract:`"),
    "contract no JSON": (
        lambda data: data.replace(b'{"action_high"', b"{'action_high'"),
        "not JSON",
    ),
    "too slow": (edited(slow), "the budget is 0.2 ms; use a smaller network"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_for_its_own_reason(
    name: str, files: dict[str, Path], contract: Contract, tmp_path: Path
) -> None:
    spoil, reason = BAD[name]
    path = tmp_path / "bad.onnx"
    path.write_bytes(spoil(files["task_policy"].read_bytes()))
    budget = 0.0002 if name == "too slow" else 5.0
    with pytest.raises(ModelError) as refusal:
        runtime.stage(path, "task_policy", contract, budget_s=budget, rate_hz=20.0)
    assert reason in str(refusal.value) and "bad.onnx" in str(refusal.value)


def test_the_reasons_are_of_many_kinds() -> None:
    assert len({reason for _, reason in BAD.values()}) >= 25


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "none.onnx", "does not exist"),
        (tmp_path, "is not a file"),
        (tmp_path / "none" / "p.onnx", "does not exist"),
    ):
        with pytest.raises(ModelError, match=reason):
            runtime.stage(path, "task_policy")


def test_a_file_that_may_not_be_read_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "secret.onnx"
    path.write_bytes(files["task_policy"].read_bytes())
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything
        import subprocess
        import sys

        code = (
            "import os; from safetypilot.models import model_file\n"
            "os.setgid(65534); os.setuid(65534)\n"
            f"model_file.read_bytes({str(path)!r})\n"
        )
        tmp_path.chmod(0o755)
        done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
        assert "Permission denied" in done.stderr
        return
    with pytest.raises(ModelError, match="cannot be read: Permission denied"):
        runtime.stage(path, "task_policy")
