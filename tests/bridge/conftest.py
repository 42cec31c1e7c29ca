"""Makes the helpers of these tests importable, and starts the quadrupeds that two files share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from unitree_rig import Robot

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    """A simulated quadruped, for all tests of a file."""
    from unitree_rig import Robot  # needs DDS, which not every test here does

    made = Robot(tmp_path_factory.mktemp("robot"))
    yield made
    made.end()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    """One that waits for nobody for long."""
    from unitree_rig import STRICT_MS, Robot

    made = Robot(tmp_path_factory.mktemp("strict"), timeout_ms=STRICT_MS)
    yield made
    made.end()
