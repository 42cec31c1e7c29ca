"""Proves a model file before it may act: right role, right sizes, finite, in range, fast enough."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from safetypilot.models import contract as contracts
from safetypilot.models.contract import Contract, Expected
from safetypilot.models.errors import ModelError
from safetypilot.models.session import Array, Model, load

GOLDEN_TOLERANCE = 1e-4
_LIMIT_TOLERANCE = 1e-5  # of the range: rounding at a saturated tanh
_CALLS = 50
_PROBE_SCALES = (0.0, 0.1, 1.0, 10.0, 1e3, 1e5)


def stage(
    path: Path | str,
    kind: str,
    expected: Expected | None = None,
    budget_s: float | None = None,
    *,
    supplement: Mapping[str, Any] | None = None,
    rate_hz: float | None = None,
) -> Model:
    """Load a file and try it out, beside whatever runs now.

    Args:
        path: an ONNX file.
        kind: the role: `task_policy`, `safety_critic`, `dynamics` or `encoder`.
        expected: the plant's names, units and limits.
        budget_s: the 99th percentile of single calls must stay below; None does not measure.
        supplement: contract entries that the file lacks.
        rate_hz: the step rate it will run at.

    Returns:
        The model, warm.

    Raises:
        ModelError: the first reason not to use it, with the mend.
    """
    model = load(path, supplement, kind, expected)
    try:
        contracts.check(model.contract, kind, expected, rate_hz)
        _check_tensors(model)
        _check_golden(model)
        _check_outputs(model)
        if model.graph_changed:
            raise ModelError(
                "its graph_sha256 is not that of its graph: it was changed after the export; "
                "export it again"
            )
        if budget_s is not None:
            _check_latency(model, budget_s)
    except ModelError as error:
        raise ModelError(f"{model.path}: {error}") from None
    return model


def _wanted_shapes(contract: Contract) -> tuple[dict[str, tuple[Any, ...]], dict[str, int]]:
    """Input shapes (None: any size) and output ranks of a kind."""
    o, a = contract.observation_size, contract.action_size
    if contract.kind == "dynamics":
        shapes = {
            n: (None, None, a if n == "action" else o) for n in contracts.NAMES["dynamics"][0]
        }
        return shapes, {"next_observation": 3}
    if contract.kind == "safety_critic":
        return {"observation": (None, o), "action": (None, a)}, {"risk": 1}
    if contract.kind == "encoder":
        return {"observation": (None, o)}, {"latent": 2}
    return {"observation": (None, o)}, {"action": 2}


def _check_tensors(model: Model) -> None:
    inputs, outputs = contracts.NAMES[model.contract.kind]
    state = model.contract.recurrent
    for what, got, wanted in (
        ("inputs", set(model.input_shapes), {*inputs, *(pair[0] for pair in state)}),
        ("outputs", set(model.output_shapes), {*outputs, *(pair[1] for pair in state)}),
    ):
        if got != wanted:
            raise ModelError(
                f"its {what} are {sorted(got)}, a {model.contract.kind} has {sorted(wanted)}; "
                "map them with `tensors` in the contract"
            )
    for before, after in state:
        if _open(model.input_shapes[before]) != _open(model.output_shapes[after]):
            raise ModelError(
                f"recurrent pair {before}, {after}: {model.input_shapes[before]} goes in, "
                f"{model.output_shapes[after]} comes out; they must agree"
            )
    shapes, _ = _wanted_shapes(model.contract)
    for name, wanted_shape in shapes.items():
        shape = model.input_shapes[name]
        fits = len(shape) == len(wanted_shape) and all(
            w is None or not isinstance(s, int) or s == w
            for s, w in zip(shape, wanted_shape, strict=True)
        )
        if not fits:
            raise ModelError(
                f"input {name} has shape {shape}, its contract wants {list(wanted_shape)}; "
                "the file and its contract disagree, export it again"
            )
    if model.contract.kind == "dynamics" and not model.members:
        raise ModelError("its first dimension, the ensemble size, is not fixed; export it again")


def _open(shape: list[int | str | None]) -> list[int | None]:
    """A shape with None for every size that is left open."""
    return [size if isinstance(size, int) else None for size in shape]


def _check_golden(model: Model) -> None:
    golden = model.contract.golden
    if not golden:
        return  # files from other tools have none
    inputs = {name: np.asarray(rows, np.float32) for name, rows in golden["inputs"].items()}
    got = model.run(**inputs)
    for name, rows in golden["outputs"].items():
        wanted = np.asarray(rows, np.float32)
        if name not in got or got[name].shape != wanted.shape:
            raise ModelError(f"golden output {name} has another shape; the file is damaged")
        difference = float(np.max(np.abs(got[name] - wanted), initial=0.0))
        if not difference <= GOLDEN_TOLERANCE:
            raise ModelError(
                f"golden output {name} is off by {difference:.3g}, allowed {GOLDEN_TOLERANCE:g}; "
                "the weights were changed after the export"
            )


def _probe(model: Model, scale: float, rows: int) -> dict[str, Array]:
    """Inputs of the contract's sizes; actions stay inside the box, as they do in use."""
    rng = np.random.default_rng(0)
    contract = model.contract
    lead = (model.members, rows) if contract.kind == "dynamics" else (rows,)
    low, high = np.array(contract.action_low), np.array(contract.action_high)
    inputs: dict[str, Array] = {}
    for name, shape in model.input_shapes.items():
        if name == "action":
            values = low + (high - low) * rng.random((*lead, len(low)))
        elif name in ("observation", "noise"):
            spread = scale if name == "observation" else 1.0
            values = spread * rng.standard_normal((*lead, contract.observation_size))
        else:  # recurrent state starts at zero
            values = np.zeros([rows if not isinstance(size, int) else size for size in shape])
        inputs[name] = np.asarray(values, np.float32)
    return inputs


