"""Copies of models that promise something else, for the tests of the launch layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx

from safetypilot.launch import files


def promising(folder: Path, model: str, **entries: Any) -> str:
    """A copy of a model of the zoo with other entries in its contract."""
    loaded = onnx.load(files.zoo() / f"{model}.onnx")
    (metadata,) = loaded.metadata_props
    metadata.value = json.dumps({**json.loads(metadata.value), **entries})
    return _saved(loaded, folder)


def annotated(folder: Path, model: str, **metadata: str) -> str:
    """A copy of a model of the zoo with further metadata, as other makers write it."""
    loaded = onnx.load(files.zoo() / f"{model}.onnx")
    for key, value in metadata.items():
        loaded.metadata_props.add(key=key, value=value)
    return _saved(loaded, folder)


def foreign(folder: Path, model: str) -> str:
    """A copy of a model of the zoo that says nothing of itself."""
    loaded = onnx.load(files.zoo() / f"{model}.onnx")
    del loaded.metadata_props[:]
    return _saved(loaded, folder)


def _saved(model: Any, folder: Path) -> str:
    path = folder / f"copy{len(list(folder.glob('copy*')))}.onnx"
    onnx.save(model, path)
    return str(path)
