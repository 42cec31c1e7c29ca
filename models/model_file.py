"""Reads a model's bytes from the disk: whole or not at all, and never too many."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetypilot.models import contract as contracts
from safetypilot.models import onnx_file
from safetypilot.models.errors import ModelError

MAX_BYTES = 64 * 2**20


def read_bytes(path: Path | str) -> bytes:
    """The file's bytes, whole or not at all."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ModelError(f"{path} is not a file; give the path of an ONNX file")
        if size > MAX_BYTES:
            raise ModelError(f"{path} has {size} bytes, the most allowed is {MAX_BYTES}")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ModelError(
            f"{path} does not exist; train or export it, or correct the path"
        ) from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise ModelError(f"{path} grew beyond {MAX_BYTES} bytes while it was read")
    if not data:
        raise ModelError(f"{path} is empty; it may be half written")
    return data


def kind_of(path: Path | str) -> str:
    """What kind of model a file says it is; empty if it does not say.

    Raises:
        ModelError: it cannot be read, or is no ONNX file.
    """
    text = onnx_file.summarise(read_bytes(path)).metadata.get(contracts.METADATA_KEY, "{}")
    try:
        data = json.loads(text)
    except ValueError:
        return ""
    return str(data.get("kind", "")) if isinstance(data, dict) else ""


def contract_of(
    path: Path | str, supplement: Mapping[str, Any] | None = None
) -> contracts.Contract | None:
    """What a file promises, without building it; None where it has no contract of ours.

    Args:
        supplement: contract entries that the file lacks.

    Raises:
        ModelError: it cannot be read, is no ONNX file, or contradicts itself.
    """
    text = summarise(read_bytes(path)).metadata.get(contracts.METADATA_KEY)
    return None if text is None else contracts.from_json(text, lacking(supplement))


def lacking(supplement: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of what a launch file says of a model: the entries of a contract, in so many words."""
    known = contracts.Contract.__dataclass_fields__
    return {k: v for k, v in (supplement or {}).items() if k in known and v != "plant"}


def summarise(data: bytes) -> onnx_file.Summary:
    """What the bytes say of the model.

    Raises:
        ModelError: it is no ONNX model, or it needs operators that are not run here.
    """
    summary = onnx_file.summarise(data)
    if not summary.has_graph:
        raise ModelError("not an ONNX model: no graph in it; it may be another kind of file")
    foreign = sorted(summary.domains - onnx_file.DOMAINS)
    if foreign:
        raise ModelError(
            f"it uses operators of {', '.join(foreign)}; custom operators are not run, "
            "export with standard ones"
        )
    return summary


def external(path: Path, names: set[str]) -> dict[str, bytes]:
    """The bytes of weights that lie in files beside the model, as torch.onnx writes them, by name.

    Raises:
        ModelError: one lies elsewhere, or cannot be read.
    """
    for name in names:
        if not name or name in (".", "..") or Path(name).name != name:
            raise ModelError(
                f"its weights lie in another file, {name!r}; only one beside the model is read, "
                "export it as one file (torch.onnx.export: external_data=False)"
            )
    found = {name: read_bytes(path.parent / name) for name in sorted(names)}
    if sum(map(len, found.values())) > MAX_BYTES:
        raise ModelError(f"its weights have more than {MAX_BYTES} bytes")
    return found