def _check_outputs(model: Model) -> None:
    contract = model.contract
    fixed = model.input_shapes["observation"][-2]
    rows = fixed if isinstance(fixed, int) else 4
    for scale in _PROBE_SCALES:
        outputs = model.run(**_probe(model, scale, rows))
        for name, array in outputs.items():
            if not np.all(np.isfinite(array)):
                raise ModelError(f"output {name} is not finite; training diverged, train again")
        if contract.kind == "task_policy":
            _check_action(outputs["action"], contract, rows)
        elif contract.kind == "safety_critic":
            risk = outputs["risk"]
            if risk.shape != (rows,) or risk.min() < 0.0 or risk.max() > 1.0:
                raise ModelError(
                    f"risk has shape {risk.shape} and range {risk.min():g} .. {risk.max():g}, "
                    f"wanted ({rows},) within [0, 1]; put a sigmoid at the end"
                )
        elif contract.kind == "encoder":
            latent = outputs["latent"]
            if latent.ndim != 2 or len(latent) != rows:
                raise ModelError(f"latent has shape {latent.shape}, wanted ({rows}, L)")
        elif outputs["next_observation"].shape[1:] != (rows, contract.observation_size):
            raise ModelError(f"next_observation has shape {outputs['next_observation'].shape}")


def _check_action(action: Array, contract: Contract, rows: int) -> None:
    if action.shape != (rows, contract.action_size):
        raise ModelError(f"action has shape {action.shape}, wanted {(rows, contract.action_size)}")
    low, high = np.array(contract.action_low), np.array(contract.action_high)
    slack = _LIMIT_TOLERANCE * (high - low)
    outside = (action < low - slack) | (action > high + slack)
    if outside.any():
        index = int(np.argwhere(outside)[0][1])
        worst = float(action[:, index][np.argmax(np.abs(action[:, index]))])
        raise ModelError(
            f"action {contract.action_names[index]!r} reaches {worst:g}, the limits are "
            f"{low[index]:g} .. {high[index]:g}; scale or squash the output in the graph"
        )


def _check_latency(model: Model, budget_s: float) -> None:
    inputs = _probe(model, 1.0, 1)
    bound = model.bind(**{name: array.shape for name, array in inputs.items()})
    for name, array in inputs.items():
        bound.inputs[name][...] = array
    # Time that the scheduler gives to other processes is not the model's: best of three rounds.
    model.call_s = p99_s = min(_p99(bound.run) for _ in range(3))
    if p99_s > budget_s:
        raise ModelError(
            f"a call takes {1e3 * p99_s:.3g} ms (p99 of {_CALLS}), the budget is "
            f"{1e3 * budget_s:.3g} ms; use a smaller network or a longer period"
        )


def _p99(call: Any) -> float:
    times = np.empty(_CALLS)
    for i in range(_CALLS):
        began = time.perf_counter_ns()
        call()
        times[i] = time.perf_counter_ns() - began
    return float(np.quantile(times, 0.99)) * 1e-9
