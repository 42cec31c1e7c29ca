"""Running and staging: what flies, and every kind of file that does not."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from safetypilot.models import graphs, model_file, runtime, session
from safetypilot.models.runtime import ModelError


def test_bound_buffers_equal_plain_runs(files):
    model = runtime.load(files["safety_critic"])
    rng = np.random.default_rng(0)
    bound = model.bind(observation=(5, 3), action=(5, 2))
    for _ in range(3):
        observation = rng.standard_normal((5, 3)).astype(np.float32)
        action = rng.standard_normal((5, 2)).astype(np.float32)
        bound.inputs["observation"][...] = observation
        bound.inputs["action"][...] = action
        bound.run()
        plain = model._session.run(None, {"observation": observation, "action": action})[0]
        assert np.array_equal(bound.outputs["risk"], plain)
        assert np.array_equal(model.run(observation=observation, action=action)["risk"], plain)


def test_run_gives_fresh_arrays_and_follows_the_shape(files):
    model = runtime.load(files["task_policy"])
    first = model.run(observation=np.zeros((1, 3), np.float32))["action"]
    kept = first.copy()
    model.run(observation=np.ones((1, 3), np.float32))
    assert np.array_equal(first, kept)
    for count in range(1, 20):
        shape = model.run(observation=np.zeros((count, 3), np.float32))["action"].shape
        assert shape == (count, 2)
    assert len(model._bound) <= session._KEPT_SHAPES


def test_wrong_names_and_shapes_are_explained(files):
    model = runtime.load(files["task_policy"])
    with pytest.raises(ModelError, match=r"takes \['observation'\], got \['obs'\]"):
        model.run(obs=np.zeros((1, 3), np.float32))
    with pytest.raises(ModelError, match="cannot run with these shapes"):
        model.run(observation=np.zeros((1, 4), np.float32))


@pytest.mark.parametrize("kind", ["task_policy", "safety_critic", "dynamics"])
def test_good_files_are_staged(kind, files, contract):
    model = runtime.stage(files[kind], kind, contract, budget_s=0.1, rate_hz=20.0)
    assert model.version.startswith("test@")
    assert model.path == files[kind]


def test_missing_empty_large_and_foreign_files(tmp_path, monkeypatch):
    def refused(path, message):
        with pytest.raises(ModelError, match=message):
            runtime.stage(path, "task_policy")

    refused(tmp_path / "none.onnx", "does not exist")
    refused(tmp_path, "is not a file")
    path = tmp_path / "x.onnx"
    path.write_bytes(b"")
    refused(path, "is empty")
    path.write_text("hello, this is no model at all")
    refused(path, "not a whole ONNX model")
    path.write_bytes(b"\x08\x07")
    refused(path, "no graph in it")
    monkeypatch.setattr(model_file, "MAX_BYTES", 10)
    path.write_bytes(bytes(11))
    refused(path, "the most allowed is 10")


def test_no_half_written_file_is_ever_loaded(files, contract, tmp_path):
    data = files["task_policy"].read_bytes()
    path = tmp_path / "half.onnx"
    for size in {*range(1, len(data), 97), *range(len(data) - 40, len(data))}:
        path.write_bytes(data[:size])
        with pytest.raises(ModelError):
            runtime.stage(path, "task_policy", contract)


def test_other_roles_plants_rates_and_budgets(files, contract):
    policy = files["task_policy"]
    with pytest.raises(ModelError, match="a safety_critic was wanted"):
        runtime.stage(policy, "safety_critic", contract)
    plant = replace(contract, observation_names=("x",), observation_units=("m",))
    with pytest.raises(ModelError, match="observation size 3, the plant has 1"):
        runtime.stage(policy, "task_policy", plant)
    with pytest.raises(ModelError, match="to be run at 100 Hz"):
        runtime.stage(policy, "task_policy", contract, rate_hz=100.0)
    with pytest.raises(ModelError, match=r"the budget is 1e-06 ms; use a smaller network"):
        runtime.stage(policy, "task_policy", contract, budget_s=1e-9)


def changed(source, target, change):
    """A copy of a model file after `change(model)`; the contract is rewritten where it returns."""
    model = onnx.load_from_string(source.read_bytes())
    contract = json.loads(model.metadata_props[0].value)
    change(model, contract)
    model.metadata_props[0].value = json.dumps(contract)
    target.write_bytes(model.SerializeToString())
    return target


def poison(value):
    def change(model, contract):
        weights = numpy_helper.to_array(model.graph.initializer[0]).copy()
        weights.flat[0] = value
        model.graph.initializer[0].CopyFrom(
            numpy_helper.from_array(weights, model.graph.initializer[0].name)
        )

    return change


def without_golden(change):
    def both(model, contract):
        contract["golden"] = {}
        change(model, contract)

    return both


def custom_operator(model, contract):
    model.graph.node[0].domain = "com.example"


def external(model, contract):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def unbounded(model, contract):
    for node in model.graph.node:
        if node.op_type in ("Tanh", "Sigmoid"):
            node.op_type = "Identity"


def widened(model, contract):
    for name in ("observation_names", "observation_units"):
        contract[name].append("z")


def renamed(model, contract):
    model.graph.input[0].name = "obs"
    for node in model.graph.node:
        node.input[:] = ["obs" if name == "observation" else name for name in node.input]


def contradicting_golden(model, contract):
    contract["golden"]["outputs"]["action"] = [[0.0]]


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("task_policy", poison(5.0), "golden output action is off by"),
        ("task_policy", poison(np.nan), "golden output action is off by nan"),
        ("task_policy", without_golden(poison(np.nan)), "output action is not finite"),
        ("task_policy", without_golden(unbounded), "squash the output in the graph"),
        ("safety_critic", without_golden(unbounded), r"wanted \(4,\) within \[0, 1\]"),
        ("task_policy", custom_operator, "operators of com.example"),
        ("task_policy", external, "weights lie in another file"),
        ("task_policy", widened, "the file and its contract disagree"),
        ("task_policy", renamed, "map them with `tensors`"),
        ("task_policy", contradicting_golden, "has another shape"),
    ],
)
def test_spoilt_files(kind, change, message, files, tmp_path):
    path = changed(files[kind], tmp_path / "spoilt.onnx", change)
    with pytest.raises(ModelError, match=message):
        runtime.stage(path, kind)


def test_a_file_from_another_tool_runs_with_a_supplement(contract, tmp_path):
    graph = graphs.Graph()
    graph.node("Tanh", graph.node("Gemm", "obs", graph.constant(np.eye(3)[:, :2])), output="act")
    model = graph.finish({"obs": ["B", 3]}, {"act": ["B", 2]})
    path = tmp_path / "foreign.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="give them under `contract:` in the launch file"):
        runtime.stage(path, "task_policy", contract)
    supplement = {
        "kind": "task_policy",
        "observation_names": ["x", "y", "heading"],
        "observation_units": ["m", "m", "rad"],
        "action_names": ["a", "b"],
        "action_units": ["1", "1"],
        "action_low": [-1, -1],
        "action_high": [1, 1],
        "tensors": {"observation": "obs", "action": "act"},
    }
    staged = runtime.stage(path, "task_policy", supplement=supplement)
    action = staged.run(observation=np.ones((1, 3), np.float32))["action"]
    np.testing.assert_allclose(action, np.tanh([[1.0, 1.0]]), rtol=1e-5)


def test_a_node_with_a_model_stays_small(files):
    """A deployed process loads neither torch nor onnx, and keeps below 90 MB."""
    code = (
        "import sys, zmq, msgpack, numpy\n"
        "from safetypilot.models import runtime\n"
        f"m = runtime.stage({str(files['safety_critic'])!r}, 'safety_critic')\n"
        "assert not {'torch', 'onnx'} & set(sys.modules)\n"
        "pages = int(open('/proc/self/statm').read().split()[1])\n"
        "print(pages * 4096 / 1e6)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 90.0
