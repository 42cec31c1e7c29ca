"""What a contestant's processes are told, in one JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HOPS = ("policy", "critic", "arbiter")


@dataclass(frozen=True)
class Course:
    """One block of one contestant.

    Attributes:
        steps: that count, after `warmup` that do not.
        models: "policy" and "critic" -> ONNX file.
        dims: O and A.
        sizes: topic -> bytes of its frames.
        schedule: as in a launch file's `realtime:`, and `nice`; see schedule.py.
        folder: private directory for sockets, scratch files and the result.
        ports: free ports of the loopback device, for those who need some.
        options: what else this contestant wants to know.
    """

    name: str
    rate_hz: float
    steps: int
    warmup: int
    env: str
    seed: int
    models: dict[str, str]
    eps: float
    dims: dict[str, int]
    sizes: dict[str, int]
    schedule: dict[str, Any]
    folder: str
    ports: list[int] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def period_ns(self) -> int:
        return round(1e9 / self.rate_hz)

    @property
    def result(self) -> Path:
        return Path(self.folder) / "samples.npz"

    @property
    def progress(self) -> Path:
        return Path(self.folder) / "progress"

    @property
    def reason(self) -> Path:
        """Why there is no result, in one line."""
        return Path(self.folder) / "reason"

    @property
    def path(self) -> Path:
        return Path(self.folder) / "course.json"

    def write(self) -> Path:
        self.path.write_text(json.dumps(asdict(self)))
        return self.path

    @classmethod
    def read(cls, path: str | Path) -> Course:
        return cls(**json.loads(Path(path).read_text()))
