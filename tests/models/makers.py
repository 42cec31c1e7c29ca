"""Networks as other makers export them, made with torch while the tests run."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

# A plant of two joints, whose observation is laid out differently from what its policies take.
JOINTS = ("hip", "knee")
OBSERVATION = ("hip_pos", "knee_pos", "hip_vel", "knee_vel", "gravity[3]", "command")
UNITS = ("rad", "rad", "rad/s", "rad/s", "1", "m/s")


class Plant:
    observation_names = OBSERVATION
    observation_units = UNITS
    action_names = JOINTS
    action_units = ("rad", "rad")
    action_low = (-1.5, -2.0)
    action_high = (1.5, 2.0)


def seeded(seed: int = 0) -> None:
    torch.manual_seed(seed)


def mlp(inputs: int, outputs: int, *, width: int = 16, squash: bool = True) -> nn.Module:
    seeded()
    layers: list[nn.Module] = [nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs)]
    return nn.Sequential(*layers, *([nn.Tanh()] if squash else [])).eval()


def export(module: nn.Module, inputs: tuple[Any, ...], path: Path, **options: Any) -> Path:
    """torch.onnx.export; the older of its two exporters unless told, which is the faster."""
    options.setdefault("dynamo", False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, inputs, str(path), verbose=False, **options)
    return path


class IsaacPolicy(nn.Module):
    """As Isaac Lab's exporter lays a recurrent or plain actor out: obs, h_in, c_in."""

    def __init__(self, observation: int, actions: int, rnn: str = "") -> None:
        super().__init__()
        seeded(3)
        self.kind, hidden = rnn, 8
        self.rnn = {"lstm": nn.LSTM, "gru": nn.GRU}[rnn](observation, hidden) if rnn else None
        self.actor = mlp(hidden if rnn else observation, actions, squash=False)
        self.eval()

    def forward(self, obs: torch.Tensor, *state: torch.Tensor) -> Any:
        if self.rnn is None:
            return self.actor(obs)
        given = state[0] if self.kind == "gru" else state
        x, following = self.rnn(obs.unsqueeze(0), given)
        follows = (following,) if self.kind == "gru" else following
        return self.actor(x.squeeze(0)), *follows


def isaac_file(path: Path, policy: IsaacPolicy, metadata: dict[str, Any], size: int) -> Path:
    """Exports with the documented names and appends the metadata as attach_onnx_metadata does."""
    states = {"": (), "gru": ("h",), "lstm": ("h", "c")}[policy.kind]
    export(
        policy,
        (torch.zeros(1, size), *(torch.zeros(1, 1, 8) for _ in states)),
        path,
        input_names=["obs", *(f"{s}_in" for s in states)],
        output_names=["actions", *(f"{s}_out" for s in states)],
    )
    model = onnx.load(path)
    for key, value in metadata.items():
        entry = onnx.StringStringEntryProto()
        entry.key = key
        entry.value = (
            ",".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in value)
            if isinstance(value, list)
            else str(value)
        )
        model.metadata_props.append(entry)
    onnx.save(model, path)
    return path


ISAAC = {
    "run_path": "robot/flat/1",
    "joint_names": list(JOINTS),
    "joint_stiffness": [40.0, 30.0],
    "joint_damping": [1.0, 0.5],
    "default_joint_pos": [0.1, -0.4],
    "command_names": ["base_velocity"],
    "observation_names": ["command", "gravity", "joint_pos", "joint_vel", "actions"],
    "action_scale": 0.25,
}
ISAAC_SIZE = 1 + 3 + 2 + 2 + 2
ISAAC_CONTRACT = {
    "action_low": "plant",
    "action_high": "plant",
    "action_clip": True,
    "terms": {
        "joint_pos": {"names": "{joint}_pos", "minus": "default_joint_pos"},
        "joint_vel": {"names": "{joint}_vel", "times": 0.05},
        "actions": "previous_action",
    },
}
