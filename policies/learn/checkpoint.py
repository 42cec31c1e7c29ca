"""Checkpoints: one file, written whole or not at all, read without running code from it."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from safetypilot.policies.learn.errors import LearnError

FORMAT = 1


def save(path: Path | str, state: dict[str, Any]) -> None:
    """Write tensors and plain values; a reader sees the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def load(path: Path | str) -> dict[str, Any]:
    """Read what `save` wrote.

    Raises:
        LearnError: no such file, not a checkpoint, or of another format.
    """
    path = Path(path)
    try:
        state: Any = torch.load(path, weights_only=True)
    except FileNotFoundError:
        raise LearnError(f"{path} does not exist; give a checkpoint to resume from") from None
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise LearnError(f"{path} is not a checkpoint: {reason}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise LearnError(f"{path} is not a checkpoint of format {FORMAT}; start afresh")
    return dict(state)


def rng_state(rng: np.random.Generator) -> str:
    """A generator's state as JSON: its 128-bit integers fit no tensor."""
    return json.dumps(rng.bit_generator.state)


def restore_rng(rng: np.random.Generator, text: str) -> None:
    """Continue the random numbers from `rng_state`."""
    rng.bit_generator.state = json.loads(text)
