"""Tests of learning start from the same weights, on one thread, and share a tiny world."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))  # for ledge


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Weights start the same in every run, whatever other tests drew before."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Two threads that wait for each other are a hundred times slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
