"""Checkpoints: one file, written whole or not at all, read without running code from it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.replay import Replay

FORMAT = 2  # 1 had no dimension for seeds


def save(path: Path | str, state: dict[str, Any]) -> None:
    """Write tensors and plain values; a reader sees the old file or the new one.

    Raises:
        LearnError: it cannot be written, such as on a full disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except (OSError, RuntimeError) as error:
        # torch's writer trips over its own position when the file has refused its bytes
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        kept = "the one before is still there" if path.exists() else "there is none yet"
        raise LearnError(
            f"cannot write the checkpoint {path}: {cause.strerror}; {kept}. "
            "Free some space and go on with --resume"
        ) from error
    finally:
        scratch.unlink(missing_ok=True)


def load(path: Path | str) -> dict[str, Any]:
    """Read what `save` wrote.

    Raises:
        LearnError: no such file, not a checkpoint, or of another format.
    """
    path = Path(path)
    if not path.exists():
        raise LearnError(f"{path} does not exist; give a checkpoint to resume from")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch and its unpickler share no base class
        reason = str(error).partition("\n")[0]
        raise LearnError(f"{path} is not a checkpoint: {reason}") from None
    found = state.get("format") if isinstance(state, dict) else None
    if found != FORMAT:
        raise LearnError(f"{path} is of format {found}, wanted {FORMAT}; start afresh")
    return dict(state)


def collect(
    networks: Mapping[str, Any], optimisers: Mapping[str, Any], replays: Mapping[str, Replay]
) -> dict[str, Any]:
    """Everything named, as tensors and plain values."""
    return {
        "networks": {name: network.state_dict() for name, network in networks.items()},
        "optimisers": {name: optimiser.state_dict() for name, optimiser in optimisers.items()},
        "replays": {
            name: {key: torch.from_numpy(array) for key, array in replay.state().items()}
            for name, replay in replays.items()
        },
    }


def put_back(
    state: Mapping[str, Any],
    networks: Mapping[str, Any],
    optimisers: Mapping[str, Any],
    replays: Mapping[str, Replay],
) -> None:
    """Undo `collect`.

    Raises:
        LearnError: the saved networks have other sizes; nothing was changed.
    """
    for name, network in networks.items():
        _same_sizes(name, state["networks"].get(name, {}), network.state_dict())
    try:
        for name, network in networks.items():
            network.load_state_dict(state["networks"][name])
        for name, optimiser in optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
    except (RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise LearnError(f"the checkpoint is of another learner: {reason}") from None
    for name, replay in replays.items():
        replay.restore({key: saved.numpy() for key, saved in state["replays"][name].items()})


def _same_sizes(name: str, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse tensors of other names or shapes."""
    for key in sorted({*saved, *own}):
        shapes = [tuple(found[key].shape) if key in found else "none" for found in (saved, own)]
        if shapes[0] != shapes[1]:
            raise LearnError(
                f"the checkpoint is of another learner: its {name}.{key} is {shapes[0]}, here "
                f"{shapes[1]}; use the environment, seeds and settings that it was made with"
            )


def rng_state(rng: np.random.Generator) -> str:
    """A generator's state as JSON: its 128-bit integers fit no tensor."""
    return json.dumps(rng.bit_generator.state)


def restore_rng(rng: np.random.Generator, text: str) -> None:
    """Continue the random numbers from `rng_state`."""
    rng.bit_generator.state = json.loads(text)
