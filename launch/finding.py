"""What `safetypilot doctor` says of one thing."""

from __future__ import annotations

from typing import Any, NamedTuple


class Finding(NamedTuple):
    """One thing about the machine. `level` is ok, note (works, but) or bad (will not work)."""

    name: str
    value: Any
    level: str = "ok"
    advice: str = ""
