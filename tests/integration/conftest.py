"""Makes the helpers beside the tests importable under importlib mode, and lands every flight."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from flights import Flight


@pytest.fixture
def fly(tmp_path: Path) -> Iterator[Callable[..., Flight]]:
    """Starts a graph in the background; whatever the test does, it has ended afterwards."""
    flights: list[Flight] = []

    def start(*arguments: str) -> Flight:
        flights.append(Flight(tmp_path / f"run{len(flights)}"))
        return flights[-1].start(*arguments)

    yield start
    for flight in flights:
        flight.close()
