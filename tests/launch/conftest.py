"""Runs of these tests have a runtime directory of their own, and find the fake nodes."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)  # for launch_helpers and fake_nodes


@pytest.fixture(autouse=True)
def runtime_base(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A directory for sockets: short enough for them, and nobody else's."""
    tmp_path_factory.getbasetemp()  # pytest's own stays where it is
    folder = Path(tempfile.mkdtemp(prefix="sp", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("PYTHONPATH", HERE)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
